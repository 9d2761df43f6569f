"""A job as it is written down, and how it changes. Pure: values in, values out; no store, no clock.

`docs/format.md` ("Jobs") states the document. Every change is written by compare-and-swap, so one that was decided on
an older state is never stored; and whoever carries a job out names its token, which grows with every taker, so that one
who was taken over from cannot say what became of it.
"""

from __future__ import annotations

import datetime
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from textnlp_fast.contents.documents import Broken, canonical, parse_document, seal_document, take, take_size
from textnlp_fast.errors import ConflictError, CorruptDataError, TextnlpFastError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.service.redaction import with_places_as

__all__ = [
    "KINDS",
    "MAX_FAILURES",
    "MAX_RECORD_BYTES",
    "Job",
    "JobEndedError",
    "JobTakenError",
    "Problem",
    "Standing",
    "State",
    "is_job_id",
    "job_document",
    "new_id",
    "parse_job",
    "repeatable_id",
    "time_text",
]

KINDS: Final = ("push", "pull", "verify", "delta", "dry_run", "collect")
MAX_FAILURES: Final = 5
"""Times that a job is taken up again after its service died or its store went away."""
MAX_RECORD_BYTES: Final = 1 << 20
_MAX_RESULT_BYTES: Final = 256 << 10
_MAX_TEXT: Final = 4000
_ID: Final = re.compile(r"[0-9a-f]{24}", re.ASCII)


class State(str, Enum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """Whoever ran it stopped; it will be taken up again."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def __str__(self) -> str:
        return self.value

    @property
    def ended(self) -> bool:
        """Whether it stays so."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)


class JobTakenError(ConflictError):
    """Another worker has the job now: this one's word on it is not wanted any more."""


class JobEndedError(ConflictError):
    """The job has ended, and does not change any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a job has come, in bytes of the phase."""

    phase: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a job failed: the error's class, what it said, and what to do."""

    code: str
    detail: str
    hint: str = ""

    @classmethod
    def of(cls, error: BaseException, *, hide: str = "", typed: Mapping[str, str] | None = None) -> Problem:
        """An error in words, bounded. Of one that is none of this package's own, its class alone is told.

        `hide` is where the repository is, which those who read of jobs need not know, `typed` what the request calls
        places (by where they lead), which is what it is told of.
        """
        code = type(error).__name__.removesuffix("Error") or "Internal"
        if not isinstance(error, TextnlpFastError):
            return cls(
                code="Internal", detail=f"an unexpected {code}", hint="The service's log has the details."
            )
        names = {place: "the repository" for place in (hide, hide.removeprefix("file://")) if place}
        texts = [
            with_places_as(text, {**(typed or {}), **names})
            for text in (str(error.args[0]) if error.args else code, error.hint)
        ]
        return cls(code=code, detail=texts[0][:_MAX_TEXT], hint=texts[1][:_MAX_TEXT])


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One transfer. Times are seconds since 1970."""

    id: str
    kind: str
    request: Mapping[str, Any]
    """What is to be done, with versions resolved when it was asked for."""
    asked: str
    """The digest of what was asked for, word by word: the same key with another one is a mistake."""
    by: str
    model: str | None
    version: str | None
    created_s: float
    state: State = State.QUEUED
    started_s: float | None = None
    """When it was first begun."""
    ended_s: float | None = None
    token: int = 0
    holder: str = ""
    attempts: int = 0
    failures: int = 0
    not_before_s: float = 0.0
    cancelling: bool = False
    standing: Standing | None = None
    result: Mapping[str, Any] | None = None
    problem: Problem | None = None

    # --- what takers do -----------------------------------------------------------------------------------------

    def taken(self, *, token: int, holder: str, now_s: float) -> Job:
        """Somebody begins with it, or goes on where another stopped.

        Becomes `failed` where too many before did not live to end it, `cancelled` where it was to be. The token of who
        took it is at least `token`, and greater than any before.
        """
        self._must_be_open()
        died = self.state is State.RUNNING
        failures = self.failures + died
        if self.cancelling:
            return self._ended(State.CANCELLED, now_s, failures=failures)
        if failures > MAX_FAILURES:
            problem = Problem(
                code="WorkerLost",
                detail=f"it was begun {self.attempts} times, and never was whoever did it there at its end",
                hint="Look at the service's log and memory before you ask for it again.",
            )
            return self._ended(State.FAILED, now_s, failures=failures, problem=problem)
        return replace(
            self,
            state=State.RUNNING,
            token=max(token, self.token + 1),
            holder=holder[:200],
            attempts=self.attempts + 1,
            failures=failures,
            not_before_s=0.0,
            started_s=now_s if self.started_s is None else self.started_s,
            standing=None,
        )

    def stands(self, standing: Standing | None, *, token: int) -> Job:
        """How far its worker has come."""
        self._must_be_of(token)
        return replace(self, standing=standing)

    def done(self, result: Mapping[str, Any], *, token: int, now_s: float) -> Job:
        """It came off."""
        self._must_be_of(token)
        if len(canonical(result)) > _MAX_RESULT_BYTES:
            result = {"truncated": True}
        return self._ended(State.DONE, now_s, result=result)

    def failed(self, problem: Problem, *, token: int, now_s: float) -> Job:
        """It cannot be done, now or later."""
        self._must_be_of(token)
        return self._ended(State.FAILED, now_s, problem=problem)

    def cancelled(self, *, token: int, now_s: float) -> Job:
        """Its worker stopped, as it was told to."""
        self._must_be_of(token)
        return self._ended(State.CANCELLED, now_s)

    def interrupted(self, *, token: int) -> Job:
        """Its worker has to stop, through no fault of the job's."""
        self._must_be_of(token)
        return replace(self, state=State.INTERRUPTED, holder="")

    def put_off(self, problem: Problem, *, token: int, now_s: float) -> Job:
        """It did not come off and may later; after too many times of that it has failed."""
        self._must_be_of(token)
        failures = self.failures + 1
        if failures > MAX_FAILURES:
            return self._ended(State.FAILED, now_s, failures=failures, problem=problem)
        pause_s = min(300.0, 2.0**failures)
        return replace(
            self,
            state=State.INTERRUPTED,
            holder="",
            failures=failures,
            not_before_s=now_s + pause_s,
            problem=problem,
        )

    # --- what others do -----------------------------------------------------------------------------------------

    def told_to_stop(self, *, now_s: float) -> Job:
        """It is not wanted any more: at its end at once where nobody has begun it. No change where it has ended."""
        if self.state.ended or self.cancelling:
            return self
        if self.state is State.QUEUED and not self.attempts:
            return replace(self._ended(State.CANCELLED, now_s), cancelling=True)
        return replace(self, cancelling=True, not_before_s=0.0)

    # --- parts --------------------------------------------------------------------------------------------------

    def _must_be_open(self) -> None:
        if self.state.ended:
            raise JobEndedError(f"transfer {self.id} has ended: {self.state}")

    def _must_be_of(self, token: int) -> None:
        self._must_be_open()
        if self.state is not State.RUNNING or self.token != token:
            raise JobTakenError(f"transfer {self.id} is in other hands: {self.holder or 'nobody has it'}")

    def _ended(
        self,
        state: State,
        now_s: float,
        *,
        failures: int | None = None,
        result: Mapping[str, Any] | None = None,
        problem: Problem | None = None,
    ) -> Job:
        return replace(
            self,
            state=state,
            holder="",
            ended_s=max(now_s, self.created_s),
            failures=self.failures if failures is None else failures,
            result=result,
            problem=problem,
        )


# --- names ------------------------------------------------------------------------------------------------------


def is_job_id(text: str) -> bool:
    """Whether it can name a job."""
    return _ID.fullmatch(text) is not None


def new_id() -> str:
    return secrets.token_hex(12)


def repeatable_id(subject: str, key: str) -> str:
    """The id that a subject's idempotency key always gives: of two who ask at once, one creates the job."""
    return blake3_hex(canonical(["transfer", subject, key]))[:24]


# --- as documents -----------------------------------------------------------------------------------------------


def time_text(seconds: float) -> str:
    """RFC 3339, UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_document(job: Job) -> bytes:
    """The record as it is stored, with a write id: two writers never write the same bytes."""
    standing, problem = job.standing, job.problem
    return seal_document(
        {
            "format": 1,
            "write_id": secrets.token_hex(16),
            "id": job.id,
            "kind": job.kind,
            "request": json.dumps(job.request, sort_keys=True),
            "asked": job.asked,
            "by": job.by,
            "model": job.model,
            "version": job.version,
            "created_ms": _milliseconds(job.created_s),
            "started_ms": _milliseconds(job.started_s),
            "ended_ms": _milliseconds(job.ended_s),
            "not_before_ms": _milliseconds(job.not_before_s),
            "state": str(job.state),
            "token": job.token,
            "holder": job.holder,
            "attempts": job.attempts,
            "failures": job.failures,
            "cancelling": job.cancelling,
            "standing": None
            if standing is None
            else [standing.phase, standing.done_bytes, standing.total_bytes, standing.bytes_per_s],
            "result": None if job.result is None else json.dumps(job.result, sort_keys=True),
            "problem": None if problem is None else [problem.code, problem.detail, problem.hint],
        }
    )


def parse_job(data: bytes, what: str) -> Job:
    """Reads a stored record. Raises CorruptDataError, UnsupportedFormatError for one of a newer version."""
    document = parse_document(data, what)
    try:
        kind = take(document, "kind", str, "it")
        job_id = take(document, "id", str, "it")
        if kind not in KINDS or not is_job_id(job_id):
            raise Broken(f"its kind is {kind!r:.40}, its id {job_id!r:.40}")
        return Job(
            id=job_id,
            kind=kind,
            request=_object(take(document, "request", str, "it")),
            asked=take(document, "asked", str, "it"),
            by=take(document, "by", str, "it"),
            model=_optional(document, "model"),
            version=_optional(document, "version"),
            created_s=take_size(document, "created_ms", "it") / 1000,
            started_s=_seconds(document, "started_ms"),
            ended_s=_seconds(document, "ended_ms"),
            not_before_s=take_size(document, "not_before_ms", "it") / 1000,
            state=State(take(document, "state", str, "it")),
            token=take_size(document, "token", "it"),
            holder=take(document, "holder", str, "it"),
            attempts=take_size(document, "attempts", "it"),
            failures=take_size(document, "failures", "it"),
            cancelling=take(document, "cancelling", bool, "it"),
            standing=_standing(document["standing"]),
            result=None if document["result"] is None else _object(take(document, "result", str, "it")),
            problem=_problem(document["problem"]),
        )
    except (Broken, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CorruptDataError(
            f"{what} is no record of a transfer: {error}"[:500],
            hint="Restore it from a backup, or delete it: a push or pull can be asked for again.",
        ) from None


def _object(text: str) -> Mapping[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise Broken("a request or result is no object")
    return found


def _standing(value: Any) -> Standing | None:
    if value is None:
        return None
    phase, done, total, rate = value
    numbers = [done, total, 0 if rate is None else rate]
    if not isinstance(phase, str) or any(type(one) is not int or one < 0 for one in numbers):
        raise Broken("its standing is none")
    return Standing(phase=phase, done_bytes=done, total_bytes=total, bytes_per_s=rate)


def _problem(value: Any) -> Problem | None:
    if value is None:
        return None
    code, detail, hint = value
    if not all(isinstance(one, str) for one in value):
        raise Broken("its problem is no text")
    return Problem(code=code, detail=detail, hint=hint)


def _optional(document: Mapping[str, Any], key: str) -> str | None:
    value = document[key]
    if value is not None and not isinstance(value, str):
        raise Broken(f"{key} is no text")
    return value


def _seconds(document: Mapping[str, Any], key: str) -> float | None:
    return None if document[key] is None else take_size(document, key, "it") / 1000


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, round(seconds * 1000))
