"""Workers that take jobs, one scanner that sees what others did, and heartbeats: all that runs in one process.

Everything is a thread: the work itself releases the GIL where it takes long. What was stored of a job is the truth; a
worker that cannot store what became of one lets its lease run out, and the next taker finds the state that is true.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from textnlp_fast.errors import (
    ConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageUnavailableError,
    TextnlpFastError,
    TransferCancelledError,
)
from textnlp_fast.objectstore.lease import Lease, acquire
from textnlp_fast.service.jobs.attempt import Attempt, WorkStoppedError
from textnlp_fast.service.jobs.book import JobBook, Listing, lease_key
from textnlp_fast.service.jobs.candidates import Candidates
from textnlp_fast.service.jobs.heartbeat import beat
from textnlp_fast.service.jobs.pruning import Pruner
from textnlp_fast.service.jobs.records import Job, JobEndedError, JobTakenError, Problem, Standing, State
from textnlp_fast.service.jobs.work import Work

__all__ = ["JobRunner", "TooManyJobsError"]

_log = logging.getLogger("textnlp_fast.service.jobs")
_TOLD_S: Final = 0.5
"""Progress of a job is told no more often."""


class TooManyJobsError(TextnlpFastError):
    """So many jobs wait that another one would wait for very long."""

    default_hint = "Ask again when some of them have ended, or cancel some."


class _BusyError(ConflictError):
    """Somebody holds the lease."""


class JobRunner:
    """Takes jobs from the book and carries them out, `workers` at a time, until it is stopped. Thread-safe.

    `told` is called on the runner's threads with each job that has changed, here or elsewhere, and with progress.
    Jobs that others wait for are looked for every `poll_s`, ten times more rarely while there are none and nobody
    `watches`; a dead worker's job is taken over between one and two `lease_s` later.
    """

    def __init__(
        self,
        book: JobBook,
        work: Work,
        *,
        told: Callable[[Job], None] = lambda job: None,
        watched: Callable[[], bool] = lambda: False,
        workers: int = 2,
        lease_s: float = 15.0,
        poll_s: float = 1.0,
        most_waiting: int = 1000,
        pruner: Pruner | None = None,
    ) -> None:
        self.book = book
        self.work = work
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._told = told
        self._watched = watched
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._most_waiting = most_waiting
        self._pruner = pruner or Pruner(book, holder=self.holder)
        self._changed = threading.Condition()
        self._listing = Listing({}, {})
        self._candidates = Candidates(lease_s)
        self._attempts: dict[str, Attempt] = {}
        self._busy: set[str] = set()
        self._last_told: dict[str, float] = {}
        self._noted: dict[str, tuple[float, Job]] = {}
        self._stopping = False
        self._scan_now = threading.Event()
        self.known = threading.Event()
        """Set once the jobs that are there have been listed."""
        self._threads = [threading.Thread(target=self._scan, name="textnlp-fast-jobs", daemon=True)]
        self._threads += [
            threading.Thread(target=self._take, name=f"textnlp-fast-job-{number}", daemon=True)
            for number in range(workers)
        ]

    # --- from outside -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to look for jobs."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stops all work at its next step and gives the jobs back; waits for that for so long at most."""
        with self._changed:
            self._stopping = True
            for attempt in self._attempts.values():
                attempt.end()
            self._changed.notify_all()
        self._scan_now.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def submit(self, job: Job) -> tuple[Job, bool]:
        """Writes a job down, to be carried out by whoever is first; says whether it is new. Raises TooManyJobsError."""
        with self._changed:
            waiting = sum(1 for one in self._listing.jobs.values() if not one.state.ended)
        if waiting >= self._most_waiting:
            raise TooManyJobsError(f"{waiting} transfers wait or run already")
        job, is_new = self.book.create(job)
        if is_new:
            self._take_note(job)
        return job, is_new

    def cancel(self, job_id: str) -> Job:
        """Tells a job to stop; what it is like then. No error where it has ended. Raises ObjectNotFoundError."""
        job = self.book.update(job_id, lambda one: one.told_to_stop(now_s=time.time()))
        with self._changed:
            attempt = self._attempts.get(job_id)
            if attempt is not None and job.cancelling:
                attempt.cancel()
        self._take_note(job)
        return job

    def jobs(self) -> list[Job]:
        """All jobs as they were seen last, the newest first, with the standing of those that run here."""
        with self._changed:
            found = [self._with_standing(job) for job in self._listing.jobs.values()]
        return sorted(found, key=lambda job: (job.created_s, job.id), reverse=True)

    def counts(self) -> tuple[int, int]:
        """How many jobs run here, and how many wait or run anywhere."""
        with self._changed:
            alive = sum(1 for job in self._listing.jobs.values() if not job.state.ended)
            return len(self._attempts), alive

    def job(self, job_id: str) -> Job:
        """A job as it is stored, with its standing where it runs here. Raises ObjectNotFoundError."""
        job = self.book.load(job_id)
        with self._changed:
            return self._with_standing(job)

    def _with_standing(self, job: Job) -> Job:
        attempt = self._attempts.get(job.id)
        if attempt is None or attempt.token != job.token or attempt.standing is None:
            return job
        return job if job.state.ended else replace(job, standing=attempt.standing)

    # --- the scanner --------------------------------------------------------------------------------------------

    def _scan(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            try:
                listing = self.book.scan()
                self._see(listing, began)
                self._pruner.prune(listing)
            except TextnlpFastError as error:
                _log.warning("transfers cannot be listed: %s", error.args[0])
            except Exception:  # noqa: BLE001 - the thread must outlive what nobody thought of
                _log.exception("transfers cannot be listed")
            took_s = time.monotonic() - began
            with self._changed:
                alive = any(not job.state.ended for job in self._listing.jobs.values())
            pause_s = self._poll_s if alive or self._watched() else 10 * self._poll_s
            # A store that takes long to answer is not asked all the time.
            self._scan_now.wait(max(pause_s, 5 * took_s))
            self._scan_now.clear()

    def _see(self, listing: Listing, began: float) -> None:
        with self._changed:
            # What was stored here since the scan began, it may not have seen.
            self._noted = {key: noted for key, noted in self._noted.items() if noted[0] >= began}
            newer = {key: job for key, (_, job) in self._noted.items()}
            listing = Listing({**listing.jobs, **newer}, listing.leases)
            before, self._listing = self._listing.jobs, listing
            self._candidates.see(listing, time.monotonic())
            self._changed.notify_all()
            mine = set(self._attempts)
        self.known.set()
        for job_id, job in listing.jobs.items():
            # What happens here is told where it happens.
            if before.get(job_id) != job and job_id not in mine:
                self._told(job)

    def _take_note(self, job: Job) -> None:
        """Something was stored here: no need to wait for the scanner."""
        with self._changed:
            self._noted[job.id] = (time.monotonic(), job)
            self._listing = Listing({**self._listing.jobs, job.id: job}, self._listing.leases)
            self._changed.notify_all()
        self._told(job)

    # --- workers ------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        while True:
            with self._changed:
                found = self._next()
                while found is None and not self._stopping:
                    self._changed.wait(self._poll_s)
                    found = self._next()
                if self._stopping or found is None:
                    return
                job, watch = found
                self._busy.add(job.id)
            try:
                self._try(job.id, watch=watch)
            except TextnlpFastError as error:
                _log.warning("transfer %s is let go: %s", job.id, error.args[0])
                self._pause()
            except Exception:  # noqa: BLE001 - as above
                _log.exception("transfer %s is let go", job.id)
                self._pause()
            finally:
                with self._changed:
                    self._busy.discard(job.id)

    def _next(self) -> tuple[Job, bool] | None:
        return self._candidates.next(
            self._listing,
            self._busy,
            now_s=time.time(),
            clock_s=time.monotonic(),
            may_do=self.work.may_do,
        )

    def _try(self, job_id: str, *, watch: bool) -> None:
        try:
            lease = acquire(
                self.book.store,
                lease_key(job_id),
                holder=self.holder,
                seconds=self._lease_s,
                sleep=self._sleep_while_running if watch else _not_at_all,
            )
        except ConflictError:
            with self._changed:
                self._candidates.is_held(job_id)
            self._scan_now.set()
            return
        try:
            job = self._begin(job_id, lease)
        except (JobEndedError, ObjectNotFoundError):
            lease.release()
            self._scan_now.set()
            return
        if job.state is not State.RUNNING:
            self.work.tidy(job)
            lease.release()
            self._take_note(job)
            return
        self._run(job, lease)

    def _begin(self, job_id: str, lease: Lease) -> Job:
        """Writes down who has it, or that it had come to its end before."""
        now_s = time.time()
        found = self.book.load(job_id)
        published = None if found.state.ended else self.work.published_by(found)

        def taken(job: Job) -> Job:
            if published is None:
                return job.taken(token=lease.token, holder=self.holder, now_s=now_s)
            again = replace(job, cancelling=False).taken(token=lease.token, holder=self.holder, now_s=now_s)
            if again.state is not State.RUNNING:  # too often: it had come off all the same
                again = replace(again, state=State.RUNNING, ended_s=None, problem=None)
            return again.done(published, token=again.token, now_s=now_s)

        return self.book.update(job_id, taken)

    def _run(self, job: Job, lease: Lease) -> None:
        attempt = Attempt(job, lease, self._stands)
        with self._changed:
            self._attempts[job.id] = attempt
            if self._stopping:
                attempt.end()
        self._take_note(job)
        over = threading.Event()
        beats = threading.Thread(target=beat, args=(self.book, attempt, self._lease_s, over), daemon=True)
        beats.start()
        try:
            ending = self._carried_out(job, attempt)
            self._end(job.id, attempt, ending)
        finally:
            over.set()
            beats.join()
            with suppress(StorageUnavailableError):
                attempt.release()
            with self._changed:
                self._attempts.pop(job.id, None)
                self._last_told.pop(job.id, None)
            self._scan_now.set()

    def _carried_out(self, job: Job, attempt: Attempt) -> Callable[[Job], Job] | None:
        """How the record is to change; None: it is not ours any more."""
        token = attempt.token
        try:
            attempt.phase("begin")
            result = self.work.carry_out(job, attempt)
        except WorkStoppedError:
            return None if attempt.lost else lambda one: one.interrupted(token=token)
        except TransferCancelledError:
            return lambda one: one.cancelled(token=token, now_s=time.time())
        except (StorageUnavailableError, ConflictError) as error:
            if attempt.lost:
                return None
            if attempt.ending:
                return lambda one: one.interrupted(token=token)
            problem = Problem.of(error, hide=self.book.store.url, typed=self.work.typed(job))
            if isinstance(error, ObjectExistsError):
                return lambda one: one.failed(problem, token=token, now_s=time.time())
            _log.warning("transfer %s is put off: %s", job.id, error.args[0])
            return lambda one: one.put_off(problem, token=token, now_s=time.time())
        except Exception as error:  # noqa: BLE001 - it is the job that failed
            if not isinstance(error, TextnlpFastError):
                _log.exception("transfer %s failed", job.id)
            problem = Problem.of(error, hide=self.book.store.url, typed=self.work.typed(job))
            return lambda one: one.failed(problem, token=token, now_s=time.time())
        return lambda one: one.done(result, token=token, now_s=time.time())

    def _end(self, job_id: str, attempt: Attempt, ending: Callable[[Job], Job] | None) -> None:
        """Stores what became of it. Whatever stands in the way, who takes the job up next finds the truth."""
        if ending is None:
            return
        while True:
            try:
                job = self.book.update(job_id, ending)
            except (JobTakenError, JobEndedError, ObjectNotFoundError):
                attempt.lose()
                return
            except (StorageUnavailableError, ConflictError) as error:
                if attempt.lost or attempt.ending:
                    return
                _log.warning("what became of transfer %s cannot be stored yet: %s", job_id, error.args[0])
                self._pause()
            else:
                with self._changed:
                    self._attempts.pop(job_id, None)
                self._take_note(job)
                return

    # --- what is told ------------------------------------------------------------------------------------------

    def _stands(self, job: Job, standing: Standing) -> None:
        now = time.monotonic()
        with self._changed:
            last = self._last_told.get(job.id, 0.0)
            if now - last < _TOLD_S and standing.done_bytes < standing.total_bytes:
                return
            self._last_told[job.id] = now
            current = self._listing.jobs.get(job.id, job)
        self._told(replace(job, standing=standing, cancelling=current.cancelling))

    def _sleep_while_running(self, seconds: float) -> None:
        """A pause of a watch, which ends with the service."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)
            if self._stopping:
                raise _BusyError("the service ends")

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, self._poll_s)


def _not_at_all(_seconds: float) -> None:
    """Instead of waiting for a lease that somebody holds."""
    raise _BusyError("somebody has it")
