"""Tensors made of others: fused and split projections, stacked and separate experts, columns side by side.

All of these are one thing in memory. A whole is `groups` times the same sequence of parts, of each its next stretch:

    groups = 1                      parts one after the other: concatenated rows, stacked experts
    groups = heads (or key groups)  query, key and value interleaved by heads
    groups = rows                   parts side by side, or row by row in turn
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.bases import Recipe
from textnlp_fast.delta.moved import Piece, Pieces
from textnlp_fast.delta.probing import (
    HEAD,
    Block,
    Prober,
    Score,
    Tensor,
    directions,
    nearest,
    score,
    stretches,
)
from textnlp_fast.delta.woven import Strand, Woven

__all__ = ["Layout", "Parts", "find_layout", "natural", "pieces_of"]

# Of heads, unrelated pairs correlate by 0.125 (one sigma); samples check what heads suggest.
_LEAST_HEAD: Final = 0.55
_SURE_HEAD: Final = 0.9
_MOST_PARTS: Final = 1 << 16
_MOST_GROUPS: Final = 64

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a whole is made of parts, and what a delta against it would cost."""

    whole: Tensor
    parts: tuple[Block, ...]
    groups: int
    score: Score

    def whole_from_parts(self) -> Recipe:
        if self.groups == 1:
            return pieces_of(
                [Piece(part.tensor.digest, part.offset_bytes, part.size_bytes) for part in self.parts]
            )
        steps = [part.size_bytes // self.groups for part in self.parts]
        return Woven(
            self.groups,
            tuple(
                Strand(part.tensor.digest, part.offset_bytes, step, step)
                for part, step in zip(self.parts, steps, strict=True)
            ),
        )

    def part_from_whole(self, number: int) -> Recipe:
        steps = [part.size_bytes // self.groups for part in self.parts]
        before = sum(steps[:number])
        if self.groups == 1:
            return Pieces((Piece(self.whole.digest, before, steps[number]),))
        return Woven(self.groups, (Strand(self.whole.digest, before, steps[number], sum(steps)),))


def natural(name: str) -> list[tuple[int, str]]:
    """A key that puts layer 10 behind layer 9."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", name) if word]


def pieces_of(pieces: Sequence[Piece]) -> Pieces:
    """A recipe of these pieces, those joined that follow each other in a content."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            last
            and last.digest == piece.digest
            and (piece.digest is None or last.offset + last.length == piece.offset)
        ):
            joined[-1] = Piece(last.digest, last.offset, last.length + piece.length)
        else:
            joined.append(piece)
    return Pieces(tuple(joined))


class Parts:
    """Blocks of one dtype that wholes may be made of, in the natural order of their names, found by their heads."""

    def __init__(self, blocks: Sequence[Block], prober: Prober) -> None:
        blocks = [block for block in blocks if block.elements >= HEAD]
        self.blocks = sorted(blocks, key=lambda block: (natural(block.tensor.name), block.begin))[
            :_MOST_PARTS
        ]
        self._prober = prober
        self._heads: Array | None = None
        self._tails: Array | None = None
        self._sizes = np.array([block.elements for block in self.blocks])

    def begin_like(self, wholes: Sequence[Tensor]) -> list[list[int]]:
        """For each of these tensors the parts that begin like it and are smaller, best first.

        All at once: most tensors are made of nothing here, and that should cost little.
        """
        smallest = int(self._sizes.min()) if self.blocks else 0
        large = [place for place, whole in enumerate(wholes) if self.blocks and whole.elements > smallest]
        found: list[list[int]] = [[] for _ in wholes]
        if large:
            bits = [
                (self._prober.head(Block(wholes[place], 0, HEAD)), wholes[place].dtype) for place in large
            ]
            likely = nearest(directions(bits), self._all_heads(), least=_LEAST_HEAD, most=8)
            for place, line in zip(large, likely, strict=True):
                found[place] = [one for one in line if self._sizes[one] < wholes[place].elements]
        return found

    def _all_heads(self) -> Array:
        if self._heads is None:
            self._heads = directions([(self._prober.head(one), one.tensor.dtype) for one in self.blocks])
        return self._heads

    def at_head(self, bits: Array, dtype: str, *, most_elements: int, hints: Sequence[int] = ()) -> list[int]:
        """Parts that begin like these bits, best first; a hint that surely does is all the answer."""
        if not self.blocks:
            return []
        heads, line = self._all_heads(), directions([(bits, dtype)])[0]
        for hint in hints:
            known = hint < len(self.blocks) and self._sizes[hint] <= most_elements
            if known and float(heads[hint] @ line) >= _SURE_HEAD:
                return [hint]
        return self._best(heads @ line, most_elements)

    def run(self, whole: Tensor, place: int, number: int) -> int:
        """How many parts behind this one, all of its size, surely follow in the whole from this place on.

        Experts stand in stacks in the order of their names, nearly always: they are looked at many at a time.
        """
        size, found, ask = int(self._sizes[number]), 0, 2
        while True:
            least = min(ask, len(self.blocks) - number - 1 - found, (whole.elements - place) // size - found)
            following = slice(number + 1 + found, number + 1 + found + max(least, 0))
            if least < 1 or (self._sizes[following] != size).any():
                return found
            places = [(place + (found + one) * size, HEAD) for one in range(least)]
            lines = directions(
                [(bits, whole.dtype) for bits in self._prober.take(whole, 0, places).reshape(least, HEAD)]
            )
            agree = np.einsum("ij,ij->i", lines, self._all_heads()[following]) >= _SURE_HEAD
            if not agree.all():
                return found + int(np.argmin(agree))
            found, ask = found + least, 2 * ask

    def at_tail(self, bits: Array, dtype: str, *, most_elements: int) -> list[int]:
        """Parts that end like these bits, best first."""
        if not self.blocks:
            return []
        if self._tails is None:
            self._tails = directions([(self._prober.tail(one), one.tensor.dtype) for one in self.blocks])
        return self._best(self._tails @ directions([(bits, dtype)])[0], most_elements)

    def _best(self, products: Array, most_elements: int) -> list[int]:
        products = np.where(self._sizes <= most_elements, products, -1)
        best = np.flatnonzero(products >= _LEAST_HEAD)
        return [int(number) for number in best[np.argsort(-products[best], kind="stable")][:3]]


def find_layout(whole: Tensor, first: Sequence[int], parts: Parts, prober: Prober) -> Layout | None:
    """The way to make ``whole`` of two or more of ``parts``, if samples say that there is one.

    ``first`` are the parts that it may begin with, from :meth:`Parts.begin_like`.
    """
    if whole.elements < 2 * HEAD or not first:
        return None
    tried = []
    for groups in dict.fromkeys((1, whole.shape[0] if len(whole.shape) > 1 else 1)):
        chosen = _cover(whole, groups, first, parts, prober)
        if chosen:
            tried.append((chosen, groups))
    if not tried:
        tried = [
            (chosen, groups)
            for chosen in _ends_and_middle(whole, first, parts, prober)
            for groups in _groups(chosen)
        ]
    layouts = [
        Layout(whole, chosen, groups, graded)
        for (chosen, groups), graded in zip(tried, _grades(whole, tried, prober), strict=True)
        if graded.match
    ]
    return min(layouts, key=lambda layout: layout.score.bits, default=None)


def _cover(
    whole: Tensor, groups: int, first: Sequence[int], parts: Parts, prober: Prober
) -> tuple[Block, ...]:
    """Parts that fill the whole's first group one after the other, each found where the one before it ends."""
    if whole.elements % groups:
        return ()
    length, place = whole.elements // groups, 0
    chosen: list[int] = []
    while place < length:
        if length - place < HEAD:
            return ()
        found = first
        if chosen:
            bits = prober.take(whole, 0, ((place, HEAD),))
            hints = [number + 1 for number in chosen[-4:]]
            room = (length - place) * groups
            found = parts.at_head(bits, whole.dtype, most_elements=room, hints=hints)
        fitting = next((number for number in found if _fits(parts.blocks[number], groups)), None)
        if fitting is None:
            return ()
        chosen.append(fitting)
        step = parts.blocks[fitting].elements // groups
        place += step
        if groups == 1:
            run = parts.run(whole, place, fitting)
            chosen += range(fitting + 1, fitting + 1 + run)
            place += run * step
    return tuple(parts.blocks[number] for number in chosen) if len(chosen) > 1 else ()


def _fits(part: Block, groups: int) -> bool:
    """Whether a part's stretches are whole rows of it, and long enough to be told apart."""
    if groups == 1:
        return True
    whole_rows = part.whole and part.tensor.shape[0] % groups == 0 and part.elements % groups == 0
    return whole_rows and part.elements // groups >= HEAD


def _ends_and_middle(
    whole: Tensor, first: Sequence[int], parts: Parts, prober: Prober
) -> Iterator[tuple[Block, ...]]:
    """Two or three parts of which the first begins and the last ends like the whole, whatever lies between.

    What heads and tails cannot tell, the middle one of three, is the part of the right size whose name is nearest.
    """
    room = whole.elements
    last = parts.at_tail(prober.take(whole, 0, ((room - HEAD, HEAD),)), whole.dtype, most_elements=room)
    for head in (parts.blocks[number] for number in first[:3]):
        for tail in (parts.blocks[number] for number in last):
            rest = room - head.elements - tail.elements
            if head is tail or not (head.whole and tail.whole):
                continue
            if rest == 0:
                yield head, tail
            middle = [
                block
                for block in parts.blocks
                if block.elements == rest and block.whole and block is not head and block is not tail
            ]
            middle.sort(key=lambda block: -_common_prefix(block.tensor.name, head.tensor.name))
            for block in middle[:4]:
                yield head, block, tail


def _common_prefix(first: str, second: str) -> int:
    return next(
        (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )


def _groups(parts: Sequence[Block]) -> list[int]:
    """The numbers of groups that leave whole rows."""
    rows = math.gcd(*(part.tensor.shape[0] for part in parts))
    small = [number for number in range(1, math.isqrt(rows) + 1) if rows % number == 0]
    both = {*small, *(rows // number for number in small)}
    whole = sorted(number for number in both if all(part.elements % number == 0 for part in parts))
    return whole[: _MOST_GROUPS - 1] + whole[_MOST_GROUPS - 1 :][-1:]


def _grades(whole: Tensor, tried: Sequence[tuple[tuple[Block, ...], int]], prober: Prober) -> list[Score]:
    """What a delta of the whole to each way of making it would cost."""
    places = stretches(whole.elements)
    bits = prober.sample(Block(whole, 0, whole.elements))
    return score([(bits, _fused(parts, groups, places, prober)) for parts, groups in tried], whole.dtype)


def _fused(parts: tuple[Block, ...], groups: int, places: Sequence[tuple[int, int]], prober: Prober) -> Array:
    """The elements at these places of a whole made of parts."""
    ends = list(accumulate(part.elements // groups for part in parts))
    taken = []
    for begin, count in places:
        place, stop = begin, begin + count
        while place < stop:
            group, inside = divmod(place, ends[-1])
            number = next(number for number, end in enumerate(ends) if inside < end)
            part, step = parts[number], parts[number].elements // groups
            offset = inside - (ends[number] - step)
            length = min(stop - place, step - offset)
            taken.append(prober.take(part.tensor, part.begin, ((group * step + offset, length),)))
            place += length
    return np.concatenate(taken)
