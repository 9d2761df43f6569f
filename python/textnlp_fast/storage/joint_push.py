"""A version that several processes make: each codes some of its files and uploads them, one publishes all of it.

The one begins (`JointPush`), which looks at what is being collected before anything else looks at objects, and tells
the others what to code against. They hand back what they did, in a few kilobytes a tensor (`code_part`); no bytes of
the model pass through it. Last it writes one manifest, under the conditions of every push. Objects are named by what
is in them, so that a part that is coded again, here or elsewhere, makes the same ones, and a version is there whole
or not at all.

Parts are coded against the parent, tensor by tensor. Which older version would be cheaper, and what a new layout was
made of, is not asked: it takes all of the model in one place.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from textnlp_fast.contents.documents import Broken
from textnlp_fast.contents.entries import FileEntry, check_path, check_paths
from textnlp_fast.contents.inventory import LocalFile, check_unchanged, file_entry, take_file
from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    ObjectExistsError,
    StorageUnavailableError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.assembling import new_manifest
from textnlp_fast.storage.coding import Coder
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Content, Extent, Manifest
from textnlp_fast.storage.packing import ShardObject
from textnlp_fast.storage.parents import parent_of, repository_for
from textnlp_fast.storage.plain_contents import plain_contents
from textnlp_fast.storage.publication import OvertakenError, Publication
from textnlp_fast.storage.push import PushReport, PushRequest
from textnlp_fast.storage.settling import refuse_other_files
from textnlp_fast.storage.surroundings import (
    Surroundings,
    known_manifests,
    missing_objects,
    readable_manifests,
)
from textnlp_fast.storage.version_manager import VersionManager
from textnlp_fast.telemetry import operation

__all__ = ["CodedPart", "JointPush", "PartTask", "code_part"]

_UNSURE = "The version may be published or not. Push again: if it is, nothing changes."


@dataclass(frozen=True, slots=True)
class PartTask:
    """What a process has to know to code a part: plain data. Nothing is built on `missing` objects.

    `known` are other versions, in the order in which contents are looked for there: the same for all, so that two parts
    never take one content from two of them.
    """

    name: str
    version: str
    parent: tuple[str, str] | None
    known: tuple[tuple[str, str], ...]
    missing: frozenset[str]
    options: TransferOptions


@dataclass(frozen=True, slots=True)
class CodedPart:
    """What became of some files: where their contents are, in which objects, and which of those are new."""

    files: tuple[FileEntry, ...]
    contents: Mapping[str, Content]
    objects: Mapping[str, int]
    shards: tuple[ShardObject, ...]
    new_contents: int


class JointPush:
    """A push that has begun.

    Raises what finding the parent raises, and CorruptDataError if the version is there and has lost objects. Of
    `request` the path and the base's path do not matter, and a key is not used: sign the version when it is there.
    """

    def __init__(
        self,
        store: ObjectStore,
        versions: VersionManager,
        request: PushRequest,
        options: TransferOptions,
    ) -> None:
        self._started = time.monotonic()
        self._store = store
        self._versions = versions
        self._request = request
        repository_for(versions, request)
        self._publication = Publication(store, versions, request.name, request.version)
        existing = self._publication.existing
        self._passed_over: list[str] = []
        # A version that is there is compared with itself: then nothing is coded.
        self._parent = (
            existing if existing is not None else parent_of(versions, request, None, self._passed_over)
        )
        known = [] if existing is not None else list(known_manifests(versions, request))
        missing = missing_objects(store, [*known, self._parent], options.thread_count, self._publication)
        if existing is not None and missing & existing.objects.keys():
            raise CorruptDataError(
                f"{request.name}@{request.version} is there already and has lost objects",
                hint="Push it from one process, which makes them again.",
            )
        against = None if self._parent is None else (self._parent.model, self._parent.version)
        others = tuple((one.model, one.version) for one in known)
        self.task = PartTask(request.name, request.version, against, others, frozenset(missing), options)

    def finish(self, parts: Iterable[CodedPart]) -> PushReport:
        """Publishes what was coded.

        Raises VersionExistsError if the version has other files, OvertakenError if a collection came between: then
        all parts are coded anew; InvalidInputError if two parts have one file.
        """
        parts = list(parts)
        files = sorted((entry for part in parts for entry in part.files), key=lambda entry: entry.path)
        if not files:
            raise InvalidInputError("there are no files to publish")
        try:
            check_paths([entry.path for entry in files])
        except Broken as error:
            raise InvalidInputError(f"the files of {self.task.name}: {error}") from None
        self._publication.refuse_other_files(files)
        # New contents stand on the parent's alone, and the parent's are taken as they are there: so whose is taken of
        # the others makes no cycle.
        contents: dict[str, Content] = {} if self._parent is None else dict(self._parent.contents)
        objects: dict[str, int] = {} if self._parent is None else dict(self._parent.objects)
        for part in parts:
            for digest, content in part.contents.items():
                contents.setdefault(digest, content)
            objects |= part.objects
        existing = self._publication.existing
        manifest = new_manifest(
            self._request,
            None if existing is not None else self._parent,
            files,
            contents,
            objects,
            [shard for part in parts for shard in part.shards],
            window_bytes=self._versions.info().window_bytes,
        )
        if existing is None:
            existing = self._publish(manifest)
        return self._report(existing or manifest, parts, already_there=existing is not None)

    def _publish(self, manifest: Manifest) -> Manifest | None:
        """The version that was there first, with the same files, if one was."""
        with operation(
            "push", model=manifest.model, version=manifest.version, repository=self._store.url
        ) as op:
            try:
                self._publication.publish(manifest)
            except ObjectExistsError:
                other = self._versions.load_fresh(manifest.model, manifest.version)
                refuse_other_files(other, manifest.files)
                return other
            except StorageUnavailableError as error:
                error.hint = _UNSURE
                raise
            op.count(versions=1)
            op.stores(manifest.stored_bytes)
        return None

    def _report(self, there: Manifest, parts: Sequence[CodedPart], *, already_there: bool) -> PushReport:
        new = 0 if already_there else sum(part.new_contents for part in parts)
        return PushReport(
            model=there.model,
            version=there.version,
            parent="@".join(there.parent) if there.parent else None,
            files=len(there.files),
            tensors=sum(len(entry.names) for entry in there.files),
            raw_bytes=there.raw_bytes,
            stored_bytes=0 if already_there else there.stored_bytes,
            uploaded_bytes=sum(shard.size for part in parts for shard in part.shards if shard.uploaded),
            new_contents=new,
            reused_contents=len(there.wanted()) - min(new, len(there.wanted())),
            seconds=time.monotonic() - self._started,
            already_there=already_there,
            passed_over=tuple(self._passed_over),
            base="@".join(there.coded_against) if there.coded_against else None,
        )


def code_part(
    store: ObjectStore,
    versions: VersionManager,
    task: PartTask,
    files: Mapping[str, str | Path],
    *,
    progress: ProgressCallback | None = None,
) -> CodedPart:
    """Codes and uploads some of a version's files, local ones by their path in the version; within the task's budget.

    Raises what a push raises: InvalidInputError and its kinds for files, OvertakenError if a collection came between.
    """
    options = task.options
    publication = Publication(store, versions, task.name, task.version)
    local: list[LocalFile] = [
        replace(take_file(location, threads=options.thread_count, progress=progress), path=check_path(path))
        for path, location in files.items()
    ]
    parent = None if task.parent is None else versions.manifest(*task.parent)
    around = Surroundings(
        local, parent, [] if parent is None else [parent], set(task.missing), options, publication
    )
    plan = around.plan(parent)
    if plan.steps:  # what the parent lacks another version may have; most parts need not look
        around = replace(around, known=[*around.known, *readable_manifests(versions, task.known)])
        plan = around.plan(parent)
    plain = plain_contents(plan.steps, options, existing=None)
    window_bytes = versions.info().window_bytes
    try:
        names = publication.names(again=None)
        coded = Coder(store, plan, {}, window_bytes, options, names, plain).run(progress)
    except MissingObjectError as error:
        if publication.was_overtaken():
            raise OvertakenError(str(error.args[0])) from error
        raise
    check_unchanged(local)
    contents = dict(plan.reused)
    for step, slots, needs_base in zip(plan.steps, coded.slots, coded.needs_base, strict=True):
        contents[step.part.digest] = Content(
            step.part.digest,
            step.part.dtype,
            step.part.size,
            "raw" if step.part.digest in plain else "frames",
            step.base if needs_base else None,
            tuple(Extent(coded.shards[slot.shard].digest, slot.offset, slot.length) for slot in slots),
        )
    return CodedPart(
        tuple(file_entry(file) for file in local),
        contents,
        dict(plan.objects) | {shard.digest: shard.size for shard in coded.shards},
        tuple(coded.shards),
        len(plan.steps),
    )
