"""Versions in a repository as what is sharded: decoded window by window, straight into the files of a plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from textnlp_fast.contents.entries import FileEntry, content_names
from textnlp_fast.contents.windows import write_exactly
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.planning import PullStep, pull_step
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.sharding.checking import Checks, damaged, places_by_tensor
from textnlp_fast.storage.sharding.descriptors import Descriptors
from textnlp_fast.storage.sharding.layout import INDEX_NAME
from textnlp_fast.storage.sharding.model import (
    Original,
    Piece,
    ShardPlan,
    ShardSource,
    ShardTensor,
    SourceFile,
)
from textnlp_fast.storage.sharding.moves import Move, moves_of_file
from textnlp_fast.storage.sharding.record import RECORD_NAME, ShardRecord, read_record
from textnlp_fast.storage.sharding.sources import (
    CONFIG_NAME,
    check_names,
    in_order,
    matching_originals,
    notes_of,
    weights_of,
    with_digests,
)
from textnlp_fast.storage.sharding.writing import Fill, Filled
from textnlp_fast.tensors import TensorInfo, parse_header
from textnlp_fast.tensors.architecture import Architecture, parse_architecture
from textnlp_fast.tensors.parallel import Portion
from textnlp_fast.tensors.slices import Cut

__all__ = ["StoredModel"]

_MAX_SMALL_FILE_BYTES = 512 << 20


class StoredModel:
    """A version (None: the latest) to be sharded. Of weights only the headers are read before it is filled in."""

    def __init__(self, repository: Repository, name: str, version: str | None) -> None:
        self._repository = repository
        self._manifest = repository.trusted_manifest(name, version)
        self._files = {entry.path: entry for entry in self._manifest.files}
        names = content_names(self._manifest.files)
        self._decoder = Decoder(
            repository.store,
            self._manifest.contents,
            self._manifest.window_bytes,
            repository.options,
            names,
        )

    def source(self) -> ShardSource:
        """What planners see. Each content is a file of its own, so to speak.

        Raises InvalidInputError if a tensor is there twice, CorruptDataError if headers, manifest and the record of
        ranks do not agree.
        """
        record = self._record()
        ranked = record is not None and bool(record.tensors)
        names = [entry.path for entry in self._manifest.files if entry.kind == "safetensors"]
        weights = {path for path, _ in record.files} if ranked and record is not None else weights_of(names)
        spoken = record if record is not None and (ranked or record.speaks_of(weights)) else None
        files: list[SourceFile] = []
        pieces: dict[str, list[tuple[TensorInfo, str, Piece]]] = {}
        originals: list[Original] = []
        metadata: dict[str, str] = {}
        for entry in self._manifest.files:
            if entry.path not in weights or entry.kind != "safetensors":
                continue
            header_bytes = self._read(entry.parts[0])
            header = parse_header(header_bytes, entry.size)
            originals.append(Original(entry.path, entry.size, header_bytes))
            metadata.update({key: value for key, value in header.metadata.items() if key not in metadata})
            found = list(self._contents_of(entry, header.tensors))
            _check_digests(spoken, entry.path, header_bytes, found)
            for info, digest in found:
                piece = Piece(len(files), 0)
                pieces.setdefault(info.name, []).append((info, entry.path, piece))
                files.append(SourceFile(digest, info.size_bytes))
        if ranked and record is not None:
            tensors = _of_ranks(record, pieces, files)
        else:
            tensors = [
                ShardTensor(info.name, info.dtype, info.shape, (piece,))
                for places in pieces.values()
                for info, _, piece in places
            ]
            check_names(tensors, str(self))
        made_from, index = matching_originals(record, tensors)
        tensors = with_digests(tensors, made_from if spoken is not None else ())
        if not made_from and not ranked:
            made_from = tuple(originals)
            index = self._small_file(self._files[INDEX_NAME]) if INDEX_NAME in self._files else None
        return ShardSource(
            str(self),
            tuple(files),
            in_order(tensors, made_from),
            made_from,
            dict.fromkeys(self._others(weights, ranked)),
            {"format": "pt", **metadata},
            index,
            self._architecture(),
            notes_of(spoken, record),
        )

    def _contents_of(self, entry: FileEntry, infos: Sequence[TensorInfo]) -> Iterator[tuple[TensorInfo, str]]:
        digests = dict(zip(entry.names, entry.parts[1:], strict=True))
        for info in infos:
            digest = digests.get(info.name)
            if digest is None or self._manifest.contents[digest].size != info.size_bytes:
                raise CorruptDataError(
                    f"the manifest does not have tensor {info.name!r} as the header of {entry.path!r} says"
                )
            yield info, digest

    def _others(self, weights: Collection[str], ranked: bool) -> list[str]:
        """Files that are copied as they are."""
        return [
            path
            for path in self._files
            if path not in weights
            and path not in {INDEX_NAME, RECORD_NAME}
            and not (ranked and path.startswith("rank-") and path.endswith(f"/{INDEX_NAME}"))
        ]

    def _record(self) -> ShardRecord | None:
        entry = self._files.get(RECORD_NAME)
        return None if entry is None else read_record(self._small_file(entry))

    def __str__(self) -> str:
        return f"{self._manifest.model}@{self._manifest.version}"

    def fill(self, source: ShardSource, plan: ShardPlan, *, threads: int) -> Fill:
        """Fills a plan's files with what is decoded, each content once; every one of them is verified."""
        targets: dict[str, list[tuple[int, Move]]] = {}
        for number, file in enumerate(plan.files):
            for move in moves_of_file(file):
                targets.setdefault(source.files[move.source].name, []).append((number, move))

        def fill(staging: Path, opened: Descriptors, done: Callable[[int], None]) -> Filled:
            def sink(step: PullStep, offset: int, data: memoryview) -> None:
                for number, move in targets[step.content.digest]:
                    with opened.use(number) as descriptor:
                        _write_part(descriptor, move, offset, data)

            steps = [pull_step(self._manifest.contents, digest, {}) for digest in targets]
            self._decoder.run(steps, sink, done=done)
            self._copy_others(staging, source.others)
            checks = Checks(plan, source, threads=threads)
            for tensor in source.tensors:
                for piece in tensor.pieces:
                    checks.take(tensor, piece, source.files[piece.file].name)
            for places in places_by_tensor(plan).values():
                checks.settle(places, opened)
            windowed = sum(move.size for moves in targets.values() for _, move in moves)
            return Filled(windowed, checks.digests)

        return fill

    def _copy_others(self, staging: Path, others: Mapping[str, Path | None]) -> None:
        for name in sorted(others):
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            entry = self._files[name]
            places: dict[str, list[int]] = {}
            begin = 0
            for digest in entry.parts:
                places.setdefault(digest, []).append(begin)
                begin += self._manifest.contents[digest].size
            with path.open("xb") as file:
                descriptor = file.fileno()

                def sink(
                    step: PullStep,
                    offset: int,
                    data: memoryview,
                    places: Mapping[str, list[int]] = places,
                    descriptor: int = descriptor,
                ) -> None:
                    for place in places[step.content.digest]:
                        write_exactly(descriptor, data, place + offset)

                self._decoder.run([pull_step(self._manifest.contents, digest, {}) for digest in places], sink)
                os.fsync(descriptor)

    def _architecture(self) -> Architecture:
        entry = self._files.get(CONFIG_NAME)
        return Architecture() if entry is None else parse_architecture(self._small_file(entry))

    def _small_file(self, entry: FileEntry) -> bytes:
        if entry.size > _MAX_SMALL_FILE_BYTES:
            raise CorruptDataError(f"{entry.path!r} has {entry.size} bytes, which such a file never has")
        return b"".join(self._read(digest) for digest in entry.parts)

    def _read(self, digest: str) -> bytes:
        content = self._manifest.contents[digest]
        if content.size > _MAX_SMALL_FILE_BYTES:
            raise CorruptDataError(f"content {digest} is no header: it has {content.size} bytes")
        data = bytearray(content.size)

        def sink(step: PullStep, offset: int, part: memoryview) -> None:
            data[offset : offset + len(part)] = part

        if content.size:
            self._decoder.run([pull_step(self._manifest.contents, digest, {})], sink)
        return bytes(data)


def _check_digests(
    record: ShardRecord | None, path: str, header: bytes, found: Sequence[tuple[TensorInfo, str]]
) -> None:
    """Contents are named by the digests of their bytes: nothing is read for this."""
    if record is None:
        return
    known = record.expected(path, header, [info.name for info, _ in found], path)
    for info, digest in found:
        if known.get(info.name, digest) != digest:
            raise damaged(path, info.name)


def _of_ranks(
    record: ShardRecord,
    pieces: Mapping[str, Sequence[tuple[TensorInfo, str, Piece]]],
    files: Sequence[SourceFile],
) -> list[ShardTensor]:
    """The tensors of the whole model; what ranks hold of each has to be as the record says, and copies the same."""
    paths = [path for path, _ in record.files]
    tensors: list[ShardTensor] = []
    known = {entry.name for entry in record.tensors}
    left = next((name for name in pieces if name not in known), None)
    if left is not None:
        raise CorruptDataError(f"{RECORD_NAME} does not speak of tensor {left!r}")
    for entry in record.tensors:
        there = {path: (info, piece) for info, path, piece in pieces.get(entry.name, ())}
        found: list[Piece] = []
        digests: dict[Portion | None, str] = {}
        for part in entry.parts:
            info, piece = there.pop(paths[part.file], (None, None))
            shape = entry.shape if part.portion is None else part.portion.shape(entry.shape)
            if info is None or piece is None or (info.dtype, info.shape) != (entry.dtype, shape):
                raise CorruptDataError(
                    f"{paths[part.file]!r} does not hold tensor {entry.name!r} as {RECORD_NAME} says: "
                    f"{entry.dtype} {list(shape)}"
                )
            digest = files[piece.file].name
            if digests.setdefault(part.portion, digest) != digest:
                raise CorruptDataError(
                    f"ranks hold different bytes of tensor {entry.name!r}",
                    hint="One of the ranks is of another model: make the ranks again, and push them.",
                )
            found.append(Piece(piece.file, 0, part.portion))
        if there:
            raise CorruptDataError(f"{RECORD_NAME} does not speak of all parts of tensor {entry.name!r}")
        tensors.append(ShardTensor(entry.name, entry.dtype, entry.shape, tuple(found)))
    return tensors


def _write_part(descriptor: int, move: Move, offset: int, data: memoryview) -> None:
    """Writes what a window of a content has of a move."""
    if move.rows == 1:
        low = max(move.base, offset)
        high = min(move.base + move.run, offset + len(data))
        if low < high:
            write_exactly(descriptor, data[low - offset : high - offset], move.out_base + low - move.base)
        return
    cut = Cut((), move.base + move.at, move.run, move.stride, move.rows)
    for at, view in cut.within(offset, np.frombuffer(data, np.uint8)):
        row, inside = divmod(at, move.run)
        begin = move.out_base + row * move.out_stride + move.out_at + inside
        if move.out_stride == move.run:
            write_exactly(descriptor, np.ascontiguousarray(view).reshape(-1).data, begin)
            continue
        for number, run in enumerate(view):
            write_exactly(descriptor, run.data, begin + number * move.out_stride)
