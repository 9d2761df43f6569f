"""The coordinator's part of a save: it begins a publication, and makes one version of what all ranks wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import semver

from textnlp_fast.chunking import boundaries
from textnlp_fast.contents.documents import canonical
from textnlp_fast.contents.entries import DTYPE_OPAQUE, FileEntry, file_digest
from textnlp_fast.contents.windows import DATA_ERRORS
from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    ModelNotFoundError,
    ObjectExistsError,
    StorageUnavailableError,
)
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.integrations.torch_dcp.assigning import Assignment, Base, Parent, open_parent, rank_path
from textnlp_fast.integrations.torch_dcp.coding import CodedContent, ContentWriter, new_shards
from textnlp_fast.integrations.torch_dcp.layout import (
    RECORD_NAME,
    Layout,
    Place,
    TensorLayout,
    layout_bytes,
)
from textnlp_fast.integrations.torch_dcp.ranks import ranks_document
from textnlp_fast.integrations.torch_dcp.regions import Box
from textnlp_fast.integrations.torch_dcp.values import encode_value
from textnlp_fast.integrations.torch_dcp.writing import PieceRecord, RankRecord
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.assembling import new_manifest
from textnlp_fast.storage.audit import AuditPolicy
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.garbage.document import Garbage
from textnlp_fast.storage.manifest import Anchor, Content, Extent, Manifest
from textnlp_fast.storage.names import latest_of
from textnlp_fast.storage.packing import ShardObject, ShardWriter
from textnlp_fast.storage.parents import parent_of, repository_for
from textnlp_fast.storage.publication import Publication
from textnlp_fast.storage.push import PushRequest
from textnlp_fast.storage.settling import refuse_other_files
from textnlp_fast.storage.sharding.record import RECORD_NAME as SHARDS_NAME
from textnlp_fast.storage.surroundings import intact, missing_objects
from textnlp_fast.storage.version_manager import VersionManager
from textnlp_fast.telemetry import operation

__all__ = ["Save", "SaveReport", "SaveStart", "begin_save", "find_start", "next_version"]

_UNPUBLISHED = "Nothing was published. Save the same state again: what was uploaded is not sent twice."
_LAST: dict[tuple[object, ...], tuple[bytes, bytes | None]] = {}
_LAST_LOCK = threading.Lock()
_UNSURE = "The version may be published or not. Save the same state again: if it is, nothing changes."


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What a save did. Sizes in bytes; `stored_bytes` is what the repository grew by, manifest aside."""

    model: str
    version: str
    parent: str | None
    ranks: int
    tensors: int
    raw_bytes: int
    stored_bytes: int
    uploaded_bytes: int
    seconds: float
    already_there: bool = False


def next_version(versions: VersionManager, model: str) -> str:
    """The patch version after the latest; 0.0.1 for a model that has none."""
    try:
        latest = latest_of(versions.versions(model))
    except ModelNotFoundError:
        return "0.0.1"
    return str(semver.Version.parse(latest).bump_patch())


@dataclass(frozen=True, slots=True)
class SaveStart:
    """What a save finds in the repository: the version `before` it, and in `parent` what is usable of that."""

    store: ObjectStore
    versions: VersionManager
    request: PushRequest
    options: TransferOptions
    publication: Publication
    before: Manifest | None
    parent: Parent | None
    policy: AuditPolicy
    pool: ThreadPoolExecutor
    started: float


@dataclass(frozen=True, slots=True)
class Save:
    """A save that has begun."""

    start: SaveStart
    assignments: tuple[Assignment, ...]

    def finish(self, planner_data: Any, records: Sequence[RankRecord], threads: int) -> SaveReport:
        """Publishes what the ranks wrote. Raises VersionExistsError if the version has other files, OvertakenError."""
        records = sorted(records, key=lambda each: each.rank)
        names = self.start.publication.names(again=None)
        with new_shards(self.start.store, self.start.options, names, threads, self.start.pool) as shards:
            window_bytes = self.start.versions.info().window_bytes
            writer = ContentWriter(shards, window_bytes, self.start.options, threads)
            known = self._known()
            for record in records:
                if not record.shards:
                    for coded in record.contents:
                        if coded.digest not in known:
                            writer.adopt(coded, record.windows(coded))
            files = [_rank_file(record) for record in records if record.pieces]
            files += [
                _blob(path, data, writer, known)
                for path, data in self._documents(planner_data, records)
                if data is not None
            ]
            files.sort(key=lambda entry: entry.path)
            parts = [(record.contents, record.shards) for record in records if record.shards]
            # Their names are enough for all that is written before the manifest.
            parts.append((tuple(writer.contents.values()), tuple(shards.named())))
            manifest = self._assemble(tuple(files), parts)
            return self._publish(manifest, records, shards)

    def _known(self) -> Mapping[str, Content]:
        return {} if self.start.parent is None else self.start.parent.manifest.contents

    def _documents(self, planner_data: Any, records: Sequence[RankRecord]) -> list[tuple[str, bytes | None]]:
        name, ranks, planner = self.start.request.name, len(self.assignments), encode_value(planner_data)
        # Both follow from these, which seldom change from save to save: the last ones are remembered. Plain data as
        # text: 1 and True are one key.
        pieces = tuple((each.rank, each.path, *map(_place, each.pieces)) for each in records)
        known = name, ranks, pieces, canonical([planner, *(each.values for each in records)])
        with _LAST_LOCK:
            found = _LAST.get(known)
        if found is None:
            layout = _layout(records, planner)
            found = layout_bytes(layout), ranks_document(name, layout, records, ranks)
            with _LAST_LOCK:
                _LAST.clear()
                _LAST[known] = found
        return list(zip((RECORD_NAME, SHARDS_NAME), found, strict=True))

    def _assemble(
        self,
        files: tuple[FileEntry, ...],
        parts: Iterable[tuple[tuple[CodedContent, ...], tuple[ShardObject, ...]]],
    ) -> Manifest:
        known = self._known()
        contents = dict(known)
        objects = {} if self.start.parent is None else dict(self.start.parent.manifest.objects)
        made: dict[str, ShardObject] = {}
        for coded, shards in parts:
            made |= {shard.digest: shard for shard in shards}
            for each in coded:
                # What the parent has stays as it is there: a base must not come to stand on what is coded against it.
                if each.digest not in contents:
                    extents = tuple(
                        Extent(shards[slot.shard].digest, slot.offset, slot.length) for slot in each.slots
                    )
                    contents[each.digest] = Content(
                        each.digest, each.dtype, each.size, each.codec, each.base, extents
                    )
        objects |= {digest: shard.size for digest, shard in made.items()}
        return new_manifest(
            self.start.request,
            self.start.before,
            files,
            contents,
            objects,
            tuple(made.values()),
            window_bytes=self.start.versions.info().window_bytes,
            anchor=self._anchor(files),
        )

    def _anchor(self, files: Sequence[FileEntry]) -> Anchor | None:
        """Says that nothing was coded against the parent, where that is so."""
        if self.start.before is None or self.start.parent is not None:
            return None
        size = sum(entry.size for entry in files)
        return Anchor(None, size, size, "what the parent holds of each tensor cannot be read")

    def _publish(self, manifest: Manifest, records: Sequence[RankRecord], shards: ShardWriter) -> SaveReport:
        existing = self.start.publication.existing
        self.start.publication.refuse_other_files(manifest.files)

        def uploaded() -> int:
            stored = chain(shards.finish(), *(record.shards for record in records))
            return sum(shard.size for shard in stored if shard.uploaded)

        with operation(
            "push", model=manifest.model, version=manifest.version, repository=self.start.store.url
        ) as op:
            if existing is None:
                try:
                    self.start.publication.publish(
                        manifest, uploaded=shards.finish, policy=self.start.policy, pool=self.start.pool
                    )
                    op.count(bytes_saved=max(0, manifest.raw_bytes - uploaded()), versions=1)
                    op.stores(manifest.stored_bytes)
                except ObjectExistsError:
                    existing = self.start.versions.load_fresh(manifest.model, manifest.version)
                    refuse_other_files(existing, manifest.files)
                except StorageUnavailableError as error:
                    error.hint = _UNSURE if self.start.publication.was_sent else _UNPUBLISHED
                    raise
        there = existing or manifest
        return SaveReport(
            model=there.model,
            version=there.version,
            parent="@".join(there.parent) if there.parent else None,
            ranks=len(records),
            tensors=sum(len(entry.names) for entry in there.files),
            raw_bytes=there.raw_bytes,
            stored_bytes=0 if existing is not None else there.stored_bytes,
            uploaded_bytes=uploaded(),
            seconds=time.monotonic() - self.start.started,
            already_there=existing is not None,
        )


def find_start(
    store: ObjectStore,
    versions: VersionManager,
    request: PushRequest,
    options: TransferOptions,
    pool: ThreadPoolExecutor,
) -> SaveStart:
    """Looks at the repository, in the order that collections ask for. `pool` is for the end of the save.

    Raises what finding the parent raises, CorruptDataError if the version is there and has lost objects.
    """
    started = time.monotonic()
    repository_for(versions, request)
    publication = Publication(store, versions, request.name, request.version)
    existing = publication.existing
    # A version that is there is compared with itself: then nothing is coded.
    before = existing if existing is not None else parent_of(versions, request, None, [])
    parent: Parent | None = None
    if before is not None:
        missing = missing_objects(store, [before], options.thread_count, publication)
        if existing is not None and missing & existing.objects.keys():
            raise CorruptDataError(
                f"{request.name}@{request.version} is there already and has lost objects",
                hint="Save under another version, and look at this one with `textnlp-fast verify`.",
            )
        try:
            parent = open_parent(store, before, intact(before, missing), options)
        except (*DATA_ERRORS, InvalidInputError):
            # Training goes on though the version before is damaged, or is none that pieces could be found in.
            if existing is not None or request.parent != "auto":
                raise
    policy = AuditPolicy.current()
    return SaveStart(store, versions, request, options, publication, before, parent, policy, pool, started)


def begin_save(start: SaveStart, plans: Sequence[Any]) -> Save:
    """Deals out bases to the ranks' plans."""
    # Of what a collection looks at, ranks need what names are gone.
    garbage = replace(start.publication.names(again=None).garbage, condemned={}, pushes={})
    ranks = len(plans)
    return Save(
        start, tuple(_assignment(rank, plan, ranks, start, garbage) for rank, plan in enumerate(plans))
    )


def _assignment(rank: int, plan: Any, ranks: int, start: SaveStart, garbage: Garbage) -> Assignment:
    before, parent = start.before, start.parent
    return Assignment(
        rank=rank,
        ranks=ranks,
        model=start.request.name,
        version=start.request.version,
        window_bytes=start.versions.info().window_bytes,
        garbage=garbage,
        parent=None if before is None else (before.model, before.version),
        header=None if parent is None else parent.header_of(rank_path(rank, ranks)),
        bases=tuple(Base() for _ in plan.items) if parent is None else parent.assign(plan.items),
    )


def _rank_file(record: RankRecord) -> FileEntry:
    parts = (record.header, *(piece.digest for piece in record.pieces))
    size = record.header_bytes + sum(piece.size for piece in record.pieces)
    names = tuple(piece.name for piece in record.pieces)
    return FileEntry(record.path, size, "safetensors", file_digest(parts), parts, names)


def _blob(path: str, data: bytes, writer: ContentWriter, known: Mapping[str, Content]) -> FileEntry:
    """A file that is no weights, cut as every push cuts it."""
    digests: list[str] = []
    begin = 0
    for end in map(int, boundaries(data, threads=1)):
        chunk = np.frombuffer(data, np.uint8, end - begin, begin)
        digest = blake3_hex(chunk, threads=1)
        digests.append(digest)
        if digest not in known:
            writer.add(digest, chunk, DTYPE_OPAQUE)
        begin = end
    return FileEntry(path, len(data), "blob", file_digest(digests), tuple(digests))


def _place(piece: PieceRecord) -> tuple[object, ...]:
    """What a piece is, whatever it holds."""
    return piece.tensor, piece.name, piece.dtype, piece.shape, piece.box, piece.sizes


def _layout(records: Sequence[RankRecord], planner: Any) -> Layout:
    files = [record.path for record in records if record.pieces]
    numbers = {path: number for number, path in enumerate(files)}
    found: dict[str, tuple[str, tuple[int, ...], list[tuple[Box, Place]]]] = {}
    pickles: dict[str, Place] = {}
    for record in records:
        for piece in record.pieces:
            place = Place(numbers[record.path], piece.name)
            if piece.box is None:
                pickles[piece.tensor] = place
            else:
                found.setdefault(piece.tensor, (piece.dtype, piece.shape, []))[2].append((piece.box, place))
    tensors = {
        name: TensorLayout(dtype, shape, tuple(pieces)) for name, (dtype, shape, pieces) in found.items()
    }
    values = {name: encoded for record in records for name, encoded in record.values}
    return Layout(tuple(files), tensors, values, pickles, planner)
