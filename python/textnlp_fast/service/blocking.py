"""Calls that block, on bounded pools of threads: never on the event loop, never without an end to the wait."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from textnlp_fast.service.problems import OverloadedError, ServiceTimeoutError

__all__ = ["Blocking"]

Result = TypeVar("Result")
# Calls that wait for a thread, for each thread: with more the wait would be longer than anybody's patience.
_WAITING: Final = 16


class Blocking:
    """A pool of `threads`. A call that nobody waits for any more runs to its end, and takes its place until then."""

    def __init__(self, name: str, threads: int, timeout_s: float, *, waiting: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"service-{name}")
        self._timeout_s = timeout_s
        self._most = threads + (threads * _WAITING if waiting is None else waiting)
        self._busy = 0
        self._running = 0
        self._lock = threading.Lock()

    @property
    def is_idle(self) -> bool:
        """Whether no thread works at a call; may be asked without a loop."""
        return self._running == 0

    @property
    def busy(self) -> int:
        """Calls that run or wait for a thread."""
        return self._busy

    async def run(
        self,
        function: Callable[..., Result],
        *arguments: Any,
        timeout_s: float | None = None,
        **named: Any,
    ) -> Result:
        """What the function returns, or raises.

        Raises OverloadedError where too many wait already, ServiceTimeoutError after `timeout_s` (by default the
        pool's); the call goes on then.
        """
        if self._busy >= self._most:
            raise OverloadedError(f"{self._busy} calls are being worked at already")
        call = partial(contextvars.copy_context().run, self._counted, partial(function, *arguments, **named))
        self._busy += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        future.add_done_callback(self._ended)
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return await asyncio.wait_for(asyncio.shield(future), limit_s)
        except asyncio.TimeoutError:
            if future.done():
                return future.result()  # its own, not ours
            raise ServiceTimeoutError(f"there was no answer within {limit_s:g} s") from None

    def _counted(self, call: Callable[[], Result]) -> Result:
        with self._lock:
            self._running += 1
        try:
            return call()
        finally:
            with self._lock:
                self._running -= 1

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._busy -= 1
        if not future.cancelled():
            future.exception()  # somebody may have stopped waiting for it: it is not news then

    def close(self) -> None:
        """Takes no more calls and drops those that did not begin; those that run are left to end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
