"""Explains the difference of two models on disk that need no repository."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from textnlp_fast.contents.inventory import READ_BYTES, digest_of_range, layout_dtype, scan_model
from textnlp_fast.contents.windows import (
    BufferPool,
    OpenFiles,
    Piece,
    Progress,
    ProgressCallback,
    plan_units,
    run_in_order,
)
from textnlp_fast.delta import codec
from textnlp_fast.delta.measure import NOTHING, Sums
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.compare import unique_name
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.explain import Change, Explanation, Side, is_comparable, pair_up
from textnlp_fast.storage.tally import Tally
from textnlp_fast.tensors import TensorInfo

__all__ = ["ENCODE_BYTES", "explain_files"]

#: Bytes of tensors that are coded to learn what they would take; of larger models, frames spread evenly.
ENCODE_BYTES: Final = 1 << 30
_FRAME: Final = codec.DEFAULT_FRAME_SIZE_BYTES
_WINDOW_BYTES: Final = 8 * _FRAME
_STRATEGIES: Final = {
    "same": "delta",
    "delta": "delta",
    "sparse": "sparse",
    "learned": "sparse",
    "difference": "delta",
    "planes": "alone",
    "raw": "raw",
}


def explain_files(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    options: TransferOptions | None = None,
    *,
    with_rank: bool = True,
    encode_bytes: int = ENCODE_BYTES,
    progress: ProgressCallback | None = None,
) -> Explanation:
    """What changed from one model to another: safetensors files or directories of such.

    Bytes are what the codec takes for each tensor that changed, against its older self. At most `encode_bytes` of
    tensors, and a frame of each, are coded to find out; where that leaves something out the figure is an estimate.
    Raises InvalidInputError and its kinds for what cannot be read.
    """
    options = options or TransferOptions()
    with OpenFiles() as files:
        before, after = _Model(old), _Model(new)
        buffers = BufferPool(READ_BYTES)
        digests: dict[tuple[bool, str], str] = {}

        def digest_of(side: Side, newer: bool) -> str:
            if (newer, side.name) not in digests:
                place = (after if newer else before).places[side.name]
                digests[newer, side.name] = digest_of_range(
                    files, place.location, place.tensor.begin, side.size, buffers
                )
            return digests[newer, side.name]

        changes = pair_up(before.sides, after.sides, digest_of)
        work = [number for number, change in enumerate(changes) if change.new and change.status != "renamed"]
        jobs = [_Job.of(changes[number], before, after) for number in work]
        walk = _Walk(files, jobs, options, with_rank, encode_bytes)
        walk.run(progress)
    for step, number in enumerate(work):
        changes[number] = walk.finished(step, changes[number])
    return Explanation(old=_shown(old), new=_shown(new), bytes_of="codec", changes=tuple(changes))


def _shown(path: str | os.PathLike[str]) -> str:
    return Path(path).name or str(path)


@dataclass(frozen=True, slots=True)
class _Place:
    location: str
    tensor: TensorInfo


class _Model:
    """The tensors of a model on disk by name; where two files have the same name, the file's path tells them apart."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.sides: dict[str, Side] = {}
        self.places: dict[str, _Place] = {}
        for file in scan_model(path).safetensors:
            for tensor in file.tensors:
                name = unique_name(tensor.name, file.name, self.sides)
                self.sides[name] = Side(name, tensor.dtype, tensor.shape, tensor.size_bytes)
                self.places[name] = _Place(str(file.path), tensor)
        if not self.sides:
            raise InvalidInputError(
                f"{os.fspath(path)} holds no tensors", hint="Give a .safetensors file or a folder of such."
            )


@dataclass(frozen=True, slots=True)
class _Job:
    """A tensor of the newer model, and the older one's where their elements correspond."""

    side: Side
    new: _Place
    old: _Place | None

    @classmethod
    def of(cls, change: Change, before: _Model, after: _Model) -> _Job:
        name = change.side.name
        old = before.places[name] if is_comparable(change) else None
        return cls(change.side, after.places[name], old)


@dataclass(frozen=True, slots=True)
class _Coded:
    """What coding a part of a tensor gave: bytes before and after, and decoded bytes by frame mode."""

    sums: Sums
    taken: int
    stored: int
    modes: Counter[str]


class _Walk:
    """Reads jobs window by window, measures them, and codes as many frames as the budget allows."""

    def __init__(
        self,
        files: OpenFiles,
        jobs: Sequence[_Job],
        options: TransferOptions,
        with_rank: bool,
        encode_bytes: int,
    ) -> None:
        self._files = files
        self._jobs = jobs
        self._tally = Tally([job.side for job in jobs], with_rank=with_rank)
        self._window_bytes = _WINDOW_BYTES
        self._budget_bytes = options.memory_budget_bytes - self._tally.reserved_bytes
        threads = options.thread_count
        # Two windows, room to code one, and what it was coded to.
        self._unit_cost = 4 * self._window_bytes
        self._workers = max(1, min(threads, self._budget_bytes // self._unit_cost, 16))
        self._threads_each = -(-threads // self._workers)
        self._buffers = BufferPool(self._window_bytes)
        total = sum(job.side.size for job in jobs)
        self._share = min(1.0, encode_bytes / total) if total else 1.0
        self._taken = [0] * len(jobs)
        self._stored = [0] * len(jobs)
        self._modes: list[Counter[str]] = [Counter() for _ in jobs]

    def run(self, progress: ProgressCallback | None) -> None:
        sizes = [job.side.size for job in self._jobs]
        done = 0
        units = run_in_order(
            self._walk_unit,
            plan_units(sizes, self._window_bytes),
            workers=self._workers,
            cost=self._cost,
            budget_bytes=self._budget_bytes,
        )
        for unit in units:
            for piece, coded in unit:
                if self._jobs[piece.step].old is not None:
                    self._tally.take(piece.step, piece.length, coded.sums)
                self._taken[piece.step] += coded.taken
                self._stored[piece.step] += coded.stored
                self._modes[piece.step] += coded.modes
                done += piece.length
            if progress is not None:
                progress(Progress("diff", done, sum(sizes)))

    def finished(self, step: int, change: Change) -> Change:
        """The change with all that was found out about it."""
        sums = self._tally.sums[step]
        if sums is not None and not sums.changed:
            status = "same" if change.status == "changed" else change.status
            return replace(change, status=status, sums=Sums(elements=change.side.elements))
        size, taken = change.side.size, self._taken[step]
        mode = self._modes[step].most_common(1)
        return replace(
            change,
            sums=sums,
            rank=self._tally.ranks[step],
            stored_bytes=round(self._stored[step] * size / taken) if taken else 0,
            estimated=taken < size,
            strategy=_STRATEGIES[mode[0][0]] if mode else None,
        )

    def _cost(self, unit: tuple[Piece, ...]) -> int:
        return self._unit_cost + sum(self._tally.kept_bytes(piece.step, piece.length) for piece in unit)

    def _walk_unit(self, unit: tuple[Piece, ...]) -> list[tuple[Piece, _Coded]]:
        with self._buffers.borrow() as old, self._buffers.borrow() as new:
            return [
                (piece, self._walk_piece(piece, old[: piece.length], new[: piece.length])) for piece in unit
            ]

    def _walk_piece(self, piece: Piece, old: memoryview, new: memoryview) -> _Coded:
        job = self._jobs[piece.step]
        self._files.read(job.new.location, new, job.new.tensor.begin + piece.offset)
        base, sums = None, NOTHING
        if job.old is not None:
            self._files.read(job.old.location, old, job.old.tensor.begin + piece.offset)
            sums = self._tally.measure(piece.step, piece.offset, old, new, self._threads_each)
            base = old
        taken = stored = 0
        modes: Counter[str] = Counter()
        for start, stop in self._stretches(piece):
            payload = codec.encode(
                new[start:stop],
                base[start:stop] if base is not None else None,
                dtype=layout_dtype(job.side.dtype),
                threads=self._threads_each,
            )
            taken += stop - start
            stored += len(payload)
            for frame in codec.frames(payload):
                modes[frame.mode] += frame.decoded_bytes
        return _Coded(sums, taken, stored, modes)

    def _stretches(self, piece: Piece) -> list[tuple[int, int]]:
        """What to code of a window: all of it, or some of its frames, the tensor's first among them."""
        if self._share == 1.0:
            return [(0, piece.length)] if piece.length else []
        first = piece.offset // _FRAME
        return [
            (start, min(start + _FRAME, piece.length))
            for number, start in enumerate(range(0, piece.length, _FRAME), first)
            if not number or int((number + 1) * self._share) > int(number * self._share)
        ]
