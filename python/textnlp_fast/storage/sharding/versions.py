"""Versions in a repository as what is sharded: decoded window by window, straight into the files of a plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from textnlp_fast.contents.entries import FileEntry, content_names
from textnlp_fast.contents.windows import write_exactly
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.planning import PullStep, pull_step
from textnlp_fast.storage.repository import Repository
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
from textnlp_fast.storage.sharding.record import RECORD_NAME, read_record
from textnlp_fast.storage.sharding.sources import (
    CONFIG_NAME,
    check_names,
    in_order,
    matching_originals,
    weights_of,
)
from textnlp_fast.storage.sharding.writing import Fill
from textnlp_fast.tensors import parse_header
from textnlp_fast.tensors.architecture import Architecture, parse_architecture
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
        """What planners see. Its pieces are numbered by tensor: each is a file of its own, so to speak."""
        entries = [entry for entry in self._manifest.files if entry.kind == "safetensors"]
        record = None
        if RECORD_NAME in self._files:
            record = read_record(self._small_file(self._files[RECORD_NAME]))
        by_rank = {} if record is None else {path: number for number, (path, _) in enumerate(record.files)}
        ranked = record is not None and bool(record.tensors)
        weights = set(by_rank) if ranked else weights_of([entry.path for entry in entries])
        files: list[SourceFile] = []
        found: dict[str, list[Piece]] = {}
        kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
        originals: list[Original] = []
        metadata: dict[str, str] = {}
        parts = {
            (entry.name, part.file): part.portion
            for entry in (record.tensors if record is not None else ())
            for part in entry.parts
        }
        for entry in entries:
            if entry.path not in weights:
                continue
            header_bytes = self._read(entry.parts[0])
            header = parse_header(header_bytes, entry.size)
            originals.append(Original(entry.path, entry.size, header_bytes))
            metadata.update({key: value for key, value in header.metadata.items() if key not in metadata})
            digests = dict(zip(entry.names, entry.parts[1:], strict=True))
            for info in header.tensors:
                if info.name not in digests:
                    raise CorruptDataError(
                        f"the manifest does not name tensor {info.name!r} of {entry.path!r}"
                    )
                portion = None
                if ranked:
                    if (info.name, by_rank[entry.path]) not in parts:
                        raise CorruptDataError(f"{RECORD_NAME} does not speak of tensor {info.name!r}")
                    portion = parts[info.name, by_rank[entry.path]]
                elif info.name in found:
                    check_names([ShardTensor(info.name, "", (), ())] * 2, str(self))
                found.setdefault(info.name, []).append(Piece(len(files), 0, portion))
                kinds[info.name] = info.dtype, info.shape
                files.append(SourceFile(digests[info.name], info.size_bytes))
        if ranked and record is not None:
            kinds = {entry.name: (entry.dtype, entry.shape) for entry in record.tensors}
        tensors = tuple(ShardTensor(name, *kinds[name], tuple(pieces)) for name, pieces in found.items())
        others = {
            path: None
            for path in self._files
            if path not in weights
            and path not in {INDEX_NAME, RECORD_NAME}
            and not (ranked and path.startswith("rank-") and path.endswith(f"/{INDEX_NAME}"))
        }
        made_from, index = matching_originals(record, tensors)
        if not made_from and not ranked:
            made_from = tuple(originals)
            index = self._small_file(self._files[INDEX_NAME]) if INDEX_NAME in self._files else None
        return ShardSource(
            str(self),
            tuple(files),
            in_order(tensors, made_from),
            made_from,
            others,
            {"format": "pt", **metadata},
            index,
            self._architecture(),
        )

    def __str__(self) -> str:
        return f"{self._manifest.model}@{self._manifest.version}"

    def fill(self, source: ShardSource, plan: ShardPlan) -> Fill:
        """Fills a plan's files with what is decoded, each content once; every one of them is verified."""
        targets: dict[str, list[tuple[int, Move]]] = {}
        for number, file in enumerate(plan.files):
            for move in moves_of_file(file):
                targets.setdefault(source.files[move.source].name, []).append((number, move))

        def fill(staging: Path, opened: Descriptors, done: Callable[[int], None]) -> int:
            def sink(step: PullStep, offset: int, data: memoryview) -> None:
                for number, move in targets[step.content.digest]:
                    with opened.use(number) as descriptor:
                        _write_part(descriptor, move, offset, data)

            steps = [pull_step(self._manifest.contents, digest, {}) for digest in targets]
            self._decoder.run(steps, sink, done=done)
            self._copy_others(staging, source.others)
            return sum(move.size for moves in targets.values() for _, move in moves)

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
