"""Which changes of a weight round to what the target holds: an interval for each weight.

A merge adds a real number to a weight and rounds. From both ends alone, the change is known up to an interval about as
wide as the weight's last place; factors of which every product falls inside predict the target exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.errors import InvalidInputError

__all__ = ["FREE", "Intervals", "intervals_of", "widened", "words_of"]

Floats = npt.NDArray[Any]
Words = npt.NDArray[Any]

#: Bounds of a weight about which nothing is known: it was or became infinite or no number.
FREE: Final = 1e30
# At once: the steps on the way are fp64.
_BLOCK_ELEMENTS: Final = 1 << 17
# Unsigned words, the magnitude bits of infinity.
_FORMATS: Final[dict[str, tuple[Any, int]]] = {
    "BF16": (np.uint16, 0x7F80),
    "F16": (np.uint16, 0x7C00),
    "F32": (np.uint32, 0x7F800000),
}


@dataclass(frozen=True, slots=True)
class Intervals:
    """Lowest and highest change of every element of a matrix, and how far apart they are (1 where free)."""

    low: Floats
    high: Floats
    width: Floats

    @property
    def middle(self) -> Floats:
        """The change that the two ends show; 0 where free."""
        middle: Floats = (self.low + self.high) * self.low.dtype.type(0.5)
        return middle

    def turned(self) -> Intervals:
        """Rows for columns, each contiguous."""
        return Intervals(*(np.ascontiguousarray(part.T) for part in (self.low, self.high, self.width)))

    def rows(self, begin: int, end: int) -> Intervals:
        """Views of some rows."""
        return Intervals(self.low[begin:end], self.high[begin:end], self.width[begin:end])


def words_of(data: Any, dtype: str) -> Words:
    """A tensor's bytes as unsigned numbers of its element size."""
    if dtype not in _FORMATS:
        raise InvalidInputError(
            f"no low-rank change of the dtype {dtype!r} is looked for", hint=f"Known: {', '.join(_FORMATS)}."
        )
    return np.frombuffer(data, dtype=_FORMATS[dtype][0])


def widened(words: Words, dtype: str) -> npt.NDArray[np.float64]:
    """The numbers that words stand for."""
    if dtype == "F16":
        return words.view(np.float16).astype(np.float64)
    if dtype == "F32":
        return words.view(np.float32).astype(np.float64)
    return (words.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def _places(words: Words, dtype: str) -> npt.NDArray[np.int64]:
    """Whole numbers in the order of the values, one apart for neighbours; 0 for zeros of both signs."""
    top = 1 << (8 * words.dtype.itemsize - 1)
    magnitude = (words & (top - 1)).astype(np.int64)
    return np.where(words & top, -magnitude, magnitude)


def _at(places: npt.NDArray[np.int64], dtype: str) -> npt.NDArray[np.float64]:
    """The values at places; beyond the largest number, infinity."""
    word, infinity = _FORMATS[dtype]
    magnitude = np.minimum(np.abs(places), infinity).astype(word)
    return np.copysign(widened(magnitude, dtype), places)


def _nearest_places(values: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[np.int64]:
    """Places of values in the type, within one of the nearest."""
    if dtype == "F16":
        return _places(values.astype(np.float16).view(np.uint16), dtype)
    singles = values.astype(np.float32).view(np.uint32)
    return _places(singles if dtype == "F32" else (singles >> 16).astype(np.uint16), dtype)


def _through_rounding(
    low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], closed: npt.NDArray[np.bool_], dtype: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Bounds of a number that is rounded to the type before it must lie between ``low`` and ``high``."""
    first, last = _nearest_places(low, dtype) - 2, _nearest_places(high, dtype) + 2
    for _ in range(4):
        at = _at(first, dtype)
        first += (at < low) | ((at == low) & ~closed)
        at = _at(last, dtype)
        last -= (at > high) | ((at == high) & ~closed)
    # No number of the type between them: this weight was not rounded so.
    kept = first <= last
    wide_low = (_at(first - 1, dtype) + _at(first, dtype)) / 2
    wide_high = (_at(last, dtype) + _at(last + 1, dtype)) / 2
    return np.where(kept, wide_low, low), np.where(kept, wide_high, high)


def intervals_of(base: Words, target: Words, dtype: str, *, rounding: str = "once") -> Intervals:
    """Bounds of the change for matrices of words (:func:`words_of`) of one shape, as fp32; fp64 for ``F32``.

    ``rounding`` is that of the recipe (docs/format.md): ``delta`` takes the change to be rounded to the dtype by
    itself.
    """
    kind = np.float64 if dtype == "F32" else np.float32
    low, high, width = (np.empty(base.shape, dtype=kind) for _ in range(3))
    block = max(1, _BLOCK_ELEMENTS // max(1, base.shape[1]))
    for begin in range(0, len(base), block):
        at = slice(begin, begin + block)
        with np.errstate(all="ignore"):
            first, last = _bounds(base[at], target[at], dtype, rounding)
            known = np.isfinite(first) & np.isfinite(last) & (np.maximum(np.abs(first), np.abs(last)) < FREE)
            low[at] = np.where(known, first, -FREE)
            high[at] = np.where(known, last, FREE)
            # An interval that fp32 cannot hold open is one number wide.
            width[at] = np.where(known, np.maximum(last - first, np.finfo(np.float32).tiny), 1)
    return Intervals(low, high, width)


def _bounds(
    base: Words, target: Words, dtype: str, rounding: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    start = widened(base, dtype)
    place = _places(target, dtype)
    value = _at(place, dtype)
    low = (_at(place - 1, dtype) + value) / 2 - start
    high = (_at(place + 1, dtype) + value) / 2 - start
    if rounding == "once":
        return low, high
    return _through_rounding(low, high, (place & 1) == 0, dtype)
