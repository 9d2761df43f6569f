"""One try to carry a job out, under a lease: what it may ask, and when it has to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from textnlp_fast.contents.windows import Progress
from textnlp_fast.errors import (
    ConflictError,
    StorageUnavailableError,
    TextnlpFastError,
    TransferCancelledError,
)
from textnlp_fast.objectstore.lease import Lease
from textnlp_fast.service.jobs.records import Job, Standing

__all__ = ["Attempt", "WorkStoppedError"]


class WorkStoppedError(StorageUnavailableError):
    """The lease is lost, or the service ends: somebody else goes on with the job, or this one does later.

    Of the kind of a store that went away, because a pull that meets that keeps what it has made.
    """


class Attempt:
    """Thread-safe. `told` is called with each standing, on the threads that do the work."""

    def __init__(self, job: Job, lease: Lease, told: Callable[[Job, Standing], None]) -> None:
        self.job = job
        self.token = job.token
        self._lease = lease
        self._told = told
        self._lock = threading.Lock()
        self._lost = False
        self._ending = False
        self._cancelling = False
        self._standing: Standing | None = None
        self._began = (time.monotonic(), 0)

    @property
    def standing(self) -> Standing | None:
        """How far it has come."""
        return self._standing

    @property
    def lost(self) -> bool:
        """Whether the lease is not held any more."""
        return self._lost or not self._lease.is_held

    @property
    def ending(self) -> bool:
        """Whether the service ends."""
        return self._ending

    # --- what is done to it -------------------------------------------------------------------------------------

    def renew(self) -> None:
        """Holds the lease for longer; loses it where another took it over, or the store does not answer in time."""
        with self._lock:
            try:
                self._lease.renew()
            except ConflictError:
                self._lost = True
            except TextnlpFastError:
                pass  # asked again before the lease runs out; when it has, `lost` says so

    def lose(self) -> None:
        """The record says that somebody else has the job."""
        self._lost = True

    def end(self) -> None:
        """The service ends."""
        self._ending = True

    def cancel(self) -> None:
        """The job is not wanted any more."""
        self._cancelling = True

    def release(self) -> None:
        """Lets the next one in at once."""
        with self._lock:
            if not self._lost:
                self._lease.release()

    # --- what the work calls ------------------------------------------------------------------------------------

    def check_writing(self) -> None:
        """Before every write to the repository. Raises WorkStoppedError once the lease is lost or the service ends.

        It does not ask whether the job was cancelled: what was published cannot be, and the work's next step asks.
        """
        if self.lost:
            raise WorkStoppedError(f"transfer {self.job.id} was taken over by another worker")
        if self._ending:
            raise WorkStoppedError(f"transfer {self.job.id} stops: the service ends")

    def check(self) -> None:
        """Between two pieces of work. Raises TransferCancelledError beside what `check_writing` does."""
        self.check_writing()
        if self._cancelling:
            raise TransferCancelledError(f"transfer {self.job.id} was cancelled")

    def progress(self, progress: Progress) -> None:
        """What push, pull and the others report to."""
        self.check()
        now = time.monotonic()
        with self._lock:
            before = self._standing
            if before is None or before.phase != progress.stage or progress.done_bytes < before.done_bytes:
                self._began = (now, progress.done_bytes)
            began, had = self._began
            rate = (progress.done_bytes - had) / (now - began) if now - began > 0.2 else None
            self._standing = Standing(
                phase=progress.stage,
                done_bytes=progress.done_bytes,
                total_bytes=progress.total_bytes,
                bytes_per_s=None if rate is None else round(rate),
            )
            standing = self._standing
        self._told(self.job, standing)

    def phase(self, name: str) -> None:
        """A part of the work that reports no bytes begins."""
        self.progress(Progress(name, 0, 0))
