"""Factors of a merged adapter from the two ends alone.

The rounding of a merge leaves of each weight an interval. Fit factors to the intervals, round them to fixed-point
numbers that cost few bytes, and solve what remains against the rounded ones. Of a large matrix, A is found from rows
spread over it and B then row by row, so that memory follows ``Effort.sample_elements``, about 60 bytes for each, not
the matrix.

The same input, effort, numpy and processor give the same factors, whatever the clock says, unless a time budget ends
before the rounds do. Other processors may give other factors of the same quality: BLAS sums in its own order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.low_rank import Factors
from textnlp_fast.delta.low_rank_detection import evenly
from textnlp_fast.delta.low_rank_fit import alternate, balanced, first_factors, misses, solved, weights_of
from textnlp_fast.delta.low_rank_rounding import LARGEST, in_steps, step_for, tuned
from textnlp_fast.delta.rounding_intervals import Intervals, Words, intervals_of
from textnlp_fast.errors import InvalidInputError

__all__ = ["EFFORTS", "Clock", "Effort", "Fit", "effort_of", "fit", "fixed_point", "single_precision"]

Floats = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work a recovery may do; rounds bound it, not the clock.

    ``sample_elements``: most elements of the rows that A is fitted on. ``row_rounds``: steps for a row of B once A
    stands. ``stages``: floor of the weights, margin in widths, rounds (``low_rank_fit.alternate``). ``sweeps``: passes
    over the integers, of A and B in turn. ``noises``: rounding noise to try, in parts of the best by rule.
    ``thorough``: look for high ranks too.
    """

    sample_elements: int
    row_rounds: int
    stages: tuple[tuple[float | None, float, int], ...]
    sweeps: int
    noises: tuple[float, ...]
    thorough: bool


EFFORTS: Final[dict[str, Effort]] = {
    "fast": Effort(1 << 20, 2, ((None, 0.02, 4),), 1, (1.0,), False),
    "default": Effort(
        1 << 22, 4, ((None, 0.02, 8), (1.0, 0.02, 4), (0.3, 0.02, 4), (0.1, 0.02, 4)), 2, (1.0,), False
    ),
    "max": Effort(
        1 << 23,
        4,
        ((None, 0.05, 12), (1.0, 0.05, 8), (0.3, 0.05, 8), (0.1, 0.05, 16)),
        6,
        (0.7, 1.0, 1.4),
        True,
    ),
}

# Rounding noise at which a bit more of factors saves as much as it costs, in median widths: this many times the part
# that the factors' elements are of the matrix's. Measured; the optimum is flat.
_BALANCE: Final = 0.17
# Of the noise, what the solution with rounded A keeps off the bounds, for B is rounded next; and the most, in widths.
_MOST_MARGIN: Final = 0.2
# Rows whose B is solved and rounded at once, in elements of the matrix.
_BLOCK_ELEMENTS: Final = 1 << 19


class Clock:
    """A time budget in seconds of wall time (None: no bound), and whether it ended anything early."""

    def __init__(self, budget_s: float | None = None) -> None:
        self._end = None if budget_s is None else time.monotonic() + budget_s
        self.stopped_early = False

    def go_on(self) -> bool:
        if self._end is not None and time.monotonic() >= self._end:
            self.stopped_early = True
        return not self.stopped_early


@dataclass(frozen=True, slots=True)
class Fit:
    """Factors in floating point, balanced, for the rows of a sample, with its intervals in both directions."""

    a: Floats
    b: Floats
    sizes: npt.NDArray[np.float64]
    rows: npt.NDArray[np.intp]
    intervals: Intervals
    turned: Intervals
    rounding: str
    missed: float


def effort_of(name: str) -> Effort:
    """The effort of that name."""
    try:
        return EFFORTS[name]
    except KeyError:
        raise InvalidInputError(f"unknown effort {name!r}", hint=f"Known: {', '.join(EFFORTS)}.") from None


def fit(
    base: Words,
    target: Words,
    dtype: str,
    rank: int,
    *,
    effort: Effort,
    clock: Clock,
    rounding: str = "once",
    start: tuple[Floats, Floats] | None = None,
) -> Fit:
    """Factors of a rank for the change between two matrices of words, from as many rows as the effort allows.

    ``start``: A and B (all rows, the scale inside) that are known already; they are taken as they are.
    """
    count = max(4 * rank, effort.sample_elements // base.shape[1])
    rows = evenly(base.shape[0], count)
    intervals = intervals_of(base[rows], target[rows], dtype, rounding=rounding)
    turned = intervals.turned()
    kind = intervals.low.dtype
    if start is not None:
        a, b = start[0].astype(kind), start[1][rows].astype(kind)
    else:
        a, b = first_factors(intervals.middle, min(rank, *intervals.low.shape))
        for floor, margin, rounds in effort.stages:
            a, b = alternate(
                a, b, intervals, turned, floor=floor, margin=margin, rounds=rounds, go_on=clock.go_on
            )
    missed = misses(a, b, intervals)
    a, b, sizes = balanced(a, b)
    return Fit(a, b, sizes, rows, intervals, turned, rounding, missed)


def fixed_point(
    found: Fit, base: Words, target: Words, dtype: str, *, effort: Effort, noise: float
) -> Factors:
    """Factors of 16-bit integers; ``noise`` as in ``Effort.noises``. Works on all rows, a block at a time."""
    rows, columns = base.shape
    rank = len(found.a)
    width = float(np.median(found.intervals.width))
    # In parts of a width.
    blur = noise * _BALANCE * rank * (rows + columns) / (rows * columns)
    largest = float(np.abs(found.a).max() * 1.05), float(np.abs(found.b).max() * 1.05)
    step = max(step_for(found.sizes, found.intervals.low.shape, blur * width), (max(largest) / LARGEST) ** 2)
    step = float(2.0 ** np.ceil(np.log2(step))) if step > 0 else 1.0
    unit = found.a.dtype.type(np.sqrt(step))
    intervals, turned = in_steps(found.intervals, step), in_steps(found.turned, step)
    a = np.clip(np.rint(found.a / unit), -LARGEST, LARGEST)
    b = _whole(a, found.b / unit, intervals, blur, effort.row_rounds)
    for _ in range(effort.sweeps):
        b = tuned(a, b, intervals, sweeps=1)
        other = tuned(np.ascontiguousarray(b.T), np.ascontiguousarray(a.T), turned, sweeps=1)
        a = np.ascontiguousarray(other.T)
    if len(found.rows) == rows:
        b = tuned(a, b, intervals, sweeps=effort.sweeps)
    else:
        b = _all_rows(a, base, target, dtype, found.rounding, step, blur, effort)
    return Factors(
        rows, columns, rank, step, a.astype(np.int16).tobytes(), b.astype(np.int16).tobytes(), "I16", "I16",
        found.rounding,
    )  # fmt: skip


def single_precision(found: Fit, base: Words, target: Words, dtype: str) -> Factors:
    """Factors in fp32 as they were fitted: for fp32 weights, which see more than 16 bits of them."""
    a = found.a.astype(np.float32)
    if len(found.rows) == len(base):
        b = found.b.astype(np.float32)
    else:
        blocks = _blocks(base)
        kept = a.astype(found.a.dtype)
        b = np.concatenate(
            [
                _refitted(kept, intervals_of(base[at], target[at], dtype, rounding=found.rounding), 0.02, 4)
                for at in blocks
            ]
        ).astype(np.float32)
    rows, columns = base.shape
    return Factors(
        rows,
        columns,
        len(a),
        1.0,
        a.tobytes(),
        np.ascontiguousarray(b).tobytes(),
        "F32",
        "F32",
        found.rounding,
    )


def _whole(a: Floats, b: Floats, intervals: Intervals, blur: float, rounds: int) -> Floats:
    """B for a rounded A, in units of the scale: solved again, then rounded."""
    margin = min(blur, _MOST_MARGIN)
    b = solved(a, b, intervals, weights_of(intervals, 2 * blur), margin=margin, rounds=rounds)
    rounded: Floats = np.clip(np.rint(b), -LARGEST, LARGEST)
    return rounded


def _refitted(a: Floats, intervals: Intervals, margin: float, rounds: int) -> Floats:
    """B by least squares, then by steps."""
    square = a @ a.T.astype(np.float64)
    square += np.eye(len(a)) * (np.trace(square) * 1e-9 + 1e-30)
    b = np.linalg.solve(square, (intervals.middle @ a.T).T.astype(np.float64)).T.astype(a.dtype)
    return solved(a, b, intervals, weights_of(intervals, None), margin=margin, rounds=rounds)


def _blocks(base: Words) -> list[slice]:
    rows, columns = base.shape
    step = max(1, _BLOCK_ELEMENTS // columns)
    return [slice(begin, min(begin + step, rows)) for begin in range(0, rows, step)]


def _all_rows(
    a: Floats, base: Words, target: Words, dtype: str, rounding: str, step: float, blur: float, effort: Effort
) -> Floats:
    """B of every row for a rounded A found from some."""
    parts = []
    for at in _blocks(base):
        intervals = in_steps(intervals_of(base[at], target[at], dtype, rounding=rounding), step)
        b = _refitted(a, intervals, min(blur, _MOST_MARGIN), effort.row_rounds)
        b = _whole(a, b, intervals, blur, effort.row_rounds)
        parts.append(tuned(a, b, intervals, sweeps=effort.sweeps))
    return np.concatenate(parts)
