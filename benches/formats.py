"""The element types that the benches code: widths, fields, order, and casts from fp32.

Written apart from the codec, whose sizes are judged by what is computed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from measure import Bytes

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Format:
    """One element type. ``exponent_bits`` 0: integers, whose context is nothing and whose order is plain."""

    name: str  # as safetensors calls it
    width: int  # bytes
    exponent_bits: int
    mantissa_bits: int

    @property
    def word(self) -> np.dtype[Any]:
        return np.dtype(f"<u{self.width}")

    def words(self, data: Bytes) -> Array:
        return data.view(self.word)

    def exponents(self, data: Bytes) -> Array:
        """The exponent field of each element; all 0 for integers."""
        words = self.words(data)
        if not self.exponent_bits:
            return np.zeros_like(words)
        fields: Array = (words >> self.mantissa_bits) & self.word.type((1 << self.exponent_bits) - 1)
        return fields

    def ordered(self, data: Bytes) -> Array:
        """Unsigned numbers that grow with the value: neighbours among representable values differ by one."""
        words = self.words(data)
        if not self.exponent_bits:
            return words
        top = self.word.type(1 << (8 * self.width - 1))
        signs = (words.view(f"<i{self.width}") >> (8 * self.width - 1)).view(
            self.word
        )  # all ones if negative
        mapped: Array = words ^ (signs | top)
        return mapped

    def ulps(self, target: Bytes, base: Bytes) -> Array:
        """Target less base in ULPs, modulo the width of the word, as signed numbers."""
        difference: Array = (self.ordered(target) - self.ordered(base)).view(f"<i{self.width}")
        return difference

    def moved(self, base: Bytes, ulps: Array) -> Array:
        """The words of the target that lies ``ulps`` above ``base``: what undoes :meth:`ulps`."""
        ordered: Array = self.ordered(base) + ulps.view(self.word)
        if not self.exponent_bits:
            return ordered
        top = self.word.type(1 << (8 * self.width - 1))
        return np.where(ordered & top, ordered ^ top, ~ordered).astype(self.word)


FORMATS = {
    form.name: form
    for form in (
        Format("BF16", 2, 8, 7),
        Format("F16", 2, 5, 10),
        Format("F32", 4, 8, 23),
        Format("F8_E4M3", 1, 4, 3),
        Format("F8_E5M2", 1, 5, 2),
        Format("I8", 1, 0, 8),
        Format("U8", 1, 0, 8),  # two int4 in a byte
    )
}


def cast(values: npt.NDArray[np.float32], name: str) -> Bytes:
    """fp32 to the bytes of ``name``, finite values only, to nearest with ties to even.

    fp8 is stored with a scale per tensor, as inference engines do: a power of two here, that brings the largest
    magnitude just below the largest number of the format. Integers are symmetric with a scale per row:
    ``I8`` to +-127; ``U8`` is int4 to +-7, two neighbours to a byte.
    """
    flat = values.reshape(-1)
    if name == "F32":
        raw: Array = flat.astype("<f4")
    elif name == "F16":
        raw = flat.astype("<f2")
    elif name == "BF16":
        raw = to_bf16(flat)
    elif name in ("F8_E4M3", "F8_E5M2"):
        raw = fp8_codes(_scaled(flat, name), name)
    elif name == "I8":
        raw = _to_integers(values, 127).view(np.uint8)
    elif name == "U8":
        nibbles = np.append(_to_integers(values, 7), np.zeros(flat.size % 2, np.int8)).view(np.uint8) & 15
        raw = nibbles[0::2] | nibbles[1::2] << 4
    else:
        raise ValueError(f"no cast to {name}")
    return np.ascontiguousarray(raw).view(np.uint8)


def to_bf16(values: npt.NDArray[np.float32]) -> Array:
    """fp32 to the bits of bf16 (finite values)."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def fp8_values(name: str) -> npt.NDArray[np.float32]:
    """The finite numbers of an fp8 format that are not negative, by their code: 0, smallest, ..., largest."""
    form = FORMATS[name]
    bias = (1 << (form.exponent_bits - 1)) - 1
    # E4M3 gives up one code, its last, for NaN; E5M2 its last exponent for infinity and NaN, as IEEE does.
    count = 0x7F if name == "F8_E4M3" else 0x7C
    codes = np.arange(count)
    exponents, fractions = codes >> form.mantissa_bits, codes & ((1 << form.mantissa_bits) - 1)
    leads = np.where(exponents > 0, 1 << form.mantissa_bits, 0) + fractions
    numbers: npt.NDArray[np.float32] = np.ldexp(
        leads.astype(np.float32), np.maximum(exponents, 1) - bias - form.mantissa_bits
    )
    return numbers


def fp8_codes(values: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.uint8]:
    """The codes of the nearest numbers, ties to even; of the largest for what lies above it."""
    numbers = fp8_values(name)
    halfway = (numbers[1:] + numbers[:-1]) / 2  # exact: one bit more than the format has
    magnitudes = np.abs(values)
    codes = np.searchsorted(halfway, magnitudes, side="left")  # a tie goes down ...
    ties = np.append(halfway, np.inf)[codes] == magnitudes
    codes += ties & (codes % 2 == 1)  # ... unless that is odd
    return (codes | np.signbit(values) << 7).astype(np.uint8)


def _scaled(values: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    largest = float(np.abs(values).max(initial=0))
    if largest == 0:
        return values
    _, exponent = np.frexp(float(fp8_values(name)[-1]) / largest)
    return values * np.float32(math.ldexp(1, int(exponent) - 1))


def _to_integers(values: npt.NDArray[np.float32], largest: int) -> npt.NDArray[np.int8]:
    rows = values.reshape(values.shape[0], -1) if values.ndim > 1 else values.reshape(1, -1)
    scales = np.abs(rows).max(axis=1, keepdims=True) / largest
    return np.rint(rows / np.where(scales > 0, scales, 1)).astype(np.int8).reshape(-1)
