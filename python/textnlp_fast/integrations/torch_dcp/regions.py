"""Pieces of tensors as boxes, and where the bytes of one box lie in those of others. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from textnlp_fast.delta.recipe import Piece, Pieces, Recipe, Whole

__all__ = ["Box", "Stored", "base_of", "is_covered"]

# What is cut in more runs is stored by itself: each takes a line of the manifest.
_MOST_RUNS: Final = 1 << 12


@dataclass(frozen=True, slots=True)
class Box:
    """Places `offsets` to `offsets + sizes` of a tensor, along each of its axes; both count elements."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """All of a tensor."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def volume(self) -> int:
        """Elements."""
        return math.prod(self.sizes)

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one place to the next along each axis, in the box's own row-major order."""
        return tuple(math.prod(self.sizes[axis + 1 :]) for axis in range(len(self.sizes)))

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether it lies inside a tensor of that shape."""
        return len(self.offsets) == len(self.sizes) == len(shape) and all(
            offset >= 0 and size >= 0 and offset + size <= length
            for offset, size, length in zip(self.offsets, self.sizes, shape, strict=True)
        )

    def common(self, other: Box) -> Box | None:
        """What both have; None if they have no element in common."""
        begins = [max(pair) for pair in zip(self.offsets, other.offsets, strict=True)]
        ends = [
            min(a + m, b + n)
            for a, m, b, n in zip(self.offsets, self.sizes, other.offsets, other.sizes, strict=True)
        ]
        if any(begin >= end for begin, end in zip(begins, ends, strict=True)):
            return None
        return Box(tuple(begins), tuple(end - begin for begin, end in zip(begins, ends, strict=True)))


@dataclass(frozen=True, slots=True)
class Stored:
    """A piece of a tensor that a version has, as content `digest`: its elements in row-major order."""

    box: Box
    digest: str


def is_covered(shape: Sequence[int], boxes: Iterable[Box]) -> bool:
    """Whether the boxes, all inside the shape, have each element exactly once."""
    filled = [box for box in boxes if box.volume]
    if sum(box.volume for box in filled) != math.prod(shape):
        return False
    # Boxes of one volume with the whole that do not overlap leave nothing out.
    axis = max(range(len(shape)), key=lambda each: shape[each], default=None)
    if axis is None:
        return len(filled) == 1
    active: list[Box] = []
    for box in sorted(filled, key=lambda each: each.offsets[axis]):
        active = [other for other in active if other.offsets[axis] + other.sizes[axis] > box.offsets[axis]]
        if any(box.common(other) is not None for other in active):
            return False
        active.append(box)
    return True


def base_of(box: Box, stored: Sequence[Stored], element_bytes: int) -> Recipe | None:
    """How to make a box of a tensor out of the pieces that a version has of it; None if they do not have all of it,
    or only in very many small runs.
    """
    size = box.volume * element_bytes
    if not size:
        return None
    same = next((piece for piece in stored if piece.box == box), None)
    if same is not None:
        return Whole(same.digest, size)
    runs: list[tuple[int, str, int, int]] = []
    for piece in stored:
        shared = box.common(piece.box)
        if shared is None:
            continue
        found = _runs(box, piece.box, shared)
        if found is None or len(runs) + len(found) > _MOST_RUNS:
            return None
        runs += [(place, piece.digest, begin, length) for place, begin, length in found]
    pieces: list[Piece] = []
    filled = 0
    for place, digest, begin, length in sorted(runs):
        if place != filled:
            return None
        filled += length
        offset, count = begin * element_bytes, length * element_bytes
        last = pieces[-1] if pieces else None
        if last is not None and last.digest == digest and last.offset + last.length == offset:
            pieces[-1] = Piece(digest, last.offset, last.length + count)
        else:
            pieces.append(Piece(digest, offset, count))
    return Pieces(tuple(pieces)) if filled == box.volume else None


def _runs(box: Box, other: Box, shared: Box) -> list[tuple[int, int, int]] | None:
    """The longest runs of elements that follow each other in both boxes: (place in `box`, in `other`, length).

    None if there are too many.
    """
    axes = len(box.sizes)
    if not axes:
        return [(0, 0, 1)]
    first = axes - 1
    while first and shared.sizes[first] == box.sizes[first] == other.sizes[first]:
        first -= 1
    length = math.prod(shared.sizes[first:])
    count = math.prod(shared.sizes[:first])
    if count > _MOST_RUNS:
        return None
    grid = np.zeros((1, 0), np.int64)
    if first:
        grid = np.stack(np.unravel_index(np.arange(count), shared.sizes[:first]), axis=1)
    places = []
    for one in (box, other):
        strides = one.strides
        begin = sum((shared.offsets[axis] - one.offsets[axis]) * strides[axis] for axis in range(first + 1))
        places.append(begin + grid @ np.array(strides[:first], dtype=np.int64))
    return [(int(place), int(begin), length) for place, begin in zip(*places, strict=True)]
