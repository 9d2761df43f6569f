"""Adds up what windows of tensors tell, and finishes each tensor when its last window is in."""

from __future__ import annotations

from collections.abc import Sequence

from textnlp_fast.delta.measure import Sums, measure, merge
from textnlp_fast.delta.rank import MATRIX_BYTES, ChangeMatrix, Rank
from textnlp_fast.storage.explain import Side

__all__ = ["Tally"]


class Tally:
    """Sums and effective ranks of several tensors at a time.

    `measure` is called by any thread; `take` by one, in order, so that sums come out the same whatever the threads did.
    """

    def __init__(self, sides: Sequence[Side], *, with_rank: bool) -> None:
        self._sides = sides
        self._matrices = [ChangeMatrix.of(side.shape, side.dtype) if with_rank else None for side in sides]
        self._left = [side.size for side in sides]
        #: What a matrix may take whose windows are in and gone, and the search for its rank.
        self.reserved_bytes = MATRIX_BYTES * 3 // 2 if any(self._matrices) else 0
        self.sums: list[Sums | None] = [None] * len(sides)
        self.ranks: list[Rank | None] = [None] * len(sides)

    def kept_bytes(self, step: int, length: int) -> int:
        """Memory that a window of `length` bytes fills with its part of a matrix."""
        matrix = self._matrices[step]
        return min(matrix.size_bytes, 4 * length) if matrix is not None else 0

    def measure(self, step: int, offset: int, old: memoryview, new: memoryview, threads: int) -> Sums:
        """Measures the window of tensor number `step` that begins at byte `offset`."""
        sums = measure(old, new, dtype=self._sides[step].dtype, threads=threads)
        matrix = self._matrices[step]
        if matrix is not None and sums.changed:
            matrix.add(offset, old, new)
        return sums

    def take(self, step: int, length: int, sums: Sums) -> None:
        """Adds a window's sums; with the last one of a tensor that changed, finds its rank."""
        before = self.sums[step]
        self.sums[step] = merged = sums if before is None else merge(before, sums)
        self._left[step] -= length
        matrix = self._matrices[step]
        if not self._left[step] and matrix is not None:
            self.ranks[step] = matrix.rank() if merged.changed else None
            self._matrices[step] = None
