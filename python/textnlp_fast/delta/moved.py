"""Recipes that move bytes and change none: whole contents, pieces of contents, matrices turned round."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.bases import (
    MAX_SIZE,
    WORDS,
    Held,
    Recipe,
    Stretch,
    checked_count,
    checked_digest,
    taken,
)
from textnlp_fast.errors import InvalidInputError

__all__ = ["MAX_PIECES", "Piece", "Pieces", "Transposed", "Whole"]

MAX_PIECES: Final = 1 << 20

# Of a source that is turned, this much is in memory at a time.
_STRIP_BYTES: Final = 1 << 20
# Reading over this much is cheaper than asking once more.
_GAP_BYTES: Final = 1 << 13


@dataclass(frozen=True, slots=True)
class Whole(Recipe):
    """The bytes of a content of the same size."""

    digest: str
    size_bytes: int

    def __post_init__(self) -> None:
        checked_digest(self.digest)
        checked_count(self.size_bytes, "the size", least=0)

    def to_json(self) -> str:
        return self.digest

    def source_sizes(self) -> dict[str, int]:
        return {self.digest: self.size_bytes}

    def sources(self, begin: int = 0, end: int | None = None) -> tuple[Stretch, ...]:
        end = self.size_bytes if end is None else end
        self._check_window(begin, end)
        return (Stretch(self.digest, begin, end),) if begin < end else ()

    def _fill(self, begin: int, out: memoryview, held: Held) -> None:
        out[:] = taken(held, self.digest, begin, begin + len(out))


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes at ``offset`` of a content; zeros where ``digest`` is None (``offset`` is then 0)."""

    digest: str | None
    offset: int
    length: int

    def __post_init__(self) -> None:
        if self.digest is not None:
            checked_digest(self.digest)
        checked_count(self.offset, "an offset", least=0, most=MAX_SIZE if self.digest is not None else 0)
        checked_count(self.length, "a length")


@dataclass(frozen=True, slots=True)
class Pieces(Recipe):
    """Stretches of contents and zeros, one after the other: split, fused, grown, permuted, reshaped."""

    takes_parts: ClassVar[bool] = True

    pieces: tuple[Piece, ...]
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_count(len(self.pieces), "the number of pieces", most=MAX_PIECES)
        object.__setattr__(self, "_ends", tuple(accumulate(piece.length for piece in self.pieces)))
        checked_count(self._ends[-1], "the size", most=MAX_SIZE)

    @property
    def size_bytes(self) -> int:
        return self._ends[-1]

    def to_json(self) -> dict[str, Any]:
        return {"pieces": [[piece.digest, piece.offset, piece.length] for piece in self.pieces]}

    def source_sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for piece in self.pieces:
            if piece.digest is not None:
                sizes[piece.digest] = max(sizes.get(piece.digest, 0), piece.offset + piece.length)
        return sizes

    def sources(self, begin: int = 0, end: int | None = None) -> tuple[Stretch, ...]:
        end = self.size_bytes if end is None else end
        self._check_window(begin, end)
        found: list[Stretch] = []
        for digest, offset, length in self._parts(begin, end):
            if digest is None:
                continue
            if found and found[-1].digest == digest and found[-1].end == offset:
                found[-1] = Stretch(digest, found[-1].begin, offset + length)
            else:
                found.append(Stretch(digest, offset, offset + length))
        return tuple(found)

    def _parts(self, begin: int, end: int) -> list[tuple[str | None, int, int]]:
        """(digest, offset, length) of the pieces' parts inside the window."""
        parts = []
        number = bisect_right(self._ends, begin)
        while begin < end:
            piece, stop = self.pieces[number], self._ends[number]
            inside = begin - (stop - piece.length)
            length = min(end, stop) - begin
            parts.append((piece.digest, piece.offset + inside if piece.digest is not None else 0, length))
            begin += length
            number += 1
        return parts

    def _fill(self, begin: int, out: memoryview, held: Held) -> None:
        position = 0
        for digest, offset, length in self._parts(begin, begin + len(out)):
            if digest is None:
                out[position : position + length] = bytes(length)
            else:
                out[position : position + length] = taken(held, digest, offset, offset + length)
            position += length


@dataclass(frozen=True, slots=True)
class Transposed(Recipe):
    """A content of ``rows`` times ``columns`` elements, turned: element (i, j) is the content's (j, i)."""

    digest: str
    rows: int
    columns: int
    element_bytes: int

    def __post_init__(self) -> None:
        checked_digest(self.digest)
        checked_count(self.rows, "the number of rows")
        checked_count(self.columns, "the number of columns")
        if type(self.element_bytes) is not int or self.element_bytes not in WORDS:
            raise InvalidInputError("elements of a recipe have 1, 2, 4 or 8 bytes")
        checked_count(self.size_bytes, "the size")

    @property
    def size_bytes(self) -> int:
        return self.rows * self.columns * self.element_bytes

    def to_json(self) -> dict[str, Any]:
        return {"transpose": [self.digest, self.rows, self.columns, self.element_bytes]}

    def source_sizes(self) -> dict[str, int]:
        return {self.digest: self.size_bytes}

    def sources(self, begin: int = 0, end: int | None = None) -> tuple[Stretch, ...]:
        end = self.size_bytes if end is None else end
        self._check_window(begin, end)
        if begin == end:
            return ()
        column_bytes = self.rows * self.element_bytes
        first, last = begin // column_bytes, (end - 1) // column_bytes
        top, bottom = 0, self.rows - 1
        if first == last:
            top = begin % column_bytes // self.element_bytes
            bottom = (end - 1) % column_bytes // self.element_bytes
        return (Stretch(self.digest, self._place(top, first), self._place(bottom, last + 1)),)

    def _place(self, row: int, column: int) -> int:
        """Where an element begins in the content."""
        return (row * self.columns + column) * self.element_bytes

    def _fill(self, begin: int, out: memoryview, held: Held) -> None:
        step = self.element_bytes
        first, last = begin // step, -(-(begin + len(out)) // step)
        turned = np.empty(last - first, WORDS[step]) if len(out) % step or begin % step else None
        elements = np.frombuffer(out, WORDS[step]) if turned is None else turned
        position = first
        while position < last:
            column, row = divmod(position, self.rows)
            # Columns cut off at an end of the window are done alone, so that no more than the window is read.
            whole = (last - position) // self.rows if row == 0 else 0
            count = whole * self.rows if whole else min(self.rows - row, last - position)
            part = elements[position - first : position - first + count]
            self._turn(column, row, part.reshape(max(whole, 1), -1), held)
            position += count
        if turned is not None:
            inside = begin - first * step
            out[:] = turned.tobytes()[inside : inside + len(out)]

    def _turn(self, column: int, row: int, out: npt.NDArray[Any], held: Held) -> None:
        """Fill ``out`` (columns, rows) from the content's elements whose first is (row, column)."""
        columns, rows = out.shape
        row_bytes, used_bytes = self.columns * self.element_bytes, columns * self.element_bytes
        if row_bytes - used_bytes > _GAP_BYTES:
            self._turn_row_by_row(column, row, out, held)
            return
        strip = max(1, _STRIP_BYTES // row_bytes)
        for done in range(0, rows, strip):
            count = min(strip, rows - done)
            begin = self._place(row + done, column)
            data = taken(held, self.digest, begin, begin + (count - 1) * row_bytes + used_bytes)
            flat = np.frombuffer(data, out.dtype)
            matrix = np.lib.stride_tricks.as_strided(
                flat, (columns, count), (self.element_bytes, row_bytes), writeable=False
            )
            out[:, done : done + count] = matrix

    def _turn_row_by_row(self, column: int, row: int, out: npt.NDArray[Any], held: Held) -> None:
        """The same where rows are long and few of their elements are wanted."""
        columns, rows = out.shape
        used_bytes = columns * self.element_bytes
        strip = min(rows, max(1, _STRIP_BYTES // used_bytes))
        buffer = np.empty((strip, columns), out.dtype)
        for done in range(0, rows, strip):
            count = min(strip, rows - done)
            for line in range(count):
                begin = self._place(row + done + line, column)
                buffer[line] = np.frombuffer(taken(held, self.digest, begin, begin + used_bytes), out.dtype)
            out[:, done : done + count] = buffer[:count].T
