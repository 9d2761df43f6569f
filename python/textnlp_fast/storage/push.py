"""Push: hash what is there, code what is new, upload it, and publish it with one last write.

Until the manifest is created nobody sees the version; after, all of it is there. A push that is interrupted
leaves objects that nothing names: the next push of the same files makes the same objects and does not
upload them again.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.contents.inventory import Held, LocalFile, check_unchanged, take_inventory
from textnlp_fast.contents.windows import DATA_ERRORS, ProgressCallback
from textnlp_fast.delta.recipe import Recipe
from textnlp_fast.errors import (
    InvalidInputError,
    MissingObjectError,
    ObjectExistsError,
    StorageUnavailableError,
    VersionExistsError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.anchoring import Choice, choose_anchor
from textnlp_fast.storage.coding import Coded, Coder
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.extents import is_whole
from textnlp_fast.storage.manifest import Content, Extent, Manifest, closure
from textnlp_fast.storage.matching import find_recipes, needs_recipes
from textnlp_fast.storage.parents import parent_of, repository_for
from textnlp_fast.storage.planning import PushPlan, plan_push
from textnlp_fast.storage.publishing import publish_version, record_repair
from textnlp_fast.storage.version_manager import (
    VersionManager,
    check_name,
    check_version,
    now_utc,
)
from textnlp_fast.telemetry import adopting, phase

__all__ = ["PushReport", "PushRequest", "push_model"]

# Manifests that are searched for contents the repository has already.
_KNOWN_VERSIONS = 64
_KNOWN_MODELS = 256

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
    try:
        return _push(store, versions, request, options, progress)
    except StorageUnavailableError as error:
        if error.hint == error.default_hint:
            error.hint = _UNPUBLISHED
        raise


def _push(
    store: ObjectStore,
    versions: VersionManager,
    request: PushRequest,
    options: TransferOptions,
    progress: ProgressCallback | None,
) -> PushReport:
    started = time.monotonic()
    check_name(request.name)
    check_version(request.version)
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in request.metadata.items()):
        raise InvalidInputError("metadata maps text to text")
    with phase("hash"):
        files = take_inventory(request.path, threads=options.thread_count, progress=progress)
    window_bytes = repository_for(versions, request).window_bytes
    existing = versions.find(request.name, request.version)
    passed_over: list[str] = []
    parent = parent_of(versions, request, existing, passed_over)
    known = [_found_by(existing)] if existing is not None else list(_known_manifests(versions, request))
    missing = _missing_objects(store, [*known, parent, existing], options.thread_count)
    around = _Surroundings(files, parent, known, missing, options)
    plan = around.plan(parent)
    if existing is not None:
        _refuse_other_files(existing, plan.files)
        if not missing & existing.objects.keys():
            return _report(existing, plan, started, uploaded_bytes=0, already_there=True)
    base_files = _base_inventory(request, parent, plan, options)
    held = _held_of(base_files)
    free = request.parent == "auto"
    plan, choice = _settle(store, versions, around, plan, held, existing=existing, free=free)
    with phase("upload"):
        coded = Coder(store, plan, held, window_bytes, options).run(progress)
    check_unchanged([*files, *base_files])
    manifest = _assemble(
        request, parent, choice, plan, coded, window_bytes=window_bytes, raw=not options.compression
    )
    uploaded = sum(shard.size for shard in coded.shards if shard.uploaded)
    if existing is not None:
        _check_repaired(store, existing, missing)
        if uploaded:
            record_repair(store, existing, uploaded)
        return _report(existing, plan, started, uploaded_bytes=uploaded, already_there=True)
    try:
        with phase("publish"):
            publish_version(store, versions, manifest)
    except ObjectExistsError:
        other = versions.load_fresh(request.name, request.version)
        _refuse_other_files(other, plan.files)
        return _report(other, plan, started, uploaded_bytes=uploaded, already_there=True)
    except StorageUnavailableError as error:
        error.hint = _UNSURE
        raise
    report = _report(manifest, plan, started, uploaded_bytes=uploaded)
    return replace(report, passed_over=tuple(passed_over))


# --- what the repository has ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What plans are made from. Nothing new may be built on `missing` objects."""

    files: Sequence[LocalFile]
    parent: Manifest | None
    known: Sequence[Manifest]
    missing: set[str]
    options: TransferOptions

    @property
    def delta(self) -> bool:
        return self.options.delta and self.options.compression

    def plan(self, base: Manifest | None, recipes: Mapping[str, Recipe] | None = None) -> PushPlan:
        return plan_push(
            self.files,
            _without(base, self.missing),
            [_intact(manifest, self.missing) for manifest in self.known],
            delta=self.delta,
            max_chain_depth=self.options.max_chain_depth,
            recipes=recipes,
        )


def _settle(
    store: ObjectStore,
    versions: VersionManager,
    around: _Surroundings,
    plan: PushPlan,
    held: Mapping[str, Held],
    *,
    existing: Manifest | None,
    free: bool,
) -> tuple[PushPlan, Choice | None]:
    """The plan to carry out, and why it goes against what it does, if that was decided (where it is `free`).

    A new layout goes against the parent whatever that costs: prices are asked about tensors that kept theirs.
    """
    parent, options = around.parent, around.options
    if parent is None or not around.delta:
        return plan, None
    # A version that was decided by prices had no recipes: a repeated push must not find any either.
    if needs_recipes(plan) and (existing is None or existing.anchor is None):
        recipes = find_recipes(store, _intact(parent, around.missing), plan, around.files, held, options)
        if recipes:
            return around.plan(parent, recipes), None
    if existing is not None or not free:
        return plan, None
    choice = choose_anchor(store, versions.find, parent, plan, held, options)
    if choice is None or choice.base is parent:
        return plan, choice
    unasked = [one for one in (choice.base,) if all(one is not other for other in around.known)]
    missing = around.missing | _missing_objects(store, unasked, options.thread_count)
    return replace(around, known=[parent, *around.known], missing=missing).plan(choice.base), choice


def _known_manifests(versions: VersionManager, request: PushRequest) -> Iterator[Manifest]:
    """Manifests whose contents need not be stored again: this model's, and the newest of the others."""
    models = versions.models()
    own = reversed(models.pop(request.name, [])[-_KNOWN_VERSIONS:])
    wanted = [(request.name, version) for version in own if version != request.version]
    wanted += [(name, models[name][-1]) for name in list(models)[:_KNOWN_MODELS]]
    for name, version in wanted:
        with suppress(*DATA_ERRORS):  # knowing it would only save space, and `verify` names it
            yield versions.manifest(name, version)


def _found_by(existing: Manifest) -> Manifest:
    """The version without what its own push stored: coding that again makes the same objects again."""
    found = {
        digest: content
        for digest, content in existing.contents.items()
        if not any(extent.object in existing.new_objects for extent in content.extents)
    }
    return replace(existing, contents=closure(existing.contents, found))


def _missing_objects(store: ObjectStore, manifests: Sequence[Manifest | None], threads: int) -> set[str]:
    """Objects that the repository lacks, or has in another size than manifests say.

    Nothing new may be built on those.
    """
    named = {pair for manifest in manifests if manifest is not None for pair in manifest.objects.items()}
    if len(named) > 4096:  # one listing is cheaper than so many questions
        present = {(meta.key.rpartition("/")[2], meta.size) for meta in store.list("objects")}
        return {digest for digest, _ in named - present}
    with ThreadPoolExecutor(min(32, 4 * threads), initializer=adopting()) as pool:
        ordered = sorted(named)
        found = pool.map(lambda pair: is_whole(store, *pair), ordered)
        return {digest for (digest, _), whole in zip(ordered, found, strict=True) if not whole}


def _intact(manifest: Manifest, missing: set[str]) -> Manifest:
    """The manifest without the contents that need a missing object."""
    if not missing & manifest.objects.keys():
        return manifest
    whole = {
        digest: content
        for digest, content in manifest.contents.items()
        if not any(
            extent.object in missing
            for link in closure(manifest.contents, [digest]).values()
            for extent in link.extents
        )
    }
    return replace(manifest, contents=whole)


def _without(manifest: Manifest | None, missing: set[str]) -> Manifest | None:
    return None if manifest is None else _intact(manifest, missing)


def _refuse_other_files(existing: Manifest, files: Sequence[FileEntry]) -> None:
    if not existing.same_files(replace(existing, files=tuple(files))):
        raise VersionExistsError(
            f"{existing.model}@{existing.version} is published already, with other files"
        )


def _check_repaired(store: ObjectStore, existing: Manifest, missing: set[str]) -> None:
    suspects = sorted(missing & existing.objects.keys())
    lost = [digest for digest in suspects if not is_whole(store, digest, existing.objects[digest])]
    if lost:
        raise MissingObjectError(
            f"the repository lost {len(lost)} objects of {existing.model}@{existing.version}, "
            f"{lost[0]} first, and pushing its files again did not make them",
            hint="Restore them from a copy of the repository, or push the files under a new version.",
        )


# --- local bases ------------------------------------------------------------------------------------------


def _base_inventory(
    request: PushRequest, parent: Manifest | None, plan: PushPlan, options: TransferOptions
) -> list[LocalFile]:
    if request.base_path is None or parent is None:
        return []
    if not needs_recipes(plan) and not any(step.base for step in plan.steps):
        return []
    return take_inventory(request.base_path, threads=options.thread_count)


def _held_of(files: Sequence[LocalFile]) -> dict[str, Held]:
    return {part.digest: Held(file.location, part.offset) for file in files for part in file.parts}


# --- the manifest -----------------------------------------------------------------------------------------


def _assemble(
    request: PushRequest,
    parent: Manifest | None,
    choice: Choice | None,
    plan: PushPlan,
    coded: Coded,
    *,
    window_bytes: int,
    raw: bool,
) -> Manifest:
    contents = dict(plan.reused)
    objects = dict(plan.objects) | {shard.digest: shard.size for shard in coded.shards}
    for step, slots, needs_base in zip(plan.steps, coded.slots, coded.needs_base, strict=True):
        extents = tuple(Extent(coded.shards[slot.shard].digest, slot.offset, slot.length) for slot in slots)
        contents[step.part.digest] = Content(
            step.part.digest,
            step.part.dtype,
            step.part.size,
            "raw" if raw else "frames",
            step.base if needs_base else None,
            extents,
        )
    wanted = (digest for entry in plan.files for digest in entry.parts)
    needed = closure(contents, wanted)
    used = {extent.object for content in needed.values() for extent in content.extents}
    return Manifest(
        model=request.name,
        version=request.version,
        parent=(parent.model, parent.version) if parent is not None else None,
        created_at=now_utc(),
        write_id=secrets.token_hex(16),
        window_bytes=window_bytes,
        files=plan.files,
        contents=needed,
        objects={digest: objects[digest] for digest in used},
        new_objects=frozenset(shard.digest for shard in coded.shards) & used,
        message=request.message,
        metadata=dict(request.metadata),
        anchor=choice.anchor if choice is not None else None,
    )


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
