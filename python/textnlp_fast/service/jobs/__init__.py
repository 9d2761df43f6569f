"""Transfers that the service carries out itself: jobs as objects in the repository, each run under a lease.

No broker and no database: `docs/decisions/0040-jobs-as-objects-with-leases.md` says why.
"""

from __future__ import annotations

from textnlp_fast.service.jobs.book import JobBook
from textnlp_fast.service.jobs.places import Roots
from textnlp_fast.service.jobs.records import Job, Standing, State
from textnlp_fast.service.jobs.running import JobRunner, TooManyJobsError
from textnlp_fast.service.jobs.work import Work

__all__ = ["Job", "JobBook", "JobRunner", "Roots", "Standing", "State", "TooManyJobsError", "Work"]
