"""Which job to try next: those that nobody has, then those whose worker shows no sign of life. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from textnlp_fast.service.jobs.book import Listing
from textnlp_fast.service.jobs.records import Job

__all__ = ["Candidates"]

_SUSPECT_SHARE: Final = 0.5
"""A lease that was not renewed for this share of its time is watched: a live holder renews twice in that."""


class Candidates:
    """What one process has seen of leases, by its own clock. For one thread at a time.

    `lease_s` is the time of the leases that workers take.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._marks: dict[str, tuple[str, float]] = {}
        self._held: dict[str, str] = {}

    def see(self, listing: Listing, clock_s: float) -> None:
        """Takes note of what leases are like now."""
        self._marks = {
            job_id: known
            if (known := self._marks.get(job_id)) is not None and known[0] == mark
            else (mark, clock_s)
            for job_id, mark in listing.leases.items()
        }
        self._held = {
            job_id: mark for job_id, mark in self._held.items() if listing.leases.get(job_id) == mark
        }

    def is_held(self, job_id: str) -> None:
        """Somebody was found to hold the job's lease, as it was seen last: no need to ask before that changes."""
        self._held[job_id] = self._marks.get(job_id, ("", 0.0))[0]

    def next(
        self,
        listing: Listing,
        busy: Collection[str],
        *,
        now_s: float,
        clock_s: float,
        may_do: Callable[[Job], bool] = lambda job: True,
    ) -> tuple[Job, bool] | None:
        """A job to try, and whether its lease has to be watched first; None: nothing is to be done now.

        `busy` are those that this process has in hand, `now_s` is the time of day. What it may not do it leaves to
        others, except to end what was cancelled.
        """
        open_jobs = [
            job
            for job in listing.jobs.values()
            if not job.state.ended and job.id not in busy and (job.cancelling or may_do(job))
        ]
        open_jobs.sort(key=lambda job: (job.created_s, job.id))
        for job in open_jobs:
            if job.id not in self._held and (job.cancelling or job.not_before_s <= now_s):
                return job, False
        for job in open_jobs:
            if job.id in self._held and self._is_quiet(job.id, clock_s):
                return job, True
        return None

    def _is_quiet(self, job_id: str, clock_s: float) -> bool:
        mark = self._marks.get(job_id)
        return mark is not None and clock_s - mark[1] >= _SUSPECT_SHARE * self._lease_s
