"""What goes on beside a job's work: its lease is renewed, and it is heard whether the job was cancelled."""

from __future__ import annotations

import logging
import threading
from typing import Final

from textnlp_fast.errors import ObjectNotFoundError, TextnlpFastError
from textnlp_fast.service.jobs.attempt import Attempt
from textnlp_fast.service.jobs.book import JobBook
from textnlp_fast.service.jobs.records import Job, JobEndedError, JobTakenError, Standing

__all__ = ["beat"]

_log = logging.getLogger("textnlp_fast.service.jobs")
_BEATS: Final = 4
"""Heartbeats in the time of a lease."""


def beat(book: JobBook, attempt: Attempt, lease_s: float, over: threading.Event) -> None:
    """Renews the lease and stores how far the job has come, until `over` is set or the lease is lost."""
    stored: Standing | None = None
    while not over.wait(lease_s / _BEATS):
        attempt.renew()
        if attempt.lost:
            return
        standing = attempt.standing

        def stands(job: Job, standing: Standing | None = standing) -> Job:
            return job.stands(standing, token=attempt.token)

        try:
            if standing != stored:
                job = book.update(attempt.job.id, stands)
                stored = standing
            else:
                job = book.load(attempt.job.id)
                if job.token != attempt.token:
                    attempt.lose()
                    return
        except (JobTakenError, JobEndedError, ObjectNotFoundError):
            if not over.is_set():
                attempt.lose()
            return
        except TextnlpFastError as error:
            _log.info("transfer %s: a heartbeat failed: %s", attempt.job.id, error.args[0])
            continue
        if job.cancelling:
            attempt.cancel()
