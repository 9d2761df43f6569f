"""Conversions between float types on bit patterns, so that every machine gives the same bits.

The rules (rounding, overflow, NaN) are those of docs/format.md, *Casts*. Everything goes through F32, as it does in
torch: a type of 8 or 16 bits is looked up in a table of all its patterns, the others are computed with integers.
Arrays are of unsigned integers as wide as the type's elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.bases import WORDS

__all__ = ["FLOAT_BYTES", "cast_bits"]

Bits = npt.NDArray[Any]

#: Bytes of an element by the type's name; any of them can be cast to any other.
FLOAT_BYTES: Final[dict[str, int]] = {"F8_E4M3": 1, "F8_E5M2": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}

# Elements at a time: what is in work stays in the cache.
_BLOCK = 1 << 15


@dataclass(frozen=True, slots=True)
class _Layout:
    """`highest` is the pattern that too large a value becomes, the sign aside; `nan` the one of a NaN, or None
    where a NaN keeps the leading bits of its mantissa."""

    exponent: int
    mantissa: int
    highest: int
    nan: int | None = None

    @property
    def bias(self) -> int:
        return (1 << (self.exponent - 1)) - 1

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent) - 1) << self.mantissa

    @property
    def word(self) -> type[np.unsignedinteger[Any]]:
        return WORDS[(1 + self.exponent + self.mantissa) // 8]


_LAYOUTS: Final = {
    "F8_E4M3": _Layout(4, 3, 0x7E, 0x7F),
    "F8_E5M2": _Layout(5, 2, 0x7C, 0x7F),
    "F16": _Layout(5, 10, 0x7C00),
    "BF16": _Layout(8, 7, 0x7F80),
    "F32": _Layout(8, 23, 0x7F80_0000),
    "F64": _Layout(11, 52, 0x7FF0_0000_0000_0000),
}


def cast_bits(source: Bits, out: Bits, source_type: str, target_type: str) -> None:
    """Write each value of ``source`` in the other type into ``out``: one-dimensional, of equal length."""
    for begin in range(0, len(source), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        out[block] = _converted(source[block], source_type, target_type)


def _converted(bits: Bits, source_type: str, target_type: str) -> Bits:
    if source_type == "BF16" and target_type == "F32":
        shifted: Bits = bits.astype(np.uint32) << np.uint32(16)
        return shifted
    if FLOAT_BYTES[source_type] <= 2:
        return _table(source_type, target_type)[bits]
    if source_type == "F64":
        bits = _narrowed(bits, _LAYOUTS["F64"], _LAYOUTS["F32"])
    if target_type == "F64":
        return _widened_to_f64(bits)
    return bits if target_type == "F32" else _narrowed(bits, _LAYOUTS["F32"], _LAYOUTS[target_type])


@cache
def _table(source_type: str, target_type: str) -> Bits:
    """Every pattern of a type of 8 or 16 bits, in another type."""
    layout = _LAYOUTS[source_type]
    patterns = np.arange(1 << (8 * FLOAT_BYTES[source_type]), dtype=np.uint32)
    if source_type == "BF16":
        bits: Bits = patterns << np.uint32(16)
    else:
        bits = _widened_to_f32(patterns, layout, finite_top=source_type == "F8_E4M3")
    if target_type == "F64":
        bits = _widened_to_f64(bits)
    elif target_type != "F32":
        bits = _narrowed(bits, _LAYOUTS["F32"], _LAYOUTS[target_type])
    bits.flags.writeable = False
    return bits


def _widened_to_f32(patterns: Bits, layout: _Layout, *, finite_top: bool) -> Bits:
    """Values of a type narrower than F32 in exponent and mantissa, none of which is subnormal there.

    `finite_top`: the highest exponent has finite values, and only its last mantissa is a NaN.
    """
    sign = (patterns >> np.uint32(layout.exponent + layout.mantissa)) << np.uint32(31)
    exponent = (patterns >> np.uint32(layout.mantissa)).astype(np.int32) & ((1 << layout.exponent) - 1)
    mantissa = patterns & np.uint32((1 << layout.mantissa) - 1)
    significand = mantissa + (exponent > 0) * np.uint32(1 << layout.mantissa)
    # In F64 no value on the way is subnormal: a processor told to flush those changes nothing.
    place = np.maximum(exponent, 1) - (layout.bias + layout.mantissa)
    bits = np.ldexp(significand.astype(np.float64), place).astype(np.float32).view(np.uint32)
    top = exponent == (1 << layout.exponent) - 1
    last = (1 << layout.mantissa) - 1
    nan = top & (mantissa == last) if finite_top else top & (mantissa > 0)
    if not finite_top:
        bits = np.where(top, np.uint32(0x7F80_0000), bits)
    payload = mantissa << np.uint32(23 - layout.mantissa)
    signed: Bits = np.where(nan, payload | np.uint32(0x7FC0_0000), bits) | sign
    return signed


def _widened_to_f64(bits: Bits) -> Bits:
    """F32 in F64, exactly."""
    wide = bits.astype(np.uint64)
    size = wide & np.uint64(0x7FFF_FFFF)
    exponent = size >> np.uint64(23)
    result: Bits = (size << np.uint64(29)) + np.uint64((1023 - 127) << 52)
    subnormal = np.flatnonzero(exponent == 0)
    if len(subnormal):
        result[subnormal] = np.ldexp(size[subnormal].astype(np.float64), -149).view(np.uint64)
    special = np.flatnonzero(exponent == 255)
    if len(special):
        mantissa = size[special] & np.uint64(0x7F_FFFF)
        quiet = (mantissa > 0) * np.uint64(1 << 51)
        result[special] = np.uint64(0x7FF << 52) | (mantissa << np.uint64(29)) | quiet
    result |= wide >> np.uint64(31) << np.uint64(63)
    return result


def _narrowed(bits: Bits, source: _Layout, target: _Layout) -> Bits:
    """Round to nearest, ties to even, from F64 or F32 into a type with no more exponent and fewer mantissa bits."""
    word = source.word
    width = 1 + source.exponent + source.mantissa
    drop = source.mantissa - target.mantissa
    size = bits & word((1 << (width - 1)) - 1)
    # Where the value is normal in the target, a carry out of the mantissa is the step to the next exponent.
    rebias = source.bias - target.bias
    moved = size - word(rebias << source.mantissa)
    rounded = _halved(moved, word(drop), word(1))
    if rebias:
        small = np.flatnonzero(size < word((rebias + 1) << source.mantissa))
        if len(small):
            rounded[small] = _subnormal(size[small], source, drop + 1 + rebias)
    # Before rounding, all that lies at or above the target's infinity; after, what was rounded up to it.
    np.minimum(rounded, word(target.highest), out=rounded)
    nan = np.flatnonzero(size > word(source.infinity))
    if len(nan):
        if target.nan is not None:
            rounded[nan] = word(target.nan)
        else:
            payload = (size[nan] & word((1 << source.mantissa) - 1)) >> word(drop)
            rounded[nan] = payload | word(target.infinity | 1 << (target.mantissa - 1))
    sign = (bits >> word(width - 1)) << word(target.exponent + target.mantissa)
    signed: Bits = (rounded | sign).astype(target.word)
    return signed


def _halved(values: Bits, drop: Any, one: Any) -> Bits:
    """values / 2^drop to the nearest integer, ties to even."""
    odd = (values >> drop) & one
    halved: Bits = (values + ((one << (drop - one)) - one) + odd) >> drop
    return halved


def _subnormal(size: Bits, source: _Layout, shift_at_zero: int) -> Bits:
    """Patterns of values below the target's smallest normal one: multiples of its smallest step."""
    word = source.word
    exponent = size >> word(source.mantissa)
    hidden = word(1 << source.mantissa)
    significand = (size & (hidden - word(1))) | np.where(exponent > 0, hidden, word(0))
    # Past two bits more than the significand has, everything rounds to zero.
    shift = np.minimum(word(shift_at_zero) - np.maximum(exponent, word(1)), word(source.mantissa + 2))
    return _halved(significand, shift, word(1))
