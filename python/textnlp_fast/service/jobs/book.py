"""Where jobs are: one object each below `jobs/` in the repository's store, changed by compare-and-swap."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import (
    ConflictError,
    CorruptDataError,
    MissingObjectError,
    ObjectExistsError,
    ObjectNotFoundError,
    UnsupportedFormatError,
)
from textnlp_fast.objectstore import ObjectStore, Version
from textnlp_fast.service.jobs.records import MAX_RECORD_BYTES, Job, is_job_id, job_document, parse_job

__all__ = ["JobBook", "Listing", "lease_key"]

_log = logging.getLogger("textnlp_fast.service.jobs")
_TRIES: Final = 50
_RECORD: Final = re.compile(r"jobs/([0-9a-f]{24})\.json", re.ASCII)
_LEASE: Final = re.compile(r"jobs/([0-9a-f]{24})\.lease", re.ASCII)


def record_key(job_id: str) -> str:
    return f"jobs/{job_id}.json"


def lease_key(job_id: str) -> str:
    """Where who carries a job out holds its lease."""
    return f"jobs/{job_id}.lease"


@dataclass(frozen=True, slots=True)
class Listing:
    """All jobs at one moment, and the mark of each lease that there is: it changes when the lease is written."""

    jobs: Mapping[str, Job]
    leases: Mapping[str, str]


class JobBook:
    """Thread-safe, and safe with other processes. Records that have not changed are not read again."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._known: dict[str, tuple[tuple[str, int], Job | None]] = {}
        self._lock = threading.Lock()

    def create(self, job: Job) -> tuple[Job, bool]:
        """Writes a new job; where its id is taken, the job that has it. Says whether it is the new one."""
        try:
            self.store.create(record_key(job.id), job_document(job))
        except ObjectExistsError as error:
            return parse_job(error.existing, self._what(job.id)), False
        return job, True

    def load(self, job_id: str) -> Job:
        """Raises ObjectNotFoundError where there is none, CorruptDataError."""
        return self._load(job_id)[0]

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Changes a job; `change` is asked again where another writer was first. Returns what is stored."""
        for _ in range(_TRIES):
            job, version = self._load(job_id)
            changed = change(job)
            if changed == job:
                return job
            try:
                self.store.compare_and_swap(record_key(job_id), job_document(changed), version)
            except ObjectExistsError:
                raise
            except ConflictError:
                continue
            return changed
        raise ConflictError(f"transfer {job_id} changes faster than it can be written")

    def scan(self) -> Listing:
        """What is there now. A record that cannot be read is left out, and told of in the log once."""
        jobs: dict[str, Job] = {}
        leases: dict[str, str] = {}
        seen: dict[str, tuple[tuple[str, int], Job | None]] = {}
        for meta in self.store.list("jobs"):
            lease = _LEASE.fullmatch(meta.key)
            if lease is not None:
                leases[lease[1]] = meta.etag
                continue
            match = _RECORD.fullmatch(meta.key)
            if match is None:
                continue
            mark = (meta.etag, meta.size)
            known = self._known.get(match[1])
            job = known[1] if known is not None and known[0] == mark else self._read(match[1])
            seen[match[1]] = (mark, job)
            if job is not None:
                jobs[match[1]] = job
        with self._lock:
            self._known = seen
        return Listing(jobs, leases)

    def remove(self, job: Job) -> None:
        """Forgets a job that has ended. For one process at a time: see `pruning`."""
        try:
            now = self.load(job.id)
        except MissingObjectError:
            return
        if now.state.ended and now.ended_s == job.ended_s:
            self.store.delete(record_key(job.id))
            self.store.delete(lease_key(job.id))

    def _read(self, job_id: str) -> Job | None:
        try:
            return self.load(job_id)
        except ObjectNotFoundError:
            return None  # it was removed since
        except (CorruptDataError, UnsupportedFormatError) as error:
            _log.warning("a transfer is left alone: %s", error.args[0])
            return None

    def _load(self, job_id: str) -> tuple[Job, Version]:
        if not is_job_id(job_id):
            raise ObjectNotFoundError(f"there is no transfer {job_id!r:.60}")
        try:
            data, version = self.store.get_versioned(record_key(job_id), limit_bytes=MAX_RECORD_BYTES)
        except MissingObjectError:
            raise ObjectNotFoundError(
                f"there is no transfer {job_id}", hint="It never was, or ended long ago and was forgotten."
            ) from None
        job = parse_job(data, self._what(job_id))
        if job.id != job_id:
            raise CorruptDataError(f"{self._what(job_id)} is that of {job.id}")
        return job, version

    def _what(self, job_id: str) -> str:
        return f"{record_key(job_id)} in {self.store.url}"
