"""Makes the files of a patch's target in a folder: parallel over windows, within a budget, every digest checked."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from textnlp_fast.contents.entries import content_names
from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import (
    DATA_ERRORS,
    BufferPool,
    DigestCheck,
    OpenFiles,
    Piece,
    Progress,
    ProgressCallback,
    plan_units,
    run_in_order,
    with_context,
    write_exactly,
)
from textnlp_fast.contents.working import workers_for
from textnlp_fast.delta.low_rank_tiles import ROOM_BYTES as LOW_RANK_ROOM_BYTES
from textnlp_fast.delta.making import Coded, Maker
from textnlp_fast.delta.patch_file import PatchFile
from textnlp_fast.delta.recipe import LowRank, Whole

__all__ = ["Work", "make_first", "room_bytes"]

# A window in flight: itself, its payload, and what a recipe makes its base from.
_BUFFERS: Final = 4
_DAMAGED: Final = "Nothing was changed. Fetch the patch again, or make it again from its two models."


@dataclass(frozen=True, slots=True)
class _Made:
    """A content to make, and where it goes: (descriptor, offset) each."""

    digest: str
    size: int
    places: tuple[tuple[int, int], ...]


class Work:
    """What applying a patch makes: all files of the target but those in `kept`."""

    def __init__(
        self,
        patch_file: PatchFile,
        held: dict[str, Held],
        kept: frozenset[str],
        *,
        memory_budget_bytes: int,
        threads: int,
    ) -> None:
        self._file = patch_file
        self.patch = patch_file.patch
        self._held = held
        self._entries = [entry for entry in self.patch.target.files if entry.path not in kept]
        self._first = make_first(
            self.patch.contents, (digest for entry in self._entries for digest in entry.parts)
        )
        window = self.patch.window_bytes
        self._budget_bytes = memory_budget_bytes
        self._unit_bytes = _BUFFERS * window + room_bytes(self.patch.contents)
        self._workers = workers_for(self._unit_bytes, memory_budget_bytes, threads)
        self._threads_each = -(-threads // self._workers)
        self._buffers = BufferPool(window)
        self._names = content_names(self.patch.target.files)
        self._done = 0
        self._total = 0

    @property
    def write_bytes(self) -> int:
        """Bytes that `run` writes."""
        scratch = {digest for level in self._first for digest in level} - self.patch.target.parts().keys()
        return sum(entry.size for entry in self._entries) + sum(map(self.patch.size_of, scratch))

    def run(self, made: Path, scratch: Path, progress: ProgressCallback | None) -> None:
        """Makes the files below `made`, synced; the file `scratch` takes contents that only others are made of.

        Raises CorruptDataError or UnsupportedFormatError for what the patch makes of its payload.
        """
        descriptors: list[int] = []
        places: dict[str, list[tuple[int, int]]] = {}
        located: dict[str, Held] = {}

        def create(path: Path, size: int) -> int:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptors.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            os.truncate(descriptors[-1], size)
            return descriptors[-1]

        try:
            for entry in self._entries:
                descriptor, offset = create(made / entry.path, entry.size), 0
                for digest in entry.parts:
                    places.setdefault(digest, []).append((descriptor, offset))
                    located.setdefault(digest, Held(str(made / entry.path), offset))
                    offset += self.patch.size_of(digest)
            offset = 0
            descriptor = create(scratch, 0)
            for digest in (digest for level in self._first for digest in level):
                if digest not in places:
                    places[digest] = [(descriptor, offset)]
                    located[digest] = Held(str(scratch), offset)
                    offset += self.patch.size_of(digest)
            self._make_all(places, located, progress)
            for descriptor in descriptors:
                os.fsync(descriptor)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _make_all(
        self,
        places: dict[str, list[tuple[int, int]]],
        located: dict[str, Held],
        progress: ProgressCallback | None,
    ) -> None:
        early = {digest for level in self._first for digest in level}
        self._total = sum(map(self.patch.size_of, places))
        with OpenFiles() as files:
            maker = Maker(self._file, files, dict(self._held), threads=self._threads_each)
            for level in self._first:
                self._make(maker, level, places, progress)
                maker.places.update((digest, located[digest]) for digest in level)
            self._make(maker, [digest for digest in places if digest not in early], places, progress)

    def _make(
        self,
        maker: Maker,
        digests: Sequence[str],
        places: dict[str, list[tuple[int, int]]],
        progress: ProgressCallback | None,
    ) -> None:
        steps = [_Made(digest, self.patch.size_of(digest), tuple(places[digest])) for digest in digests]
        check = DigestCheck(self.patch.window_bytes, self._threads_each)

        def make_unit(unit: tuple[Piece, ...]) -> int:
            try:
                with self._buffers.borrow() as buffer:
                    for piece in unit:
                        self._make_piece(maker, check, steps[piece.step], piece, buffer[: piece.length])
            except BaseException:
                for piece in unit:
                    check.fail(piece.step)
                raise
            return sum(piece.length for piece in unit)

        units = run_in_order(
            make_unit,
            plan_units([step.size for step in steps], self.patch.window_bytes),
            workers=self._workers,
            cost=lambda _: self._unit_bytes,
            budget_bytes=self._budget_bytes,
        )
        for size in units:
            self._done += size
            if progress is not None:
                progress(Progress("apply", self._done, self._total))

    def _make_piece(
        self, maker: Maker, check: DigestCheck, step: _Made, piece: Piece, out: memoryview
    ) -> None:
        try:
            maker.read_into(step.digest, piece.offset, out)
            check.update(piece.step, step, piece.window, out)
        except DATA_ERRORS as error:
            name = self._names.get(step.digest, f"content {step.digest}")
            raise with_context(error, name, hint=_DAMAGED) from error
        for descriptor, offset in step.places:
            write_exactly(descriptor, out, offset + piece.offset)


def room_bytes(contents: Mapping[str, Coded]) -> int:
    """What the recipes of contents take besides windows."""
    found = any(isinstance(stored.base, LowRank) for stored in contents.values())
    return LOW_RANK_ROOM_BYTES if found else 0


def make_first(
    contents: Mapping[str, Coded], wanted: Iterable[str], held: Container[str] = ()
) -> list[list[str]]:
    """Stored contents that recipes of others read here and there, in groups that need only earlier groups.

    Made once and kept in a file, they cost no more than their size, whatever the recipes ask for. Chains of whole
    contents need none of this: they are decoded window by window. Nor do those that are `held` already.
    """
    levels: dict[str, int] = {}

    def below(digest: str) -> list[str]:
        base = contents[digest].base
        return [] if base is None else [name for name in base.source_sizes() if made(name)]

    def made(digest: str) -> bool:
        return digest in contents and digest not in held

    # A content's height is one more than that of what it needs to be in a file.
    heights: dict[str, int] = {}
    for root in wanted:
        stack = [root] if made(root) else []
        while stack:
            digest = stack[-1]
            waiting = [name for name in below(digest) if name not in heights]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            in_files = not isinstance(contents[digest].base, Whole)
            height = 0
            for name in below(digest):
                if in_files:
                    levels[name] = heights[name]
                height = max(height, heights[name] + in_files)
            heights[digest] = height
    groups: list[list[str]] = [[] for _ in range(1 + max(levels.values(), default=-1))]
    for digest, level in levels.items():
        groups[level].append(digest)
    return groups
