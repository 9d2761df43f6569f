"""Parts of tensors, as the ranks of tensor parallelism hold them, and which bytes they are."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.tensors.format import DTYPE_BITS

__all__ = ["Cut", "Run", "Slice", "cut_of", "slice_for"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Slice:
    """What rank number ``rank`` of ``degree`` holds of a tensor that is dealt out along axis ``dim``."""

    dim: int
    rank: int
    degree: int

    def __post_init__(self) -> None:
        if self.degree < 1 or not 0 <= self.rank < self.degree:
            raise InvalidInputError(
                f"rank {self.rank} of {self.degree}", hint="Ranks are counted from 0, up to degree - 1."
            )


@dataclass(frozen=True, slots=True)
class Run:
    """``size`` neighbouring bytes: at ``begin`` of the tensor, at ``out`` of the part."""

    begin: int
    out: int
    size: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a tensor: ``count`` runs of ``run_bytes`` each, ``stride_bytes`` apart, the first at byte ``begin``."""

    shape: tuple[int, ...]
    begin: int
    run_bytes: int
    stride_bytes: int
    count: int

    @property
    def size_bytes(self) -> int:
        return self.run_bytes * self.count

    def runs(self) -> Iterator[Run]:
        """All of it, in order."""
        for number in range(self.count if self.run_bytes else 0):
            yield Run(self.begin + number * self.stride_bytes, number * self.run_bytes, self.run_bytes)

    def take(self, offset: int, data: Bytes, out: Bytes) -> None:
        """Copies what ``data``, the tensor's bytes from ``offset`` on, has of the part to its place in ``out``."""
        for at, part in self.within(offset, data):
            out[at : at + part.size].reshape(part.shape)[:] = part

    def within(self, offset: int, data: Bytes) -> Iterator[tuple[int, Bytes]]:
        """What ``data``, the tensor's bytes from ``offset`` on, has of the part: in views of it, whole runs together.

        Yields the byte of the part that each view starts at, and the view, of shape (runs, bytes).
        """
        end = offset + data.size
        if not self.run_bytes or not self.count:
            return
        number = max(0, (offset - self.begin) // self.stride_bytes) if offset > self.begin else 0
        while number < self.count:
            begin = self.begin + number * self.stride_bytes
            if begin >= end:
                return
            low, high = max(begin, offset), min(begin + self.run_bytes, end)
            if low < high:
                whole = 1
                if high - low == self.run_bytes:
                    whole = min(self.count - number, 1 + (end - begin - self.run_bytes) // self.stride_bytes)
                view = np.lib.stride_tricks.as_strided(
                    data[low - offset :], (whole, high - low), (self.stride_bytes, 1)
                )
                yield number * self.run_bytes + low - begin, view
                number += whole
            else:
                number += 1


def cut_of(name: str, shape: Sequence[int], dtype: str, wanted: Slice | None) -> Cut:
    """The bytes of a slice of a tensor, or of all of it.

    Raises InvalidInputError if it has no such axis, its size is not a multiple of the degree, or elements share bytes.
    """
    bits = DTYPE_BITS[dtype]
    if wanted is None:
        size = math.prod(shape) * bits // 8
        return Cut(tuple(shape), 0, size, size, 1)
    if not -len(shape) <= wanted.dim < len(shape):
        raise InvalidInputError(f"tensor {name!r} of shape {tuple(shape)} has no axis {wanted.dim}")
    dim = wanted.dim % len(shape)
    if shape[dim] % wanted.degree:
        raise InvalidInputError(
            f"tensor {name!r}: {shape[dim]} along axis {dim} are not dealt out evenly to {wanted.degree} ranks",
            hint="Load it whole (leave it out of slices), and cut it as your engine does.",
        )
    if bits % 8:
        raise InvalidInputError(
            f"tensor {name!r} of {dtype} has several elements a byte: it is not cut",
            hint="Load it whole (leave it out of slices).",
        )
    each = shape[dim] // wanted.degree
    inner = math.prod(shape[dim + 1 :]) * bits // 8
    count = math.prod(shape[:dim])
    return Cut(
        (*shape[:dim], each, *shape[dim + 1 :]),
        wanted.rank * each * inner,
        each * inner,
        shape[dim] * inner,
        count,
    )


def slice_for(name: str, slices: Mapping[str, Slice | tuple[int, int, int]]) -> Slice | None:
    """The slice of a tensor: under its name, else under the first pattern (``*.q_proj.weight``) that fits."""
    found = slices.get(name)
    if found is None:
        found = next(
            (wanted for pattern, wanted in slices.items() if fnmatch.fnmatchcase(name, pattern)), None
        )
    if found is None or isinstance(found, Slice):
        return found
    if len(found) != 3 or not all(isinstance(each, int) for each in found):
        raise InvalidInputError(
            f"the slice of tensor {name!r} is {found!r}",
            hint="Pass Slice(dim, rank, degree), or such a tuple.",
        )
    return Slice(*found)
