"""What the raw bits of an element stand for: their order, their value, whether that is a number, and rounding to them.

Arrays hold raw bits as unsigned integers of the element's size. *Order* is that of the frames (docs/format.md,
*Residual*): one step is one ULP, and the zeros of both signs are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from textnlp_fast.errors import InvalidInputError

__all__ = ["ELEMENTS", "Doubles", "Element", "Mask", "Words", "words_of"]

Words: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]
Doubles: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_WORDS: Final[dict[int, type[np.unsignedinteger[Any]]]] = {
    1: np.uint8,
    2: np.uint16,
    4: np.uint32,
    8: np.uint64,
}
_NATIVE_FLOATS: Final[dict[int, type[np.floating[Any]]]] = {2: np.float16, 4: np.float32, 8: np.float64}


@dataclass(frozen=True, slots=True)
class Element:
    """An element type: ``exponent_bits`` is 0 for integers, of which ``signed`` are in two's complement."""

    name: str
    size_bytes: int
    exponent_bits: int = 0
    signed: bool = True

    @property
    def is_float(self) -> bool:
        return self.exponent_bits > 0

    @property
    def word(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.dtype(_WORDS[self.size_bytes])

    @property
    def top(self) -> int:
        """The top bit."""
        return 1 << (8 * self.size_bytes - 1)

    @property
    def mantissa_bits(self) -> int:
        return 8 * self.size_bytes - 1 - self.exponent_bits

    @property
    def largest(self) -> int:
        """Bits of the largest finite number."""
        if not self.is_float:
            return self.top - 1 if self.signed else 2 * self.top - 1
        if self.name == "F8_E4M3":  # no infinities, and one NaN of each sign
            return 0x7E
        return (((1 << self.exponent_bits) - 1) << self.mantissa_bits) - 1

    @property
    def ordered_range(self) -> tuple[int, int]:
        """Orders of the lowest and the highest finite number."""
        if not self.is_float:
            return 0, 2 * self.top - 1
        return self.top - 1 - self.largest, self.top + self.largest

    def exponents(self, words: Words) -> Words:
        """The exponent fields."""
        fields = (words >> self.word.type(self.mantissa_bits)) & self.word.type((1 << self.exponent_bits) - 1)
        return np.asarray(fields)

    def step(self, exponent: int) -> float:
        """The distance of neighbours whose exponent field is ``exponent``; 0 where float64 has no such number."""
        bias = (1 << (self.exponent_bits - 1)) - 1
        return float(np.ldexp(1.0, max(exponent, 1) - bias - self.mantissa_bits))

    def is_finite(self, words: Words) -> Mask:
        if not self.is_float:
            return np.ones(words.shape, np.bool_)
        return np.asarray((words & self.word.type(self.top - 1)) <= self.word.type(self.largest))

    def ordered(self, words: Words) -> Words:
        """Unsigned numbers that grow with the values."""
        top = self.word.type(self.top)
        if not self.is_float:
            return words ^ top if self.signed else words
        return np.where(words & top, ~words, words | top)

    def from_ordered(self, ordered: Words) -> Words:
        """Back from :meth:`ordered`."""
        top = self.word.type(self.top)
        if not self.is_float:
            return ordered ^ top if self.signed else ordered
        return np.where(ordered & top, ordered ^ top, ~ordered)

    def values(self, words: Words) -> Doubles:
        """The values: exact but for integers beyond 2^53."""
        with np.errstate(invalid="ignore"):  # of NaNs that signal
            if not self.is_float:
                whole = words.view(f"i{self.size_bytes}") if self.signed else words
                return np.asarray(whole, np.float64)
            if self.size_bytes == 1:
                return np.asarray(_table(self.exponent_bits)[words])
            if self.name == "BF16":
                words = words.astype(np.uint32) << np.uint32(16)
            return np.asarray(words.view(_NATIVE_FLOATS[words.itemsize]), np.float64)

    def differences(self, words: Words, others: Words) -> Doubles:
        """Values less values, rounded to float64; NaN or infinite where a side is not finite."""
        if not self.is_float:  # beyond 2^53 values would lose what their difference keeps
            a, b = (self.ordered(side).astype(np.uint64) for side in (words, others))
            return np.asarray(np.where(a >= b, a - b, 0) - np.where(a >= b, 0, b - a).astype(np.float64))
        with np.errstate(invalid="ignore", over="ignore"):
            return self.values(words) - self.values(others)

    def rounded(self, values: npt.NDArray[np.floating[Any]]) -> Words:
        """Bits of the nearest values of this float type, to even.

        What rounds beyond the largest finite one becomes an infinity; a NaN in F8_E4M3, which has none.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if self.size_bytes == 1:
                return _nearest_byte(values.astype(np.float64), self.exponent_bits)
            if self.name != "BF16":
                return np.asarray(values.astype(_NATIVE_FLOATS[self.size_bytes]).view(self.word))
            bits: Words = values.astype(np.float32).view(np.uint32)
        even = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
        return np.asarray(np.where(np.isnan(values), quiet, even), np.uint16)


@cache
def _table(exponent_bits: int) -> Doubles:
    """Values of the 256 bit patterns of an eight-bit float."""
    mantissa_bits = 7 - exponent_bits
    magnitude = np.arange(128)
    exponent, mantissa = (
        magnitude >> mantissa_bits,
        (magnitude & ((1 << mantissa_bits) - 1)).astype(np.float64),
    )
    bias = (1 << (exponent_bits - 1)) - 1
    fraction = mantissa / (1 << mantissa_bits) + (exponent > 0)
    value = np.ldexp(fraction, np.maximum(exponent, 1) - bias)
    if exponent_bits == 4:
        value[0x7F] = np.nan
    else:
        value[0x7C], value[0x7D:] = np.inf, np.nan
    return np.concatenate([value, -value])


def _nearest_byte(values: Doubles, exponent_bits: int) -> Words:
    """Rounds to an eight-bit float by searching the middles between neighbours."""
    element = ELEMENTS["F8_E4M3" if exponent_bits == 4 else "F8_E5M2"]
    finite = _table(exponent_bits)[: element.largest + 1]
    beyond = 2 * finite[-1] - finite[-2]
    middles = (finite + np.append(finite[1:], beyond)) / 2
    size = np.abs(values)
    place = np.searchsorted(middles, size, side="left")
    tie = middles[np.minimum(place, len(middles) - 1)] == size
    place = place + (tie & (place % 2 == 1))
    place = np.where(np.isnan(values), 0x7F, place)
    return (place | (np.signbit(values).astype(place.dtype) << 7)).astype(np.uint8)


ELEMENTS: Final[dict[str, Element]] = {
    element.name: element
    for element in (
        Element("F8_E4M3", 1, 4),
        Element("F8_E5M2", 1, 5),
        Element("F16", 2, 5),
        Element("BF16", 2, 8),
        Element("F32", 4, 8),
        Element("F64", 8, 11),
        *(Element(f"I{8 * size}", size) for size in _WORDS),
        *(Element(f"U{8 * size}", size, signed=False) for size in _WORDS),
    )
}
"""Types that can be approximated, by the names that safetensors gives them."""


def words_of(data: Any, element: Element) -> Words:
    """A flat view of a contiguous buffer's bytes as raw bits of ``element``.

    Raises :class:`InvalidInputError` if they are no whole elements.
    """
    if isinstance(data, np.ndarray):
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    else:
        flat = np.frombuffer(data, np.uint8)
    if flat.size % element.size_bytes:
        raise InvalidInputError(f"{flat.size} bytes are no whole elements of {element.name}")
    return flat.view(element.word)
