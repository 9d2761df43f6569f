"""A window of a low-rank recipe in bounded memory: tile by tile, so that never all of a factor is there.

A's columns do not know of each other, nor do B's rows. A tile of the result needs some columns of A and some rows of B
and is a small low-rank matrix of its own; sums run over the whole rank, so the bits are the same however it is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta import low_rank
from textnlp_fast.delta.bases import Held, taken

if TYPE_CHECKING:
    from textnlp_fast.delta.computed import LowRank

__all__ = ["ROOM_BYTES", "fill_low_rank"]

# Elements of A and of B at a time: with the ranks of adapters, all of A. The largest rank leaves 32 columns and 8 rows.
_A_ELEMENTS: Final = 1 << 21
_B_ELEMENTS: Final = 1 << 19
# Elements of the result that are copied to lie together, where a tile has only some columns.
_TILE_ELEMENTS: Final = 1 << 19
_READ_BYTES: Final = 1 << 20

ROOM_BYTES: Final = 8 * (_A_ELEMENTS + _B_ELEMENTS) + 4 * _TILE_ELEMENTS + 2 * _READ_BYTES
"""Most memory that `fill_low_rank` takes: a tile of both factors, as they are stored and as fp32, and of the result."""


def fill_low_rank(recipe: LowRank, first: int, values: npt.NDArray[Any], held: Held) -> None:
    """Elements of the recipe's result from `first` on, as many as `values` has.

    `held` is asked for stretches of at most 1 MiB. Errors are those of `held` and of `taken`.
    """
    # The base first: prediction works in place.
    _copy(held, recipe.digest, first * values.itemsize, values.view(np.uint8).data)
    last = first + len(values)
    row_bytes = recipe.rank * low_rank.FACTOR_DTYPES[recipe.b_type]
    for left, right in _columns_used(recipe, first, last):
        a = _columns_of_a(recipe, left, right, held)
        for top, bottom in _bands(recipe, first, last, right - left):
            b = bytearray((bottom - top) * row_bytes)
            with memoryview(b) as view:
                _copy(held, recipe.b, top * row_bytes, view)
            factors = low_rank.Factors(
                bottom - top,
                right - left,
                recipe.rank,
                recipe.scale,
                a,
                b,
                recipe.a_type,
                recipe.b_type,
                recipe.rounding,
            )
            _predict(recipe, factors, (top, bottom), (left, right), first, values)


def _predict(
    recipe: LowRank,
    factors: low_rank.Factors,
    rows: tuple[int, int],
    columns: tuple[int, int],
    first: int,
    values: npt.NDArray[Any],
) -> None:
    """Adds the change to the part of `values`, which begin at element `first`, that lies in these rows and columns."""
    width = columns[1] - columns[0]
    begin = max(rows[0] * recipe.columns + columns[0], first)
    end = min((rows[1] - 1) * recipe.columns + columns[1], first + len(values))
    if begin >= end:
        return
    start = begin - rows[0] * recipe.columns - columns[0]
    if width == recipe.columns or rows[1] - rows[0] == 1:  # what lies together stays in place
        stretch = values[begin - first : end - first].view(np.uint8)
        low_rank.predict_into(stretch, stretch, factors, dtype=recipe.dtype, first_element=start, threads=1)
        return
    origin = rows[0] * recipe.columns - first
    matrix = values[origin : origin + (rows[1] - rows[0]) * recipe.columns].reshape(-1, recipe.columns)
    tile = np.ascontiguousarray(matrix[:, columns[0] : columns[1]])
    flat = tile.reshape(-1).view(np.uint8)
    low_rank.predict_into(flat, flat, factors, dtype=recipe.dtype, threads=1)
    matrix[:, columns[0] : columns[1]] = tile


def _columns_used(recipe: LowRank, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The columns that elements [first, last) lie in, in stretches that A has room for."""
    width = max(1, _A_ELEMENTS // recipe.rank)
    begin, end = first % recipe.columns, (last - 1) % recipe.columns + 1
    if last - first >= recipe.columns or width >= recipe.columns:
        used = [(0, recipe.columns)]
    elif begin < end:
        used = [(begin, end)]
    else:  # the end of a row and the beginning of the next
        used = [(0, end), (begin, recipe.columns)]
    for low, high in used:
        for left in range(low, high, width):
            yield left, min(left + width, high)


def _bands(recipe: LowRank, first: int, last: int, width: int) -> Iterator[tuple[int, int]]:
    """Rows of elements [first, last) in stretches that B has room for.

    Where tiles have only some of the columns, rows that are cut stand alone.
    """
    top, bottom = first // recipe.columns, -(-last // recipe.columns)
    most = max(1, _B_ELEMENTS // recipe.rank)
    if width == recipe.columns:
        starts = [*range(top, bottom, most), bottom]
        yield from pairwise(starts)
        return
    most = max(1, min(most, _TILE_ELEMENTS // width))
    whole_top, whole_bottom = -(-first // recipe.columns), last // recipe.columns
    if top < whole_top:
        yield top, whole_top
    for start in range(whole_top, whole_bottom, most):
        yield start, min(start + most, whole_bottom)
    if max(whole_top, whole_bottom) < bottom:
        yield bottom - 1, bottom


def _columns_of_a(recipe: LowRank, left: int, right: int, held: Held) -> bytearray:
    """Columns [left, right) of A, row by row."""
    step = low_rank.FACTOR_DTYPES[recipe.a_type]
    data = bytearray(recipe.rank * (right - left) * step)
    with memoryview(data) as view:
        if right - left == recipe.columns:
            _copy(held, recipe.a, 0, view)
            return data
        length = (right - left) * step
        for row in range(recipe.rank):
            begin = (row * recipe.columns + left) * step
            _copy(held, recipe.a, begin, view[row * length : (row + 1) * length])
    return data


def _copy(held: Held, digest: str, begin: int, out: memoryview) -> None:
    """Bytes of a content from `begin` on, a little at a time: what `held` gives counts as well."""
    for done in range(0, len(out), _READ_BYTES):
        stop = min(done + _READ_BYTES, len(out))
        out[done:stop] = taken(held, digest, begin + done, begin + stop)
