"""Answers that are kept: bounded in bytes, and made once however many ask for the same at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["ByteCache", "SingleFlight"]

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """The values used last, of at most so many bytes together. For one event loop."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self.size_bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable) -> Value | None:
        """The value, which is the youngest from now on; None if there is none."""
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: Value, size_bytes: int) -> None:
        """Keeps a value of about this size; those that were not used for longest go. One too large is not kept."""
        self.drop(key)
        if size_bytes > self._most_bytes // 4:
            return
        self._kept[key] = (value, size_bytes)
        self.size_bytes += size_bytes
        while self.size_bytes > self._most_bytes:
            _, (_, gone_bytes) = self._kept.popitem(last=False)
            self.size_bytes -= gone_bytes

    def drop(self, key: Hashable) -> None:
        """Forgets a value, if it is there."""
        found = self._kept.pop(key, None)
        if found is not None:
            self.size_bytes -= found[1]

    def __len__(self) -> int:
        return len(self._kept)


class SingleFlight:
    """Work that is under way, by what it makes: who asks for the same waits for the same.

    A caller who goes away ends nothing. Whoever waits gets the result, or the same error.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Any]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[Value]]) -> Value:
        """What `work` returns or raises, which runs only if nobody's does."""
        task = self.start(key, work)
        return await asyncio.shield(task)

    def start(self, key: Hashable, work: Callable[[], Awaitable[Value]]) -> asyncio.Task[Value]:
        """The work that is under way, begun if there was none."""
        task: asyncio.Task[Value] | None = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(_awaiting(work))
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def is_running(self, key: Hashable) -> bool:
        return key in self._running

    def _ended(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # all who waited may have gone


async def _awaiting(work: Callable[[], Awaitable[Value]]) -> Value:
    return await work()
