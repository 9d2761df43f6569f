"""How two tensors differ, summed up window by window: counts, ULPs, norms.

Sums of windows merge into those of a tensor, those of tensors into those of a layer: nothing here sees a whole tensor,
and temporaries are those of a block.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta import codec
from textnlp_fast.delta.values import Bits, Values, bits_of, changes, counts_ulps, ulp_distances, values_of

__all__ = ["NOTHING", "Sums", "measure", "merge"]

Number = TypeVar("Number", int, float)

# Elements at a time: their float64s stay in the cache.
_BLOCK: Final = 1 << 16
# Squares of numbers in between neither overflow nor vanish, even summed over a block.
_SMALL, _LARGE = 1e-140, 1e140


@dataclass(frozen=True, slots=True)
class Sums:
    """What is known of how elements differ. None where a dtype has no such meaning.

    Norms are L2. Elements that are NaN or infinite in either tensor count as changed where their bits differ, but do
    not enter the norms nor `max_change`. `ulps[n]` counts the elements that moved by 2^(n-1) to 2^n - 1 steps,
    `ulps[0]` is always 0.
    """

    elements: int = 0
    changed: int = 0
    max_ulp: int | None = None
    sum_ulp: float | None = None
    ulps: tuple[int, ...] = ()
    weight_norm: float | None = None
    change_norm: float | None = None
    max_change: float | None = None
    became_nonfinite: int = 0
    became_finite: int = 0

    @property
    def changed_fraction(self) -> float | None:
        return self.changed / self.elements if self.elements else None

    @property
    def mean_ulp(self) -> float | None:
        """Mean size in ULPs of the changes: over the elements that changed."""
        return self.sum_ulp / self.changed if self.sum_ulp is not None and self.changed else None

    @property
    def relative_norm(self) -> float | None:
        """Norm of the change over that of the old weights."""
        if self.change_norm is None or not self.weight_norm:
            return None
        return self.change_norm / self.weight_norm


NOTHING: Final = Sums()


def measure(old: memoryview, new: memoryview, *, dtype: str, threads: int = 0) -> Sums:
    """Sums over a window of a tensor of safetensors dtype `dtype`: bytes of both, equally many.

    Raises InvalidInputError if the sizes do not match.
    """
    exact = counts_ulps(dtype)
    counted = "U64" if dtype == "C64" else dtype if exact else "OPAQUE"
    stats = codec.diff(old, new, dtype=counted, threads=threads)
    before, after = bits_of(old, dtype), bits_of(new, dtype)
    numeric = values_of(before[:0], dtype) is not None
    ulps = np.zeros(66, dtype=np.int64)
    weight_norm = change_norm = max_change = 0.0
    became_nonfinite = became_finite = 0
    for start in range(0, len(before), _BLOCK):
        a, b = before[start : start + _BLOCK], after[start : start + _BLOCK]
        if numeric:
            weight_norm = math.hypot(weight_norm, _norm(_values(a, dtype)))
        if not stats.changed:
            continue
        places = np.flatnonzero(a != b)
        if not len(places):
            continue
        a, b = a[places], b[places]
        if exact:
            ulps += np.bincount(_bit_lengths(ulp_distances(a, b, dtype)), minlength=66)
        if numeric:
            norm, most = _change(a, b, dtype)
            change_norm, max_change = math.hypot(change_norm, norm), max(max_change, most)
            was, now = np.isfinite(_values(a, dtype)), np.isfinite(_values(b, dtype))
            became_nonfinite += int(np.count_nonzero(was & ~now))
            became_finite += int(np.count_nonzero(~was & now))
    return Sums(
        elements=stats.elements,
        changed=stats.changed,
        max_ulp=stats.max_ulp if exact else None,
        sum_ulp=stats.mean_abs_ulp * stats.elements if exact else None,
        ulps=_trimmed(ulps.tolist()) if exact else (),
        weight_norm=weight_norm if numeric else None,
        change_norm=change_norm if numeric else None,
        max_change=max_change if numeric else None,
        became_nonfinite=became_nonfinite,
        became_finite=became_finite,
    )


def merge(first: Sums, second: Sums) -> Sums:
    """Sums over the elements of both."""
    longer, shorter = sorted((first.ulps, second.ulps), key=len, reverse=True)
    return Sums(
        elements=first.elements + second.elements,
        changed=first.changed + second.changed,
        max_ulp=_either(first.max_ulp, second.max_ulp, max),
        sum_ulp=_either(first.sum_ulp, second.sum_ulp, operator.add),
        ulps=tuple(a + b for a, b in zip(longer, (*shorter, *[0] * len(longer)), strict=False)),
        weight_norm=_either(first.weight_norm, second.weight_norm, math.hypot),
        change_norm=_either(first.change_norm, second.change_norm, math.hypot),
        max_change=_either(first.max_change, second.max_change, max),
        became_nonfinite=first.became_nonfinite + second.became_nonfinite,
        became_finite=first.became_finite + second.became_finite,
    )


# --- parts -------------------------------------------------------------------------------------------------


def _values(bits: Bits, dtype: str) -> Values:
    values = values_of(bits, dtype)
    assert values is not None, "asked for dtypes with values only"
    return values


def _change(a: Bits, b: Bits, dtype: str) -> tuple[float, float]:
    moved = changes(a, b, dtype)
    assert moved is not None, "asked for dtypes with values only"
    moved = moved[np.isfinite(moved)]
    return (_norm(moved), float(np.max(np.abs(moved)))) if len(moved) else (0.0, 0.0)


def _norm(values: Values) -> float:
    """L2 norm of the finite values, scaled where squares would overflow or vanish."""
    norm = math.sqrt(_square(values))
    if _SMALL < norm < _LARGE:
        return norm
    values = np.abs(values[np.isfinite(values)])
    most = float(np.max(values, initial=0.0))
    return most * math.sqrt(_square(values / most)) if most else 0.0


def _square(values: Values) -> float:
    # Not np.dot: BLAS wakes all its threads for a block, in each of ours.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.einsum("i,i->", values, values))


def _bit_lengths(distances: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    # frexp of x in [2^(n-1), 2^n) is n; of integers rounded up to 2^n it would be n + 1, so those lose low bits first.
    kept = np.where(distances >> np.uint64(53), distances & ~np.uint64(0x7FF), distances)
    return np.frexp(kept.astype(np.float64))[1].astype(np.intp)


def _trimmed(counts: list[int]) -> tuple[int, ...]:
    while counts and not counts[-1]:
        counts.pop()
    return tuple(counts)


def _either(
    first: Number | None, second: Number | None, join: Callable[[Number, Number], Number]
) -> Number | None:
    if first is None or second is None:
        return second if first is None else first
    return join(first, second)
