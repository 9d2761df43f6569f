"""Tensors whose rows are another's at other places: a vocabulary that grew, heads in the other rotary order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from textnlp_fast.delta.bases import Recipe
from textnlp_fast.delta.fusing import pieces_of
from textnlp_fast.delta.moved import Piece
from textnlp_fast.delta.probing import HEAD, Block, Prober, Score, Tensor, score, stretches
from textnlp_fast.delta.woven import Strand, Woven

__all__ = ["find_grown", "find_rotated"]

#: Rows of a head in models that rotate queries and keys.
_HEAD_ROWS: Final = (64, 128, 80, 96, 32, 256, 192, 48, 16)

Answer = tuple[Recipe, str, Score]


def find_grown(source: Tensor, target: Tensor, prober: Prober) -> Iterator[Answer]:
    """Rows were added or dropped at the end, or at the begin: a vocabulary that grew or was padded.

    The tensors agree in dtype and in all dimensions but the first.
    """
    if source.shape[0] == target.shape[0]:
        return
    common = min(source.elements, target.elements)
    if common < HEAD:
        return
    more = target.shape[0] - source.shape[0]
    for at_end in (True, False):
        ours = Block(target, 0 if at_end else target.elements - common, common)
        theirs = Block(source, 0 if at_end else source.elements - common, common)
        (graded,) = score([(prober.sample(ours), prober.sample(theirs))], target.dtype)
        if not graded.match:
            continue
        kept = Piece(source.digest, theirs.offset_bytes, theirs.size_bytes)
        rest = target.size_bytes - kept.length
        new = [Piece(None, 0, rest)] if rest else []
        recipe = pieces_of([kept, *new] if at_end else [*new, kept])
        where = "end" if at_end else "begin"
        yield (
            recipe,
            f"{source.name} with {abs(more)} rows {'more' if more > 0 else 'fewer'} at the {where}",
            graded,
        )
        return


def find_rotated(source: Tensor, target: Tensor, prober: Prober) -> Iterator[Answer]:
    """Rows of each head, pairs next to each other in one of the tensors, halves apart in the other.

    Implementations of rotary embeddings differ in which rows of a head they turn together, and conversions between
    them reorder query and key projections.
    """
    if source.shape != target.shape or len(target.shape) != 2:
        return
    rows = target.shape[0]
    width = target.elements // rows
    if width % 32:  # so that no stretch of a sample runs over a row's end
        return
    tried = []
    for head_rows in _HEAD_ROWS:
        if rows % head_rows == 0:
            pairs = np.arange(head_rows).reshape(head_rows // 2, 2).T.reshape(-1)
            halves = np.arange(head_rows).reshape(2, head_rows // 2).T.reshape(-1)
            tried += [(head_rows, pairs), (head_rows, halves)]
    if not tried:
        return
    places = stretches(target.elements)
    ours = prober.sample(Block(target, 0, target.elements))
    samples = []
    for head_rows, order in tried:
        moved = []
        for begin, count in places:
            head, row = divmod(begin // width, head_rows)
            moved.append(((head * head_rows + int(order[row])) * width + begin % width, count))
        samples.append((ours, prober.take(source, 0, moved)))
    grades = score(samples, target.dtype)
    best = min(range(len(tried)), key=lambda number: grades[number].bits)
    if grades[best].match:
        head_rows, order = tried[best]
        step = target.size_bytes // rows
        strands = tuple(Strand(source.digest, int(row) * step, step, head_rows * step) for row in order)
        recipe = Woven(rows // head_rows, strands)
        yield (
            recipe,
            f"{source.name}, rows of each head of {head_rows} in the other rotary order",
            grades[best],
        )
