"""Says on a terminal which store a silent command waits for."""

from __future__ import annotations

import sys
import threading
from typing import Final

import click

from textnlp_fast.cli.program import printable

__all__ = ["something_is_shown", "tell_if_waiting_for"]

_PATIENCE_S: Final = 5.0
_FOLDERS: Final = ("file:", "memory:")

_timers: list[threading.Timer] = []


def tell_if_waiting_for(url: str, *, after_s: float = _PATIENCE_S) -> None:
    """Says on stderr that the store at `url` is waited for, unless the command ends or shows progress before that.

    Only on a terminal, only of buckets, and once: every request ends by its own timeout.
    """
    context = click.get_current_context(silent=True)
    if context is None or url.startswith(_FOLDERS) or not sys.stderr.isatty():
        return

    def tell() -> None:
        click.echo(printable(f"waiting for {url}"), err=True)

    timer = threading.Timer(after_s, tell)
    timer.daemon = True
    _timers.append(timer)
    context.call_on_close(something_is_shown)
    timer.start()


def something_is_shown() -> None:
    """There is a bar to look at, or the command has ended: nobody wonders any more."""
    while _timers:
        _timers.pop().cancel()
