"""Recipes that take stretches of contents in turn: interleaved heads, columns side by side, rows in another order."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, Final

import numpy as np

from textnlp_fast.delta.bases import MAX_SIZE, Held, Recipe, Stretch, checked_count, checked_digest, taken

__all__ = ["MAX_STRANDS", "Strand", "Woven"]

MAX_STRANDS: Final = 1 << 16

# Of a source whose stretches lie apart, this much is in memory at a time.
_STRIP_BYTES: Final = 1 << 20
# Reading over this much is cheaper than asking once more.
_GAP_BYTES: Final = 1 << 13


@dataclass(frozen=True, slots=True)
class Strand:
    """``length`` bytes of a content in each group: at ``offset``, in every later group ``stride`` further on.

    Zeros where ``digest`` is None; ``offset`` and ``stride`` are 0 then. A stride of 0 repeats the bytes.
    """

    digest: str | None
    offset: int
    length: int
    stride: int

    def __post_init__(self) -> None:
        most = 0
        if self.digest is not None:
            checked_digest(self.digest)
            most = MAX_SIZE
        checked_count(self.offset, "an offset", least=0, most=most)
        checked_count(self.length, "a length")
        checked_count(self.stride, "a stride", least=0, most=most)


@dataclass(frozen=True, slots=True)
class Woven(Recipe):
    """``groups`` times: a stretch of each strand, one after the other."""

    groups: int
    strands: tuple[Strand, ...]
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)

    takes_parts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checked_count(self.groups, "the number of groups")
        checked_count(len(self.strands), "the number of strands", most=MAX_STRANDS)
        object.__setattr__(self, "_ends", tuple(accumulate(strand.length for strand in self.strands)))
        checked_count(self.size_bytes, "the size")
        for size in self.source_sizes().values():
            checked_count(size, "the size of a source")

    @property
    def size_bytes(self) -> int:
        return self.groups * self._ends[-1]

    def to_json(self) -> dict[str, Any]:
        rows = [[one.digest, one.offset, one.length, one.stride] for one in self.strands]
        return {"weave": [self.groups, rows]}

    def source_sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for one in self.strands:
            if one.digest is not None:
                end = one.offset + (self.groups - 1) * one.stride + one.length
                sizes[one.digest] = max(sizes.get(one.digest, 0), end)
        return sizes

    def sources(self, begin: int = 0, end: int | None = None) -> tuple[Stretch, ...]:
        end = self.size_bytes if end is None else end
        self._check_window(begin, end)
        if begin == end:
            return ()
        first, last = begin // self._ends[-1], (end - 1) // self._ends[-1]
        if first == last:
            parts = self._parts(begin, end)
            return tuple(Stretch(digest, at, at + size) for digest, at, size in parts if digest is not None)
        return tuple(
            Stretch(one.digest, one.offset + first * one.stride, one.offset + last * one.stride + one.length)
            for one in self.strands
            if one.digest is not None
        )

    def _parts(self, begin: int, end: int) -> list[tuple[str | None, int, int]]:
        """(digest, offset, length) of what a window inside one group is made of."""
        group, place = divmod(begin, self._ends[-1])
        stop = place + end - begin
        number = bisect_right(self._ends, place)
        parts = []
        while place < stop:
            one = self.strands[number]
            inside = place - (self._ends[number] - one.length)
            length = min(stop, self._ends[number]) - place
            parts.append((one.digest, one.offset + group * one.stride + inside, length))
            place += length
            number += 1
        return parts

    def _fill(self, begin: int, out: memoryview, held: Held) -> None:
        period, position = self._ends[-1], 0
        while position < len(out):
            group, inside = divmod(begin + position, period)
            whole = 0 if inside else (len(out) - position) // period
            if whole:
                self._fill_groups(group, whole, out[position : position + whole * period], held)
                position += whole * period
                continue
            stop = min(len(out), position + period - inside)
            for digest, offset, length in self._parts(begin + position, begin + stop):
                data = bytes(length) if digest is None else taken(held, digest, offset, offset + length)
                out[position : position + length] = data
                position += length

    def _fill_groups(self, group: int, count: int, out: memoryview, held: Held) -> None:
        matrix = np.frombuffer(out, np.uint8).reshape(count, -1)
        for one, end in zip(self.strands, self._ends, strict=True):
            columns = matrix[:, end - one.length : end]
            if one.digest is None:
                columns[:] = 0
                continue
            if one.stride == 0:
                columns[:] = np.frombuffer(
                    taken(held, one.digest, one.offset, one.offset + one.length), np.uint8
                )
                continue
            # A strip holds what lies between its stretches too, unless that is more than asking again costs.
            apart = one.stride - one.length > _GAP_BYTES
            strip = 1 if apart else max(1, _STRIP_BYTES // one.stride)
            for done in range(0, count, strip):
                rows = min(strip, count - done)
                begin = one.offset + (group + done) * one.stride
                data = taken(held, one.digest, begin, begin + (rows - 1) * one.stride + one.length)
                columns[done : done + rows] = np.lib.stride_tricks.as_strided(
                    np.frombuffer(data, np.uint8), (rows, one.length), (one.stride, 1), writeable=False
                )
