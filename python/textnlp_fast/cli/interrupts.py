"""Ctrl-C while modules are loaded."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ending_at_once"]


@contextmanager
def ending_at_once() -> Iterator[None]:
    """An interrupt within the block ends the process with code 130 and one line on stderr.

    For imports: there is nothing to undo yet, and a KeyboardInterrupt in the middle of one may be swallowed,
    or come out as another error. Does nothing where interrupts are ignored or somebody handles them.
    """
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if handled:
            signal.signal(signal.SIGINT, _end)
    except ValueError:
        handled = False  # only the main thread may say, and interrupts go to that one alone
    try:
        yield
    finally:
        if handled:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)
