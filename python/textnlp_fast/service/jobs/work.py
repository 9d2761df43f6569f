"""What each kind of job does: the calls of the repository, with the job's own limits around them.

Everything here may run again after it was killed anywhere, and ends as if it had run once. A push carries the job's id
in its metadata, so that whoever takes it up again sees that it was published; a pull goes on with what its staging
folder has; a patch is renamed into place; the others write nothing, or what a repetition does not change.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from textnlp_fast.delta import create_patch
from textnlp_fast.errors import InvalidInputError, MissingObjectError, TextnlpFastError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.service.jobs.attempt import Attempt
from textnlp_fast.service.jobs.places import Roots
from textnlp_fast.service.jobs.records import Job
from textnlp_fast.storage import (
    CollectionOptions,
    Forecast,
    GarbageReport,
    PushReport,
    Repository,
    RetentionRules,
    VerifyReport,
    VersionManager,
)
from textnlp_fast.storage.audit.actor import acting_as
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.names import split_build
from textnlp_fast.storage.version_manager import parse_reference

__all__ = ["JOB_KEY", "Work"]

JOB_KEY: Final = "transfer"
"""In a version's metadata: the job that published it."""
_MOST_LISTED: Final = 100

Result = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """Where jobs are done. Thread-safe; every job opens the repository anew, behind its own guard."""

    store: ObjectStore
    roots: Roots
    options: TransferOptions

    def prepared(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], str | None, str | None]:
        """What a request comes to, and its model and version: checked, its places resolved, its version named.

        Raises what is wrong with it. Reads the repository where a version is meant by an alias, a stage or not at all.
        """
        found = dict(request)
        repository = Repository(self.store, self.options)
        kind = request["kind"]
        if kind in ("push", "dry_run"):
            self.roots.source(request["path"])
            if request.get("base_path"):
                self.roots.source(request["base_path"])
            if JOB_KEY in request.get("metadata", {}):
                raise InvalidInputError(f"metadata may not have {JOB_KEY!r}: it names the transfer")
            reference = parse_reference(f"{request['model']}@{request['version']}")
            if not reference.is_exact:
                raise InvalidInputError(
                    f"{request['version']!r} is no version", hint="Versions are like 1.0.0."
                )
        elif kind == "pull":
            self.roots.folder_to_make(request["path"])
            found["version"] = repository.manifest(request["model"], request["version"]).version
        elif kind == "delta":
            self.roots.file_to_make(request["path"])
            for key in ("from_version", "to_version"):
                found[key] = repository.manifest(request["model"], request[key]).version
        elif kind == "verify":
            if request.get("version") is not None and request.get("model") is None:
                raise InvalidInputError("a version is given and no model", hint="Name the model, too.")
            if request.get("model") is not None:
                repository.versions(request["model"])
        version = found.get("version") or found.get("to_version")
        return found, found.get("model"), version

    def carry_out(self, job: Job, attempt: Attempt) -> Result:
        """Does it. Raises what the repository raises, WorkStoppedError, TransferCancelledError."""
        store = self.store.guarded(attempt.check_writing)
        repository = Repository(store, self.options)
        kinds: Mapping[str, Callable[[Repository, Job, Attempt], Result]] = {
            "push": self._push,
            "pull": self._pull,
            "verify": self._verify,
            "delta": self._delta,
            "dry_run": self._dry_run,
            "collect": self._collect,
        }
        with acting_as(job.by):
            return kinds[job.kind](repository, job, attempt)

    def may_do(self, job: Job) -> bool:
        """Whether the job's places are among those that this service may touch; other replicas may touch others."""
        return all(self.roots.allows(path) for path in _paths(job))

    def typed(self, job: Job) -> dict[str, str]:
        """What a job's request calls its places, by where they lead: for those that it calls otherwise."""
        return self.roots.typed(_paths(job))

    def published_by(self, job: Job) -> Result | None:
        """What an earlier try of a push published; None: nothing."""
        if job.kind != "push" or not job.attempts:
            return None
        version, _ = split_build(job.request["version"])
        try:
            manifest = VersionManager(self.store).load_fresh(job.request["model"], version)
        except MissingObjectError:
            return None
        if manifest.metadata.get(JOB_KEY) != job.id:
            return None
        return {
            "model": manifest.model,
            "version": manifest.version,
            "files": len(manifest.files),
            "raw_bytes": manifest.raw_bytes,
            "stored_bytes": manifest.stored_bytes,
            "already_there": False,
        }

    def tidy(self, job: Job) -> None:
        """Removes what a job that was begun here, and will not be gone on with, left beside its patch."""
        if job.kind == "delta" and job.attempts:
            with suppress(TextnlpFastError):  # its place is no more one that we may touch
                shutil.rmtree(_scratch(self.roots.file_to_make(job.request["path"]), job), ignore_errors=True)

    # --- kinds --------------------------------------------------------------------------------------------------

    def _push(self, repository: Repository, job: Job, attempt: Attempt) -> Result:
        request = job.request
        report = repository.push(
            self.roots.source(request["path"]),
            request["model"],
            request["version"],
            parent=request["parent"],
            base_path=self._base(request),
            message=request["message"],
            metadata={**request["metadata"], JOB_KEY: job.id},
            progress=attempt.progress,
        )
        return _push_result(report)

    def _dry_run(self, repository: Repository, job: Job, attempt: Attempt) -> Result:
        request = job.request
        forecast = repository.plan_push(
            self.roots.source(request["path"]),
            request["model"],
            request["version"],
            parent=request["parent"],
            base_path=self._base(request),
            progress=attempt.progress,
        )
        return _forecast_result(forecast)

    def _base(self, request: Mapping[str, Any]) -> Path | None:
        return self.roots.source(request["base_path"]) if request["base_path"] else None

    def _pull(self, repository: Repository, job: Job, attempt: Attempt) -> Result:
        request = job.request
        destination = self.roots.folder_to_make(request["path"])
        report = repository.pull(request["model"], request["version"], destination, progress=attempt.progress)
        return asdict(report)

    def _verify(self, repository: Repository, job: Job, attempt: Attempt) -> Result:
        request = job.request
        report = repository.verify(
            request["model"], request["version"], deep=request["deep"], progress=attempt.progress
        )
        return _verify_result(report)

    def _delta(self, repository: Repository, job: Job, attempt: Attempt) -> Result:
        request = job.request
        out = self.roots.file_to_make(request["path"])
        scratch = _scratch(out, job)
        old, new = scratch / "old", scratch / "new"
        try:
            scratch.mkdir(exist_ok=True)
            if scratch.is_symlink():
                raise InvalidInputError(f"{scratch} is in the way: it is a link", hint="Remove it.")
            repository.pull(request["model"], request["from_version"], old, progress=attempt.progress)
            repository.pull(
                request["model"], request["to_version"], new, have=[old], progress=attempt.progress
            )
            report = create_patch(
                old,
                new,
                out,
                source_version=request["from_version"],
                target_version=request["to_version"],
                memory_budget_bytes=self.options.memory_budget_bytes,
                threads=self.options.threads,
                progress=attempt.progress,
            )
        finally:
            if not (attempt.lost or attempt.ending):  # else somebody goes on with it
                shutil.rmtree(scratch, ignore_errors=True)
        return asdict(report)

    def _collect(self, repository: Repository, job: Job, attempt: Attempt) -> Result:
        request = job.request
        rules = RetentionRules(
            keep_last=request["keep_last"],
            keep_stages=frozenset(request["keep_stages"]),
            older_than_s=request["older_than_s"],
        )
        report = repository.collect_garbage(
            CollectionOptions(
                policy=() if rules.keep_all else ((request["models"], rules),),
                versions=tuple(_exact(one) for one in request["versions"]),
                delete=request["delete"],
                rebase=request["rebase"],
                grace_s=request["grace_s"],
            ),
            progress=attempt.progress,
        )
        return _collect_result(report)


def _paths(job: Job) -> list[str]:
    return [path for path in (job.request.get(key) for key in ("path", "base_path")) if path]


def _scratch(out: Path, job: Job) -> Path:
    """Named by the job: whoever goes on with it finds what is there already."""
    return out.parent / f".textnlp-fast-transfer-{job.id}"


def _exact(text: str) -> tuple[str, str]:
    reference = parse_reference(text)
    if reference.version is None or not reference.is_exact:
        raise InvalidInputError(f"{text!r} names no version", hint="Write MODEL@VERSION.")
    return reference.name, reference.version


# --- reports, bounded -------------------------------------------------------------------------------------------


def _push_result(report: PushReport) -> Result:
    found = asdict(report)
    found["features"] = found["features"][:_MOST_LISTED]
    found["passed_over"] = found["passed_over"][:_MOST_LISTED]
    return found


def _forecast_result(forecast: Forecast) -> Result:
    return {**asdict(forecast), "cheapest": forecast.cheapest}


def _verify_result(report: VerifyReport) -> Result:
    found = asdict(report)
    found.update(
        ok=report.ok,
        problems=found["problems"][:_MOST_LISTED],
        problem_count=len(report.problems),
        unreferenced=len(report.unreferenced),
    )
    return found


def _collect_result(report: GarbageReport) -> Result:
    going = report.going
    names = (
        "deleted", "unused_objects", "unused_bytes", "swept", "swept_bytes", "waiting", "waiting_bytes", "next_due_s",
        "pushes", "uploads", "uploads_bytes", "uploads_unknown", "rebased_bytes", "seconds",
    )  # fmt: skip
    return {
        **{name: getattr(report, name) for name in names},
        "going": going[:_MOST_LISTED],
        "going_count": len(going),
        "spared": dict(list(report.spared.items())[:_MOST_LISTED]),
        "rebased": len(report.rebased),
    }
