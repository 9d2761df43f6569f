"""Codes the steps of a patch window by window, on a few threads and within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from textnlp_fast.contents.windows import (
    MAX_PIECES,
    BufferPool,
    OpenFiles,
    Piece,
    Progress,
    ProgressCallback,
    plan_units,
    run_in_order,
)
from textnlp_fast.contents.working import workers_for
from textnlp_fast.delta import codec
from textnlp_fast.delta.patch import Stored
from textnlp_fast.delta.patch_file import PatchWriter
from textnlp_fast.delta.planning import LEAST_FRAME_BYTES, Bases, Step
from textnlp_fast.delta.recipe import LowRank, SignScale

__all__ = ["Coder"]

# A window in flight: itself, its base, what a recipe makes the base from, its coded form.
_BUFFERS: Final = 4


class Coder:
    """Codes steps on a few threads and hands the windows, in order, to the writer."""

    def __init__(
        self,
        files: OpenFiles,
        bases: Bases,
        window_bytes: int,
        memory_budget_bytes: int,
        threads: int,
    ) -> None:
        self._steps: Sequence[Step] = ()
        self._files = files
        self._bases = bases
        self._window_bytes = window_bytes
        self._budget_bytes = memory_budget_bytes
        self._unit_bytes = _BUFFERS * window_bytes
        self.workers = workers_for(self._unit_bytes, memory_budget_bytes, threads)
        self._threads_each = -(-threads // self.workers)
        self._buffers = BufferPool(window_bytes)
        # Frames are at least this large, so no bound is larger.
        bound = codec.encode_bound(window_bytes, frame_size_bytes=LEAST_FRAME_BYTES)
        self._coded = BufferPool(bound + MAX_PIECES * codec.encode_bound(1))

    def run(
        self, steps: Sequence[Step], writer: PatchWriter, progress: ProgressCallback | None
    ) -> dict[str, Stored]:
        """Codes everything; raises the first error once all threads have stopped."""
        self._steps = steps
        sizes = [step.part.size for step in self._steps]
        total, done = sum(sizes), 0
        extents: list[list[tuple[int, int]]] = [[] for _ in self._steps]
        needs_base = [False] * len(self._steps)
        coded_units = run_in_order(
            self._code_unit,
            plan_units(sizes, self._window_bytes),
            workers=self.workers,
            cost=lambda _: self._unit_bytes,
            budget_bytes=self._budget_bytes,
        )
        for unit, buffer, lengths in coded_units:
            offset = 0
            for piece, length in zip(unit, lengths, strict=True):
                payload = memoryview(buffer)[offset : offset + length]
                offset += length
                if length:
                    extents[piece.step].append(writer.add(payload))
                    needs_base[piece.step] |= codec.scan(payload).needs_base
            self._coded.give_back(buffer)
            done += sum(piece.length for piece in unit)
            if progress is not None:
                progress(Progress("create", done, total))
        # Factors are in the payload already, so what names them keeps naming them.
        needs_base = [
            needed or isinstance(step.base, LowRank | SignScale)
            for step, needed in zip(self._steps, needs_base, strict=True)
        ]
        return {
            step.part.digest: Stored(
                step.part.digest, step.part.size, step.part.dtype, step.base if needed else None, tuple(rows)
            )
            for step, rows, needed in zip(self._steps, extents, needs_base, strict=True)
        }

    def _code_unit(self, unit: tuple[Piece, ...]) -> tuple[tuple[Piece, ...], bytearray, list[int]]:
        buffer = self._coded.take()
        lengths: list[int] = []
        used = 0
        with self._buffers.borrow() as target, self._buffers.borrow() as base, memoryview(buffer) as out:
            for piece in unit:
                lengths.append(
                    self._code_piece(piece, target[: piece.length], base[: piece.length], out[used:])
                )
                used += lengths[-1]
        return unit, buffer, lengths

    def _code_piece(self, piece: Piece, target: memoryview, base: memoryview, out: memoryview) -> int:
        if piece.length == 0:
            return 0
        step = self._steps[piece.step]
        self._files.read(step.location, target, step.part.offset + piece.offset)
        if step.base is not None:
            self._bases.read_into(step.base, piece.offset, base)
        against = base if step.base is not None else None
        return codec.encode_into(
            target,
            out,
            against,
            dtype=step.part.coded_as,
            frame_size_bytes=step.frame_bytes,
            threads=self._threads_each,
        )
