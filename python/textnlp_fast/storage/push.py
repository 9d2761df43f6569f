"""Push: hash what is there, code what is new, upload it, and publish it with one last write.

Until the manifest is created nobody sees the version; after, all of it is there. A push that is interrupted
leaves objects that nothing names: the next push of the same files makes the same objects and does not
upload them again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from textnlp_fast.contents.inventory import LocalFile, check_unchanged, take_inventory
from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import (
    InternalError,
    InvalidInputError,
    MissingObjectError,
    ObjectExistsError,
    StorageUnavailableError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.anchoring import Choice
from textnlp_fast.storage.assembling import new_manifest
from textnlp_fast.storage.coding import Coded, Coder
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.extents import is_whole
from textnlp_fast.storage.features import FeatureUse, features_of, stored_by_feature
from textnlp_fast.storage.manifest import Anchor, Content, Extent, Manifest
from textnlp_fast.storage.parents import parent_of, repository_for
from textnlp_fast.storage.plain_contents import plain_contents
from textnlp_fast.storage.planning import PushPlan
from textnlp_fast.storage.publication import OvertakenError, Publication
from textnlp_fast.storage.publishing import PUSH, record_repair
from textnlp_fast.storage.settling import base_inventory, held_of, refuse_other_files, settle
from textnlp_fast.storage.signing import PrivateKey, sign_files
from textnlp_fast.storage.surroundings import Surroundings, found_by, known_manifests, missing_objects
from textnlp_fast.storage.version_manager import (
    VersionManager,
    check_name,
    check_version,
)
from textnlp_fast.telemetry import phase

__all__ = ["PushReport", "PushRequest", "push_model", "rewrite_model"]

# Times that a push plans anew because a collection deleted what it relied on.
_TRIES = 8

_UNPUBLISHED = "Nothing was published. Push again: what was uploaded is not sent twice."
# An answer to the last write of all may have been lost on the way.
_UNSURE = "The version may be published or not. Push again: if it is, nothing changes."


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest:
    """What to push, under which name.

    `parent` is "auto" (the highest version below; prices decide whether it is coded against that), None, or
    (model, version).
    """

    path: str | os.PathLike[str]
    name: str
    version: str
    parent: tuple[str, str] | str | None = "auto"
    base_path: str | os.PathLike[str] | None = None
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    sign_key: PrivateKey | None = None


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a push did. Sizes in bytes; `stored_bytes` is what the repository grew by, manifest aside."""

    model: str
    version: str
    parent: str | None
    files: int
    tensors: int
    raw_bytes: int
    stored_bytes: int
    uploaded_bytes: int
    new_contents: int
    reused_contents: int
    seconds: float
    already_there: bool = False
    passed_over: tuple[str, ...] = ()
    """Higher versions that would have been the parent, had their manifests been readable."""
    base: str | None = None
    """The version that new tensors were coded against; None: none, the version is stored whole."""
    reason: str = ""
    """Why that one, in a line, where prices decided."""
    features: tuple[FeatureUse, ...] = ()
    """What was done with the model's bytes, and why; none where the version was there already."""

    @property
    def ratio(self) -> float:
        """Raw bytes per stored byte; infinite if nothing new had to be stored."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else float("inf")

    @property
    def gigabytes_per_s(self) -> float:
        return self.raw_bytes / max(self.seconds, 1e-9) / 1e9


def push_model(
    store: ObjectStore,
    versions: VersionManager,
    request: PushRequest,
    options: TransferOptions,
    progress: ProgressCallback | None = None,
) -> PushReport:
    """Publishes the files at `request.path` as a version. Never holds more than the budget of `options`."""
    check_name(request.name)
    check_version(request.version)
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in request.metadata.items()):
        raise InvalidInputError("metadata maps text to text")
    return _try_again(store, versions, request, options, progress, None)


def rewrite_model(
    store: ObjectStore,
    versions: VersionManager,
    request: PushRequest,
    options: TransferOptions,
    unwanted: frozenset[str],
    progress: ProgressCallback | None = None,
) -> PushReport:
    """Stores a published version anew, without building on `unwanted` objects; `request.path` has its files."""
    return _try_again(store, versions, request, options, progress, unwanted)


def _try_again(
    store: ObjectStore,
    versions: VersionManager,
    request: PushRequest,
    options: TransferOptions,
    progress: ProgressCallback | None,
    unwanted: frozenset[str] | None,
) -> PushReport:
    """Plans anew where a collection came between."""
    started = time.monotonic()
    with phase("hash"):
        files = take_inventory(request.path, threads=options.thread_count, progress=progress)
    try:
        for left in reversed(range(_TRIES)):
            try:
                report = _push(store, versions, request, options, progress, files, unwanted)
            except OvertakenError:  # by a collection, which takes long enough that it seldom comes twice
                if not left:
                    raise
            else:
                return replace(report, seconds=time.monotonic() - started)
    except StorageUnavailableError as error:
        if error.hint == error.default_hint:
            error.hint = _UNPUBLISHED
        raise
    raise InternalError("a push ended without a result")


def _push(
    store: ObjectStore,
    versions: VersionManager,
    request: PushRequest,
    options: TransferOptions,
    progress: ProgressCallback | None,
    files: Sequence[LocalFile],
    unwanted: frozenset[str] | None,
) -> PushReport:
    """One try, from the look at what is being collected to the publication."""
    repository_for(versions, request)
    publication = Publication(store, versions, request.name, request.version, unwanted or frozenset())
    rewrite = unwanted is not None and publication.existing is not None
    try:
        return _publish(store, versions, request, options, progress, files, publication, rewrite=rewrite)
    except MissingObjectError as error:
        if publication.was_overtaken():
            raise OvertakenError(str(error.args[0])) from error
        raise


def _publish(
    store: ObjectStore,
    versions: VersionManager,
    request: PushRequest,
    options: TransferOptions,
    progress: ProgressCallback | None,
    files: Sequence[LocalFile],
    publication: Publication,
    *,
    rewrite: bool = False,
) -> PushReport:
    """Publishes the version, or makes the lost objects of one that is published again.

    `rewrite` stores a published version as if it were new: where its objects cannot be made again, because what they
    were coded against is gone, its manifest gives way to one of the same files.
    """
    started = time.monotonic()
    window_bytes = versions.info().window_bytes
    published = publication.existing
    existing = None if rewrite else published
    passed_over: list[str] = []
    parent = parent_of(versions, request, existing, passed_over)
    known = [found_by(existing)] if existing is not None else list(known_manifests(versions, request))
    known += [published] if published is not None and rewrite else []
    missing = missing_objects(store, [*known, parent, existing], options.thread_count, publication)
    around = Surroundings(files, parent, known, missing, options, publication)
    plan = around.plan(parent)
    publication.refuse_other_files(plan.files)
    if existing is not None and not missing & existing.objects.keys():
        return _report(existing, plan, started, uploaded_bytes=0, already_there=True)
    base_files = base_inventory(request, parent, plan, options)
    held = held_of(base_files)
    free = request.parent == "auto"
    plan, choice = settle(store, versions, around, plan, held, existing=existing, free=free)
    names = publication.names(again=existing)
    plain = plain_contents(plan.steps, options, existing=existing)
    with phase("upload"):
        coded = Coder(store, plan, held, window_bytes, options, names, plain).run(progress)
    check_unchanged([*files, *base_files])
    manifest = _assemble(request, parent, choice, plan, coded, window_bytes=window_bytes, plain=plain)
    uploaded = sum(shard.size for shard in coded.shards if shard.uploaded)
    if existing is not None:
        if _is_repaired(store, existing, missing):
            if uploaded:
                record_repair(store, existing, uploaded)
            return _report(existing, plan, started, uploaded_bytes=uploaded, already_there=True)
        return _publish(store, versions, request, options, progress, files, publication, rewrite=True)
    if published is not None:
        manifest = _in_place_of(published, manifest, parent)
    try:
        if request.sign_key is not None:
            with phase("sign"):
                sign_files(store, request.name, request.version, plan.files, files, request.sign_key)
        with phase("publish"):
            publication.publish(manifest, action=PUSH if published is None else "rewrite")
    except ObjectExistsError:
        try:
            other = versions.load_fresh(request.name, request.version)
        except MissingObjectError as error:
            raise OvertakenError(f"{request.name}@{request.version} was deleted meanwhile") from error
        refuse_other_files(other, plan.files)
        return _report(other, plan, started, uploaded_bytes=uploaded, already_there=True)
    except StorageUnavailableError as error:
        error.hint = _UNSURE if publication.was_sent else _UNPUBLISHED
        raise
    report = _report(manifest, plan, started, uploaded_bytes=uploaded, already_there=published is not None)
    return replace(
        report, passed_over=tuple(passed_over), features=_features(plan, plain, coded, options, manifest)
    )


def _is_repaired(store: ObjectStore, existing: Manifest, missing: set[str]) -> bool:
    """Whether the objects that a published version lacked are there again."""
    suspects = missing & existing.objects.keys()
    return all(is_whole(store, digest, existing.objects[digest]) for digest in suspects)


# --- the manifest -----------------------------------------------------------------------------------------


def _assemble(
    request: PushRequest,
    parent: Manifest | None,
    choice: Choice | None,
    plan: PushPlan,
    coded: Coded,
    *,
    window_bytes: int,
    plain: frozenset[str],
) -> Manifest:
    contents = dict(plan.reused)
    objects = dict(plan.objects) | {shard.digest: shard.size for shard in coded.shards}
    for step, slots, needs_base in zip(plan.steps, coded.slots, coded.needs_base, strict=True):
        extents = tuple(Extent(coded.shards[slot.shard].digest, slot.offset, slot.length) for slot in slots)
        contents[step.part.digest] = Content(
            step.part.digest,
            step.part.dtype,
            step.part.size,
            "raw" if step.part.digest in plain else "frames",
            step.base if needs_base else None,
            extents,
        )
    return new_manifest(
        request,
        parent,
        plan.files,
        contents,
        objects,
        coded.shards,
        window_bytes=window_bytes,
        anchor=choice.anchor if choice is not None else None,
    )


def _in_place_of(published: Manifest, manifest: Manifest, against: Manifest | None) -> Manifest:
    """The manifest with all that people know of the one that it replaces."""
    base = (against.model, against.version) if against is not None else None
    sizes = published.anchor or Anchor(base, published.raw_bytes, published.raw_bytes, "")
    anchor = manifest.anchor or replace(
        sizes, base=base, reason="stored anew: what it was coded against is gone"
    )
    return replace(
        manifest,
        anchor=anchor,
        parent=published.parent,
        created_at=published.created_at,
        message=published.message,
        metadata=published.metadata,
    )


def _features(
    plan: PushPlan, plain: frozenset[str], coded: Coded, options: TransferOptions, manifest: Manifest
) -> tuple[FeatureUse, ...]:
    taken = [sum(slot.length for slot in slots) for slots in coded.slots]
    stored = stored_by_feature(plan, plain, taken)
    raw_bytes, objects = manifest.raw_bytes, len(coded.shards)
    return features_of(plan, plain, stored, options, raw_bytes=raw_bytes, objects=objects)


def _report(
    manifest: Manifest, plan: PushPlan, started: float, *, uploaded_bytes: int, already_there: bool = False
) -> PushReport:
    wanted = manifest.wanted()
    return PushReport(
        model=manifest.model,
        version=manifest.version,
        parent="@".join(manifest.parent) if manifest.parent else None,
        files=len(manifest.files),
        tensors=sum(len(entry.names) for entry in manifest.files),
        raw_bytes=manifest.raw_bytes,
        stored_bytes=0 if already_there else manifest.stored_bytes,
        uploaded_bytes=uploaded_bytes,
        new_contents=0 if already_there else len(plan.steps),
        reused_contents=len(wanted) if already_there else len(wanted) - len(plan.steps),
        seconds=time.monotonic() - started,
        already_there=already_there,
        base="@".join(manifest.coded_against) if manifest.coded_against else None,
        reason=manifest.anchor.reason if manifest.anchor else "",
    )
