"""Jobs that ended long ago are forgotten, by one process at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from textnlp_fast.errors import ConflictError
from textnlp_fast.objectstore.lease import acquire
from textnlp_fast.service.jobs.book import JobBook, Listing
from textnlp_fast.service.jobs.records import Job

__all__ = ["LEASE_KEY", "Pruner"]

LEASE_KEY: Final = "leases/jobs.json"
_LEASE_S: Final = 60.0
_AT_ONCE: Final = 50
_PAUSE_S: Final = 30.0


class Pruner:
    """Keeps the newest `keep` jobs that ended, and none for longer than `keep_s`. For one thread."""

    def __init__(
        self,
        book: JobBook,
        *,
        holder: str,
        keep: int = 1000,
        keep_s: float = 7 * 86400.0,
        pause_s: float = _PAUSE_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._book = book
        self._holder = holder
        self._keep = keep
        self._keep_s = keep_s
        self._pause_s = pause_s
        self._now = now
        self._last = float("-inf")

    def stale(self, listing: Listing) -> list[Job]:
        """Those that may go, the oldest first."""
        ended = [job for job in listing.jobs.values() if job.state.ended and job.ended_s is not None]
        ended.sort(key=lambda job: (job.ended_s or 0.0, job.id))
        oldest = self._now() - self._keep_s
        over = max(0, len(ended) - self._keep)
        return [job for number, job in enumerate(ended) if number < over or (job.ended_s or 0.0) < oldest]

    def prune(self, listing: Listing) -> int:
        """Forgets some of them, and says how many; does nothing while another process is at it.

        One alone removes records: what it has looked at a moment ago cannot give way to a new job of the same id.
        """
        clock = time.monotonic()
        if clock - self._last < self._pause_s:
            return 0
        self._last = clock
        stale = self.stale(listing)[:_AT_ONCE]
        if not stale:
            return 0
        try:
            lease = acquire(
                self._book.store, LEASE_KEY, holder=self._holder, seconds=_LEASE_S, sleep=_not_now
            )
        except ConflictError:
            return 0
        removed = 0
        for job in stale:
            if not lease.is_held:
                break
            self._book.remove(job)
            removed += 1
        lease.release()
        return removed


def _not_now(_seconds: float) -> None:
    raise ConflictError("another process forgets jobs")
