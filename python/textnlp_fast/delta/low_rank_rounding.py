"""Factors rounded to whole numbers of a step, so that as few products as possible leave their interval.

A factor element is a fixed-point number: an integer of 16 bits times the square root of the recipe's scale. Entropy
coding then pays for the integers' spread alone, half a bit less an element for each halving of the scale, and the
best scale is where that balances what the misses cost. Plain rounding disturbs a product by the sum of many rounding
errors; moving single integers by one, wherever it brings products back, takes much of that away.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.rounding_intervals import FREE, Intervals

__all__ = ["LARGEST", "in_steps", "step_for", "tuned"]

Floats = npt.NDArray[Any]

LARGEST: Final = 32767
# What a miss costs, in misses: itself, and its distance in interval widths up to a bound.
_PER_WIDTH: Final = 0.25
_MOST_WIDTHS: Final = 8
# Elements at once, so that a trial's passes stay in the second-level cache.
_BLOCK_ELEMENTS: Final = 1 << 15


def step_for(sizes: npt.NDArray[np.float64], shape: tuple[int, int], noise: float) -> float:
    """The scale at which rounding factors with these singular values (``balanced``) disturbs products by ``noise``.

    Rounding errors are uniform, of variance 1/12; an element of component k is sqrt(size_k / rows) large in B and
    sqrt(size_k / columns) in A. A power of two, for its arithmetic is exact.
    """
    rows, columns = shape
    step = 12 * noise**2 / max(float(sizes.sum()) * (1 / rows + 1 / columns), 1e-300)
    return float(2.0 ** np.clip(np.floor(np.log2(max(step, 1e-300)) + 0.5), -120, 120))


def in_steps(intervals: Intervals, step: float) -> Intervals:
    """The same intervals, in units of the scale; free elements stay as free."""
    unit = intervals.low.dtype.type(1 / step)
    with np.errstate(over="ignore"):
        low, high, width = intervals.low * unit, intervals.high * unit, intervals.width * unit
    return Intervals(np.maximum(low, -FREE), np.minimum(high, FREE), width)


def tuned(a: Floats, b: Floats, intervals: Intervals, *, sweeps: int) -> Floats:
    """B with single integers moved by one while that lowers the cost of its row. All in units of the scale.

    Coordinate descent: each sweep tries both neighbours of every element once, a column of B at a time.
    """
    out: Floats = b.copy()
    rows, columns = intervals.low.shape
    block = max(1, _BLOCK_ELEMENTS // columns)
    for begin in range(0, rows, block):
        part = intervals.rows(begin, min(begin + block, rows))
        _tune_block(a, out[begin : begin + block], part, sweeps)
    return out


def _tune_block(a: Floats, b: Floats, intervals: Intervals, sweeps: int) -> None:
    low, high, per_width = intervals.low, intervals.high, 1 / intervals.width
    room = (np.empty_like(low), np.empty_like(low), np.empty(low.shape, dtype=np.bool_))
    product = b @ a
    cost = _cost(product, low, high, per_width, room)
    trial = np.empty_like(product)
    for _ in range(sweeps):
        moved = False
        for k in range(len(a)):
            up = _cost(np.add(product, a[k], out=trial), low, high, per_width, room)
            down = _cost(np.subtract(product, a[k], out=trial), low, high, per_width, room)
            up[b[:, k] >= LARGEST] = np.inf
            down[b[:, k] <= -LARGEST] = np.inf
            better = np.minimum(up, down)
            rows = np.nonzero(better < cost)[0]
            if not len(rows):
                continue
            moved = True
            direction = np.where(up[rows] <= down[rows], 1, -1).astype(b.dtype)
            b[rows, k] += direction
            product[rows] += direction[:, None] * a[k]
            cost[rows] = better[rows]
        if not moved:
            break


def _cost(
    product: Floats,
    low: Floats,
    high: Floats,
    per_width: Floats,
    room: tuple[Floats, Floats, npt.NDArray[np.bool_]],
) -> Floats:
    """Cost of each row."""
    outside, other, missed = room
    np.subtract(product, high, out=outside)
    np.subtract(low, product, out=other)
    np.maximum(outside, other, out=outside)
    np.greater(outside, 0, out=missed)
    np.multiply(outside, per_width, out=outside)
    np.clip(outside, 0, _MOST_WIDTHS, out=outside)
    cost: Floats = missed.sum(axis=1) + outside.sum(axis=1) * np.float32(_PER_WIDTH)
    return cost
