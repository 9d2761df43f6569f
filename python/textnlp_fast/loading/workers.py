"""Threads that do the parts of a swap, and that are known to have ended before anything is put back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from textnlp_fast.errors import SwapCancelledError

__all__ = ["Workers"]

Result = TypeVar("Result")


class Workers:
    """Up to `count` threads a call of `run`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._at_work = 0
        self._closed = False
        self._quiet = threading.Condition()

    def run(self, work: Callable[[Any], Result], items: Sequence[Any]) -> list[Result]:
        """Results in order. The first error ends it: what has not begun then never does."""

        def one(item: Any) -> Result:
            with self._quiet:
                if self._closed:
                    raise SwapCancelledError("another part of the swap failed")
                self._at_work += 1
            try:
                return work(item)
            finally:
                with self._quiet:
                    self._at_work -= 1
                    self._quiet.notify_all()

        with ThreadPoolExecutor(self.count, thread_name_prefix="textnlp-fast-swap") as pool:
            futures = [pool.submit(one, item) for item in items]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = [error for future in futures if future in done and (error := future.exception())]
                if failed:
                    raise failed[0]
                return [future.result() for future in futures]
            finally:
                pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Lets nothing begin any more and waits for what runs: an interrupt can end the wait in `run` before that."""
        with self._quiet:
            self._closed = True
            self._quiet.wait_for(lambda: self._at_work == 0)
