"""The gate of a replica: how many requests run, whether new ones are let in, and a wait until none runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from textnlp_fast.errors import TextnlpFastError

__all__ = ["DrainingError", "Gate"]


class DrainingError(TextnlpFastError):
    """The replica takes no request now: answer 503, and the client or gateway asks another."""

    exit_code = 8
    default_hint = "Ask another replica, or this one again a little later."


class Gate:
    """Around whatever uses the weights. Thread-safe.

    >>> gate = Gate()
    >>> with gate.request():
    ...     pass  # answer
    """

    def __init__(self, *, is_open: bool = True) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._open = is_open

    @property
    def running(self) -> int:
        """Requests that run now."""
        return self._running

    @property
    def is_open(self) -> bool:
        """Whether new ones are let in."""
        return self._open

    @contextmanager
    def request(self) -> Iterator[None]:
        """Lets one request in for as long as the block lasts. Raises DrainingError where none is let in."""
        with self._changed:
            if not self._open:
                raise DrainingError("the replica is drained")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close(self, deadline_s: float) -> int:
        """Lets nobody in any more and waits for those that run; returns how many still do after `deadline_s`."""
        end = time.monotonic() + deadline_s
        with self._changed:
            self._open = False
            while self._running and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._running

    def open(self) -> None:
        """Lets requests in again."""
        with self._changed:
            self._open = True
