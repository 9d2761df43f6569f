"""Recipes that move bytes and change none: whole contents, pieces of contents, matrices turned round."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, Final

from textnlp_fast.delta.bases import MAX_SIZE, Held, Recipe, Stretch, checked_count, checked_digest, taken

__all__ = ["MAX_PIECES", "Piece", "Pieces", "Whole"]

MAX_PIECES: Final = 1 << 20


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
