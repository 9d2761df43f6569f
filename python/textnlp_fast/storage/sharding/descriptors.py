"""Files that are open while they are used, and a bounded number of them for a while after."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["Descriptors"]

_MOST_IDLE: Final = 128


class Descriptors:
    """Descriptors by the numbers of files, opened with `flags` when they are asked for. Thread-safe.

    A model may have more files than a process may have open.
    """

    def __init__(self, path_of: Callable[[int], Path], flags: int) -> None:
        self._path_of = path_of
        self._flags = flags
        self._lock = threading.Lock()
        self._used: dict[int, tuple[int, int]] = {}  # descriptor and how many use it
        self._idle: OrderedDict[int, int] = OrderedDict()

    @contextmanager
    def use(self, number: int) -> Iterator[int]:
        """The descriptor of a file for the duration of the block."""
        with self._lock:
            descriptor, users = self._used.get(number, (-1, 0))
            if not users:
                descriptor = self._idle.pop(number, -1)
            if descriptor < 0:
                descriptor = os.open(self._path_of(number), self._flags | os.O_CLOEXEC)
            self._used[number] = descriptor, users + 1
        try:
            yield descriptor
        finally:
            with self._lock:
                descriptor, users = self._used.pop(number)
                if users > 1:
                    self._used[number] = descriptor, users - 1
                else:
                    self._idle[number] = descriptor
                    if len(self._idle) > _MOST_IDLE:
                        os.close(self._idle.popitem(last=False)[1])

    def __enter__(self) -> Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            while self._idle:
                os.close(self._idle.popitem()[1])
