"""What the bits of a weight stand for: its value, and its place among the values that its dtype can hold."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.codec import DTYPES

__all__ = ["Bits", "Values", "bits_of", "changes", "counts_ulps", "ulp_distances", "values_of"]

Bits = npt.NDArray[np.unsignedinteger[Any]]
Values = npt.NDArray[np.float64]

# Element bytes where the codec's own table does not tell them; other dtypes that it does not know go by the byte.
_ELEMENT_BYTES: Final = {"C64": 8} | {
    name: size
    for size, names in {
        1: ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"),
        2: ("U16", "I16", "F16", "BF16"),
        4: ("U32", "I32", "F32"),
        8: ("U64", "I64", "F64"),
    }.items()
    for name in names
}
_PLAIN: Final = {
    "BOOL": "u1",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
# Exponent bits, bias; what 0x80 and the topmost codes mean follows in `_eight_bit_floats`.
_EIGHT_BITS: Final = {
    "F8_E4M3": (4, 7),
    "F8_E5M2": (5, 15),
    "F8_E4M3FNUZ": (4, 8),
    "F8_E5M2FNUZ": (5, 16),
}
_FLOATS: Final = frozenset({"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"})


def counts_ulps(dtype: str) -> bool:
    """Whether steps between neighbouring values mean something for this safetensors dtype."""
    return dtype in DTYPES and dtype != "OPAQUE"


def bits_of(data: memoryview, dtype: str) -> Bits:
    """The elements as unsigned numbers; single bytes for dtypes of less or of unknown size."""
    size = _ELEMENT_BYTES.get(dtype, 1)
    return np.frombuffer(data, dtype=np.dtype(f"<u{size}"))


def values_of(bits: Bits, dtype: str) -> Values | None:
    """The values that the elements stand for, in float64; None for dtypes without such a meaning here.

    Exact, but for 64-bit integers beyond 2^53. Complex numbers and packed 4- and 6-bit floats give None.
    """
    if dtype in _PLAIN or dtype == "BF16":
        plain = (
            (bits.astype("<u4") << np.uint32(16)).view("<f4") if dtype == "BF16" else bits.view(_PLAIN[dtype])
        )
        with np.errstate(invalid="ignore"):  # signalling NaNs
            return np.asarray(plain, dtype=np.float64)
    if dtype in _EIGHT_BITS or dtype == "F8_E8M0":
        return np.take(_eight_bit_floats(dtype), bits)
    return None


def changes(old: Bits, new: Bits, dtype: str) -> Values | None:
    """New value less old, element by element, in float64; infinities and NaNs as they fall.

    64-bit integers are subtracted before they are rounded, so that small changes of large numbers survive.
    """
    if dtype in ("U64", "I64"):
        flip = np.uint64(1 << 63 if dtype == "I64" else 0)
        a, b = old ^ flip, new ^ flip
        up: Values = (b - a).astype(np.float64)
        down: Values = (a - b).astype(np.float64)
        return np.where(b >= a, up, -down)
    before, after = values_of(old, dtype), values_of(new, dtype)
    if before is None or after is None:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        return np.subtract(after, before)


def ulp_distances(old: Bits, new: Bits, dtype: str) -> npt.NDArray[np.uint64]:
    """Steps between neighbouring representable values from old to new; units for integers.

    Counts as the core's `diff` does: bits decide, so -0 and +0 are one step apart.
    """
    a, b = _ordered(old, dtype), _ordered(new, dtype)
    return np.where(b >= a, b - a, a - b).astype(np.uint64)


def _ordered(bits: Bits, dtype: str) -> Bits:
    top = bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))
    if dtype in _FLOATS:
        return np.where(bits & top, ~bits, bits | top)
    return bits ^ top if dtype in ("I8", "I16", "I32", "I64") else bits


@cache
def _eight_bit_floats(dtype: str) -> Values:
    """The 256 values of an 8-bit float (OCP 8-bit floating point; FNUZ: the variant without -0 and infinity)."""
    if dtype == "F8_E8M0":
        return np.array([2.0 ** (code - 127) for code in range(255)] + [np.nan])
    exponent_bits, bias = _EIGHT_BITS[dtype]
    mantissa_bits = 7 - exponent_bits
    values = np.empty(256)
    for code in range(256):
        exponent = code >> mantissa_bits & (1 << exponent_bits) - 1
        fraction = (code & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
        size = (1 + fraction) * 2.0 ** (exponent - bias) if exponent else fraction * 2.0 ** (1 - bias)
        values[code] = -size if code & 0x80 else size
    if dtype.endswith("FNUZ"):
        values[0x80] = np.nan
    elif dtype == "F8_E4M3":
        values[[0x7F, 0xFF]] = np.nan
    else:
        values[[0x7C, 0xFC]] = np.inf, -np.inf
        values[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    values.flags.writeable = False
    return values
