"""Factors whose product falls into given intervals.

Squared distances to the intervals are minimised for B with A fixed and the other way round. Each row of B is then a
convex problem of its own in `rank` unknowns: its gradient and its second derivative need the elements outside their
interval only, and a Newton step solves it nearly at once (a projection onto the intervals followed by least squares,
which is the same with the second derivative of all elements, takes tens of rounds for each of these). A solution
exists, as the merge was one; the steps aim a little inside the intervals and therefore reach it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.rounding_intervals import Intervals

__all__ = ["alternate", "balanced", "first_factors", "misses", "solved", "weights_of"]

Floats = npt.NDArray[Any]

# Above, second derivatives of single rows take more memory and time than they save rounds.
NEWTON_MAX_RANK: Final = 32
# Keeps a row solvable in which fewer elements than the rank are outside: towards where it stands.
_DAMPING: Final = 1e-2
_TINY: Final = 1e-30
# Rows at once: what a step holds besides the intervals stays below this many elements.
_BLOCK_ELEMENTS: Final = 1 << 18


def first_factors(middle: Floats, rank: int) -> tuple[Floats, Floats]:
    """The best A and B of a rank for the middles of the intervals, by a randomised range finder.

    Source: Halko, Martinsson, Tropp, "Finding structure with randomness" (2011), algorithms 4.4 and 5.1.
    """
    rows, columns = middle.shape
    width = min(rows, columns, rank + 8)
    random = np.random.default_rng(0).standard_normal((columns, width)).astype(middle.dtype)
    basis = np.linalg.qr(middle @ random)[0]
    for _ in range(2):
        basis = np.linalg.qr(middle @ np.linalg.qr(middle.T @ basis)[0])[0]
    left, sizes, right = np.linalg.svd(basis.T @ middle, full_matrices=False)
    root = np.sqrt(sizes[:rank])
    return np.ascontiguousarray(root[:, None] * right[:rank]), (basis @ left[:, :rank]) * root


def balanced(a: Floats, b: Floats) -> tuple[Floats, Floats, npt.NDArray[np.float64]]:
    """The same product from factors whose components are orthogonal and as long in A as in B; and its singular
    values."""
    left, left_rest = np.linalg.qr(b.astype(np.float64))
    right, right_rest = np.linalg.qr(a.T.astype(np.float64))
    turn, sizes, back = np.linalg.svd(left_rest @ right_rest.T)
    root = np.sqrt(sizes)
    return (
        np.ascontiguousarray(root[:, None] * (back @ right.T)).astype(a.dtype),
        ((left @ turn) * root).astype(b.dtype),
        sizes,
    )


def misses(a: Floats, b: Floats, intervals: Intervals) -> float:
    """Part of the elements whose product is outside its interval."""
    outside = 0
    for begin, end in _blocks(intervals):
        product = b[begin:end] @ a
        outside += int(((product < intervals.low[begin:end]) | (product > intervals.high[begin:end])).sum())
    return outside / intervals.low.size


def weights_of(intervals: Intervals, floor: float | None) -> Floats:
    """What a squared distance counts: the same everywhere (None), or as seen from the interval's width.

    ``floor`` is in parts of the median width: narrower intervals, which factors of any precision miss, count no more.
    """
    if floor is None:
        return np.ones_like(intervals.width)
    least = np.median(intervals.width) * floor
    weights: Floats = 1 / (np.square(intervals.width) + least * least)
    weights /= weights.mean()
    return weights


def solved(
    a: Floats, b: Floats, intervals: Intervals, weights: Floats, *, margin: float, rounds: int = 1
) -> Floats:
    """B after ``rounds`` steps for this A, aiming ``margin`` widths inside the intervals."""
    out = np.empty_like(b)
    step = _newton_step if len(a) <= NEWTON_MAX_RANK else _projection_step
    pairs = _pairs(a) if len(a) <= NEWTON_MAX_RANK else a
    for begin, end in _blocks(intervals):
        part = intervals.rows(begin, end)
        inside = part.width * part.width.dtype.type(margin)
        low, high = part.low + inside, part.high - inside
        rows = b[begin:end]
        for _ in range(rounds):
            rows = step(a, pairs, rows, low, high, weights[begin:end])
        out[begin:end] = rows
    return out


def alternate(
    a: Floats,
    b: Floats,
    intervals: Intervals,
    turned: Intervals,
    *,
    floor: float | None,
    margin: float,
    rounds: int,
    go_on: Callable[[], bool],
) -> tuple[Floats, Floats]:
    """A and B after ``rounds`` steps of either, or fewer if ``go_on`` says so. ``turned`` is ``intervals.turned()``."""
    weights = weights_of(intervals, floor)
    weights_turned = np.ascontiguousarray(weights.T)
    for _ in range(rounds):
        if not go_on():
            break
        b = solved(a, b, intervals, weights, margin=margin)
        other = solved(
            np.ascontiguousarray(b.T), np.ascontiguousarray(a.T), turned, weights_turned, margin=margin
        )
        a = np.ascontiguousarray(other.T)
    return a, b


# --- steps --------------------------------------------------------------------------------------------------


def _blocks(intervals: Intervals) -> list[tuple[int, int]]:
    rows, columns = intervals.low.shape
    step = max(1, _BLOCK_ELEMENTS // columns)
    return [(begin, min(begin + step, rows)) for begin in range(0, rows, step)]


def _pairs(a: Floats) -> Floats:
    """Products of every two rows of A, a column each: columns x rank (rank + 1) / 2."""
    first, second = np.triu_indices(len(a))
    return np.ascontiguousarray((a[first] * a[second]).T)


def _gradient(a: Floats, b: Floats, low: Floats, high: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Descent direction for every row of B, and the weights of the elements outside."""
    product = b @ a
    outside = product - np.clip(product, low, high)
    active = weights * (outside != 0)
    return (active * outside) @ a.T, active


def _newton_step(a: Floats, pairs: Floats, b: Floats, low: Floats, high: Floats, weights: Floats) -> Floats:
    gradient, active = _gradient(a, b, low, high, weights)
    rank = len(a)
    first, second = np.triu_indices(rank)
    weight = weights.mean(axis=1, keepdims=True)
    packed = (active @ pairs + (_DAMPING * weight) * pairs.sum(axis=0)).astype(np.float64)
    curvature = np.empty((len(b), rank, rank))
    curvature[:, first, second] = packed
    curvature[:, second, first] = packed
    curvature += _ridge(curvature[:, range(rank), range(rank)].max(axis=1))[:, None, None] * np.eye(rank)
    moved: Floats = b - np.linalg.solve(curvature, gradient.astype(np.float64)[..., None])[..., 0].astype(
        b.dtype
    )
    return moved


def _projection_step(a: Floats, _: Floats, b: Floats, low: Floats, high: Floats, weights: Floats) -> Floats:
    """One second derivative for all rows, that of all elements under the largest weight of each: never too far."""
    gradient, _active = _gradient(a, b, low, high, weights)
    heaviest = weights.max(axis=0).astype(np.float64)
    curvature = (a * heaviest) @ a.T.astype(np.float64)
    curvature += _ridge(np.diag(curvature).max()) * np.eye(len(a))
    # The projection's own step is 1; it is known to converge below 2.
    moved: Floats = b - 1.7 * np.linalg.solve(curvature, gradient.T.astype(np.float64)).T.astype(b.dtype)
    return moved


def _ridge(largest: Any) -> Any:
    return largest * 1e-7 + _TINY
