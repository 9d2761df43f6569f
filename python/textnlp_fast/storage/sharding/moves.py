"""Which bytes go where: a tensor's pieces in the source against its portion in a file of the result. Pure.

A tensor that is divided along an axis is, for this, a table: a row for each place of the axes before that one, and
in each row the bytes of the places along it. Ranks hold columns of that table; so all that sharding, merging and
resharding do is to copy columns between tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.sharding.model import FilePlan, Piece, Placement, ShardTensor
from textnlp_fast.tensors import DTYPE_BITS

__all__ = ["Move", "moves_of_file", "moves_of_places"]


@dataclass(frozen=True, slots=True)
class Move:
    """`rows` runs of `run` bytes each, from a table in file number `source` to one in the result.

    A table begins at byte `base` of its file and has rows of `stride` bytes; the runs begin `at` bytes behind the
    begin of a row. One run of a table without stride is a plain range.
    """

    source: int
    base: int
    at: int
    stride: int
    out_base: int
    out_at: int
    out_stride: int
    run: int
    rows: int

    @property
    def size(self) -> int:
        return self.run * self.rows


def moves_of_file(file: FilePlan) -> list[Move]:
    """All moves that fill a file behind its header, in the order of its bytes; neighbours are one.

    Raises InvalidInputError where the source has not all of a tensor.
    """
    places: list[tuple[Placement, int]] = []
    position = len(file.header)
    for placement in file.placements:
        places.append((placement, position))
        position += placement.size_bytes
    return moves_of_places(places)


def moves_of_places(places: Iterable[tuple[Placement, int]]) -> list[Move]:
    """The moves that fill some places of a file, each where it begins, in their order; errors as above."""
    moves: list[Move] = []
    for placement, position in places:
        for move in _moves(placement, position):
            last = moves[-1] if moves else None
            if last is not None and _follows(last, move):
                moves[-1] = Move(last.source, last.base, 0, 0, last.out_base, 0, 0, last.run + move.run, 1)
            else:
                moves.append(move)
    return moves


def _follows(last: Move, move: Move) -> bool:
    return (
        last.rows == 1
        and move.rows == 1
        and last.source == move.source
        and last.base + last.run == move.base
        and last.out_base + last.run == move.out_base
    )


def _moves(placement: Placement, out_base: int) -> Iterator[Move]:
    tensor, portion = placement.tensor, placement.portion
    if not placement.size_bytes:
        return
    whole = next((piece for piece in tensor.pieces if piece.portion is None), None)
    if portion is None and whole is not None:
        yield Move(whole.file, whole.begin, 0, 0, out_base, 0, 0, tensor.size_bytes, 1)
        return
    dim = _axis(placement)
    if DTYPE_BITS[tensor.dtype] % 8:
        raise InvalidInputError(
            f"tensor {tensor.name!r} of {tensor.dtype} has several elements a byte: it is not cut"
        )
    rows = math.prod(tensor.shape[:dim])
    inner = math.prod(tensor.shape[dim + 1 :]) * DTYPE_BITS[tensor.dtype] // 8
    ranges = ((0, tensor.shape[dim]),) if portion is None else portion.ranges
    out_stride = sum(end - begin for begin, end in ranges) * inner
    out_at = 0
    for wanted in ranges:
        for piece, at, length in _found(tensor, dim, wanted):
            run = length * inner
            stride = _length(piece, tensor.shape[dim]) * inner
            if rows == 1:
                yield Move(piece.file, piece.begin + at * inner, 0, 0, out_base + out_at, 0, 0, run, 1)
            else:
                yield Move(
                    piece.file, piece.begin, at * inner, stride, out_base, out_at, out_stride, run, rows
                )
            out_at += run


def _axis(placement: Placement) -> int:
    """The axis that is divided. Pieces and portion are of one, or there is no way by ranges."""
    dims = {piece.portion.dim for piece in placement.tensor.pieces if piece.portion is not None}
    if placement.portion is not None:
        dims.add(placement.portion.dim)
    if len(dims) != 1:
        raise InvalidInputError(
            f"tensor {placement.tensor.name!r} is divided along axis {sorted(dims)[0]} and is wanted along another",
            hint="Merge the ranks first, and shard what comes out.",
        )
    return dims.pop()


def _found(tensor: ShardTensor, dim: int, wanted: tuple[int, int]) -> Iterator[tuple[Piece, int, int]]:
    """The pieces that hold the places `wanted`, in order: each with the place in it where they begin, and how many."""
    place, end = wanted
    while place < end:
        best: tuple[Piece, int, int] | None = None
        for piece in tensor.pieces:
            at = 0
            for low, high in _ranges(piece, tensor.shape[dim]):
                if low <= place < high:
                    length = min(high, end) - place
                    if best is None or length > best[2]:
                        best = piece, at + place - low, length
                at += high - low
        if best is None:
            raise InvalidInputError(
                f"no rank holds place {place} along axis {dim} of tensor {tensor.name!r}",
                hint="All directories of all ranks are needed.",
            )
        yield best
        place += best[2]


def _ranges(piece: Piece, size: int) -> Sequence[tuple[int, int]]:
    return ((0, size),) if piece.portion is None else piece.portion.ranges


def _length(piece: Piece, size: int) -> int:
    return size if piece.portion is None else piece.portion.length
