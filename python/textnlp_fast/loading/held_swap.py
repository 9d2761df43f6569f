"""A swap in two halves: the new weights in place and checked, then kept or taken back, as others decide."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from textnlp_fast.errors import SwapCancelledError
from textnlp_fast.loading.swapping import SwapReport, swap

__all__ = ["HeldSwap"]


class HeldSwap:
    """A swap in a thread of its own that stops before it commits until it is told what to do."""

    def __init__(self, decision_timeout_s: float) -> None:
        self._timeout_s = decision_timeout_s
        self._changed = threading.Condition()
        self._ready = False
        self._held = False
        self._commit: bool | None = None
        self._error: BaseException | None = None
        self._report: SwapReport | None = None
        self._thread: threading.Thread | None = None

    @property
    def error(self) -> BaseException | None:
        """Why the old weights are in place again."""
        return self._error

    @property
    def report(self) -> SwapReport | None:
        """Of a swap that was committed."""
        return self._report

    def start(self, model: Any, update: str, options: Mapping[str, Any]) -> None:
        """Returns when the new weights are in place and checked, or the old ones are back."""

        def run() -> None:
            try:
                self._report = swap(model, update, before_commit=self._wait, **options)
            except BaseException as error:  # noqa: BLE001  (whoever asked is told)
                self._error = error
            with self._changed:
                self._ready = True
                self._changed.notify_all()

        # A process that is shut down does not wait for a decision that nobody is left to make.
        self._thread = threading.Thread(target=run, name="textnlp-fast-swap-rank", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready)

    def hold(self) -> bool:
        """Stops the clock: from here on only :meth:`finish` decides. Whether the new weights are still in place."""
        with self._changed:
            # A thread that gives up decides so under the same lock.
            self._held = self._commit is None and self._error is None
            return self._held

    def finish(self, commit: bool) -> None:
        """Commits, or puts the old weights back."""
        assert self._thread is not None
        with self._changed:
            if self._commit is None:
                self._commit = commit
            self._changed.notify_all()
        self._thread.join()

    def _wait(self) -> None:
        with self._changed:
            self._ready = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._commit is not None or self._held, self._timeout_s)
            if self._held:
                self._changed.wait_for(lambda: self._commit is not None)
            if self._commit is None:
                self._commit = False
                raise SwapCancelledError(
                    f"nobody said within {self._timeout_s:g} s whether all ranks are ready"
                )
            if not self._commit:
                raise SwapCancelledError("another rank could not take the new weights")
