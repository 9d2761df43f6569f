"""A whole collection: decide which versions go, let them go, and sweep what nothing names any more."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    MissingPackageError,
    VersionNotFoundError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.objectstore.lease import Lease, acquire
from textnlp_fast.objectstore.transfers.orphans import abort_upload, find_uploads
from textnlp_fast.storage.audit import record
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.garbage.document import read_garbage
from textnlp_fast.storage.garbage.rebasing import Proposal
from textnlp_fast.storage.garbage.removing import remove_versions, settle_removals
from textnlp_fast.storage.garbage.retention import (
    RetentionRules,
    Verdict,
    check_policy,
    decide,
    with_dependents,
)
from textnlp_fast.storage.garbage.rewriting import carry_out, proposals
from textnlp_fast.storage.garbage.sweeping import Sweeper, Swept
from textnlp_fast.storage.garbage.usage import Usage, digest_of, stored_objects
from textnlp_fast.storage.registry.references import read_references
from textnlp_fast.storage.registry.rules import read_rules, under_rules
from textnlp_fast.storage.version_manager import VersionManager

__all__ = ["DEFAULT_GRACE_S", "DEFAULT_PUSH_GRACE_S", "CollectionOptions", "GarbageReport", "collect_garbage"]

DEFAULT_GRACE_S: Final = 24 * 3600.0
DEFAULT_PUSH_GRACE_S: Final = 3600.0
DEFAULT_UPLOAD_AGE_S: Final = 7 * 24 * 3600.0
LEASE_KEY: Final = "leases/gc.json"
_LEASE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionOptions:
    """What goes and how soon."""

    policy: Sequence[tuple[str, RetentionRules]] = ()
    """Rules by patterns of model names, the first that matches counts; a model without rules loses no version.

    Each pattern must match a model, and each stage that is kept must be one of the registry's rules."""
    versions: Sequence[tuple[str, str]] = ()
    """Versions that go, whatever the rules say of them."""
    delete: bool = False
    """False only tells what would go."""
    rebase: bool = False
    """Store versions anew where that costs less, by the prices of the repository's options, than keeping what only
    their bases and their neighbours in shards need."""
    grace_s: float = DEFAULT_GRACE_S
    """How long an object is unused before it is deleted. Pushes and pulls under way are spared work by it."""
    push_grace_s: float = DEFAULT_PUSH_GRACE_S
    """How long a push may take for its last step, the publication, before it is taken for dead."""
    upload_age_s: float = DEFAULT_UPLOAD_AGE_S
    """Uploads that were begun longer ago, and never finished, are aborted."""
    lease_s: float = _LEASE_S
    """How long another collector waits before it takes over from one that was killed."""

    def __post_init__(self) -> None:
        if min(self.grace_s, self.push_grace_s, self.upload_age_s) < 0 or self.lease_s <= 0:
            raise InvalidInputError("times of grace are not negative, and a lease lasts for some time")


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """What a collection found and did. Sizes in bytes.

    `verdicts` has every version with why it stays or goes; `spared` are those that were to go and stayed, with the
    reason. Unused objects are those that no version names once the versions that go are gone: `swept` of them were
    deleted, `waiting` will be when their grace is over, from `next_due_s` on (seconds since 1970). A run that deletes
    nothing tells all of them as unused. `uploads` were begun and never finished, with the bytes that the provider tells
    of them; `uploads_younger` are too young for that and may be under way; `uploads_unknown` says why nobody looked.
    `rebased` are versions that are worth storing anew, which took `rebased_bytes` if it was asked for.
    """

    deleted: bool
    verdicts: tuple[Verdict, ...]
    unused_objects: int
    unused_bytes: int
    swept: int = 0
    swept_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    next_due_s: float | None = None
    pushes: int = 0
    uploads: int = 0
    uploads_bytes: int = 0
    uploads_younger: int = 0
    uploads_unknown: str = ""
    rebased: tuple[Proposal, ...] = ()
    rebased_bytes: int = 0
    spared: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def going(self) -> list[str]:
        """The versions that go, as `NAME@VERSION`."""
        return [verdict.facts.name for verdict in self.verdicts if verdict.goes]


def collect_garbage(
    store: ObjectStore,
    versions: VersionManager,
    options: CollectionOptions,
    transfer: TransferOptions,
    progress: ProgressCallback | None = None,
    *,
    clock: Callable[[], float] = time.time,
) -> GarbageReport:
    """Tells what goes and, if asked to, lets it go. Safe beside pushes, pulls and other collections.

    Raises CorruptDataError or UnsupportedFormatError where a manifest cannot be read: nothing was deleted then, since
    nobody knows what it needs. Raises InvalidInputError or ModelNotFoundError for rules about stages or models that are
    not there. Raises ConflictError where another collection is at work.
    """
    started = time.monotonic()
    versions.info()
    known_stages = [stage.name for stage in read_rules(store).lifecycle.stages]
    check_policy(options.policy, versions.models(), known_stages)
    with _leased(store, options) as alive:
        sweeper = Sweeper(
            store,
            versions,
            grace_s=options.grace_s,
            push_grace_s=options.push_grace_s,
            clock=clock,
            progress=progress,
            alive=alive,
        )
        if options.delete:
            sweeper.finish(read_garbage(store).garbage)
            settle_removals(store, versions, versions.models())
        sizes = {digest_of(meta): meta.size for meta in stored_objects(store)}
        usage = sweeper.reader.scan()
        verdicts = _verdicts(store, usage, options, clock())
        unused = sizes.keys() - _used_after(usage, verdicts)
        report = GarbageReport(
            options.delete,
            verdicts,
            len(unused),
            sum(sizes[digest] for digest in unused),
            pushes=len(usage.intents),
        )
        if options.delete:
            spared = remove_versions(store, versions, verdicts, alive)
            report = replace(report, spared=spared)
        report = _with_uploads(store, options, report)
        report = _with_rebased(store, versions, options, transfer, report, usage, sizes, alive, progress)
        if options.delete:
            swept = sweeper.run()
            if swept.objects:
                record(store, action="gc.sweep", detail={"bytes": swept.bytes, "objects": swept.objects})
            report = _with_swept(report, swept)
    return replace(report, seconds=time.monotonic() - started)


def _with_swept(report: GarbageReport, swept: Swept) -> GarbageReport:
    return replace(
        report,
        swept=swept.objects,
        swept_bytes=swept.bytes,
        waiting=swept.waiting,
        waiting_bytes=swept.waiting_bytes,
        next_due_s=swept.next_due_s,
    )


def _with_rebased(
    store: ObjectStore,
    versions: VersionManager,
    options: CollectionOptions,
    transfer: TransferOptions,
    report: GarbageReport,
    usage: Usage,
    sizes: dict[str, int],
    alive: Callable[[], None],
    progress: ProgressCallback | None,
) -> GarbageReport:
    """The report with what is worth storing anew, which is done if it was asked for."""
    if options.delete and not options.rebase:
        return report  # to look takes reading every manifest once more
    staying = [
        verdict.facts
        for verdict in report.verdicts
        if not verdict.goes or verdict.facts.name in report.spared
    ]
    found = tuple(proposals(versions, usage, staying, sizes, transfer.prices))
    added = 0
    if options.delete and options.rebase:
        added = sum(carry_out(store, versions, transfer, one, alive, progress) for one in found)
    return replace(report, rebased=found, rebased_bytes=added)


def _with_uploads(store: ObjectStore, options: CollectionOptions, report: GarbageReport) -> GarbageReport:
    """The report with uploads that were abandoned, which are aborted if something is to be deleted."""
    if store.url.startswith("memory:"):
        return report  # nothing is left of one that ended
    try:
        newest = time.time() - options.upload_age_s
        everything = find_uploads(store, older_than_s=0)
        found = [upload for upload in everything if upload.begun_at <= newest]
        for upload in found if options.delete else ():
            abort_upload(upload, store)
    except (MissingPackageError, AuthenticationError) as error:  # a right that only this needs, or a client
        return replace(report, uploads_unknown=str(error.args[0]))
    return replace(
        report,
        uploads=len(found),
        uploads_bytes=sum(upload.size or 0 for upload in found),
        uploads_younger=len(everything) - len(found),
    )


# --- which ------------------------------------------------------------------------------------------------------


def _verdicts(
    store: ObjectStore, usage: Usage, options: CollectionOptions, now_s: float
) -> tuple[Verdict, ...]:
    rules = read_rules(store)
    kept: dict[tuple[str, str], list[str]] = {}
    stages: dict[tuple[str, str], str] = {}
    for model in sorted({facts.model for facts in usage.versions}):
        references = under_rules(read_references(store, model), rules)
        kept.update(((model, version), reasons) for version, reasons in references.kept_versions().items())
        stages.update(
            ((model, facts.version), references.stage_of(facts.version))
            for facts in usage.versions
            if facts.model == model
        )
    verdicts = decide(usage.versions, options.policy, kept=kept, stages=stages, now_s=now_s)
    chosen = set(options.versions)
    missing = chosen - {(verdict.facts.model, verdict.facts.version) for verdict in verdicts}
    if missing:
        raise VersionNotFoundError(f"there is no version {'@'.join(min(missing))}")
    for model, version in options.versions:
        if (model, version) in kept:
            raise InvalidInputError(
                f"{model}@{version} is in use: {', '.join(kept[model, version])}",
                hint="Take the alias, pin, stage or deployment away first.",
            )
    return tuple(
        with_dependents(
            [
                replace(verdict, goes=True, reasons=("asked for",))
                if (verdict.facts.model, verdict.facts.version) in chosen
                else verdict
                for verdict in verdicts
            ]
        )
        if chosen
        else verdicts
    )


def _used_after(usage: Usage, verdicts: Sequence[Verdict]) -> set[str]:
    staying = tuple(verdict.facts for verdict in verdicts if not verdict.goes)
    return Usage(staying, usage.intents).objects


# --- one at a time ----------------------------------------------------------------------------------------------


@contextmanager
def _leased(store: ObjectStore, options: CollectionOptions) -> Iterator[Callable[[], None]]:
    """Holds the lease of collections; the result is to be called now and then, so that it is renewed in time.

    It saves two collectors from the same work. If it is lost all the same, nothing is: see `sweeping`.
    """
    if not options.delete:
        yield lambda: None
        return
    lease = acquire(store, LEASE_KEY, holder=f"{socket.gethostname()}:{os.getpid()}", seconds=options.lease_s)
    lock = threading.Lock()
    renewed = [time.monotonic()]

    def alive() -> None:
        with lock:
            if time.monotonic() - renewed[0] > options.lease_s / 4:
                _renew(lease)
                renewed[0] = time.monotonic()

    try:
        yield alive
    finally:
        lease.release()


def _renew(lease: Lease) -> None:
    try:
        lease.renew()
    except ConflictError as error:
        error.hint = "Another collection took over and does the rest."
        raise
