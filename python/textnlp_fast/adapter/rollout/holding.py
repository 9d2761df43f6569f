"""The lease of whoever rolls out, renewed by a thread for as long as that takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from textnlp_fast.errors import ConflictError, StorageUnavailableError, TextnlpFastError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.objectstore.lease import acquire

__all__ = ["HeldLease"]


class HeldLease:
    """A context manager. Waits for as long as another's lease lasts; raises ConflictError if that one is alive."""

    def __init__(
        self, store: ObjectStore, key: str, *, holder: str, seconds: float, told: Callable[[str], None]
    ) -> None:
        waits = threading.Timer(
            1.0,
            told,
            [f"waiting for whoever rolls out: one that was killed is waited for up to {seconds:.0f} s"],
        )
        waits.start()
        try:
            self._lease = acquire(store, key, holder=holder, seconds=seconds)
        finally:
            waits.cancel()
        self._told = told
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="rollout-lease", daemon=True)

    @property
    def is_held(self) -> bool:
        """Whether nobody else can be at work yet."""
        return not self._lost.is_set() and self._lease.is_held

    def check(self) -> None:
        """Raises ConflictError once it is lost: nothing more may be done."""
        if not self.is_held:
            raise ConflictError(
                "the lease of this rollout was lost; another controller goes on with it, or will",
                hint="`textnlp-fast deploy status` says how far it is; running the command again goes on with it.",
            )

    def _beat(self) -> None:
        while not self._stop.wait(self._lease.seconds / 5):
            if not self._lease.is_held:
                break
            try:
                self._lease.renew()
            except ConflictError:
                break
            except StorageUnavailableError as error:
                self._told(f"the lease could not be renewed: {error.args[0]}")
        if not self._stop.is_set():
            self._lost.set()

    def __enter__(self) -> HeldLease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost.is_set():
            try:
                self._lease.release()
            except TextnlpFastError as late:
                self._told(f"the lease was not given back, and runs out: {late.args[0]}")
