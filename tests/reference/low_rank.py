"""The low-rank recipe from its chapter in docs/format.md, on whole numbers and fractions: no float is ever rounded here
but by :func:`rounded`. Slow; shares nothing with the package.

A value is a ``Fraction``, or one of the strings ``inf``, ``-inf``, ``nan``, ``-0``.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

# Exponent bits, mantissa bits.
FORMATS = {"F32": (8, 23), "BF16": (8, 7), "F16": (5, 10)}
Value = Fraction | str


@lru_cache(1 << 18)
def decoded(bits: int, dtype: str) -> Value:
    exponent_bits, mantissa_bits = FORMATS[dtype]
    mantissa = bits & ((1 << mantissa_bits) - 1)
    exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1)
    negative = bits >> (mantissa_bits + exponent_bits) & 1
    bias = (1 << (exponent_bits - 1)) - 1
    if exponent == (1 << exponent_bits) - 1:
        return "nan" if mantissa else "-inf" if negative else "inf"
    if exponent == 0 and mantissa == 0:
        return "-0" if negative else Fraction(0)
    whole = mantissa if exponent == 0 else mantissa + (1 << mantissa_bits)
    value = Fraction(whole) * Fraction(2) ** (max(exponent, 1) - bias - mantissa_bits)
    return -value if negative else value


def rounded(value: Value, dtype: str) -> int:
    """The bits of the nearest number of the format, ties to even, overflow to infinity, one NaN."""
    exponent_bits, mantissa_bits = FORMATS[dtype]
    top = 1 << (mantissa_bits + exponent_bits)
    infinity = top - (1 << mantissa_bits)
    if isinstance(value, str):
        return {
            "nan": infinity | 1 << (mantissa_bits - 1),
            "inf": infinity,
            "-inf": top | infinity,
            "-0": top,
        }[value]
    size = abs(value)
    bias = (1 << (exponent_bits - 1)) - 1
    # Positive finite numbers, in the order of their bits: find the place by halving, then choose the nearer side.
    low, high = 0, infinity

    def at(bits: int) -> Fraction:
        if bits == infinity:  # where the next number would be, were there one
            found = decoded(infinity - 1, dtype)
            assert isinstance(found, Fraction)
            return found + Fraction(2) ** ((1 << exponent_bits) - 2 - bias - mantissa_bits)
        found = decoded(bits, dtype)
        assert isinstance(found, Fraction)
        return found

    if size >= at(infinity):
        low = high = infinity
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) <= size else (low, middle)
    if low != high:
        below, above = size - at(low), at(high) - size
        low = high if above < below or (above == below and low % 2 == 1) else low
    return low | top if value < 0 else low


def _parts(value: Value) -> tuple[bool, Fraction | str]:
    """Sign (true: negative) and magnitude: a fraction, or ``inf``."""
    if isinstance(value, str):
        return value.startswith("-"), "inf" if value.endswith("inf") else Fraction(0)
    return value < 0, abs(value)


def product(a: Value, b: Value) -> Value:
    """Exact product."""
    if "nan" in (a, b):
        return "nan"
    (a_negative, x), (b_negative, y) = _parts(a), _parts(b)
    negative = a_negative != b_negative
    if "inf" in (x, y):
        return "nan" if 0 in (x, y) else "-inf" if negative else "inf"
    assert isinstance(x, Fraction) and isinstance(y, Fraction)
    size = x * y
    if size == 0:
        return "-0" if negative else Fraction(0)
    return -size if negative else size


def total(a: Value, b: Value) -> Value:
    """Exact sum. Zeros of different signs, and numbers that cancel, make +0."""
    if "nan" in (a, b) or {a, b} == {"inf", "-inf"}:
        return "nan"
    for value in (a, b):
        if value in ("inf", "-inf"):
            return value
    if a == "-0" and b == "-0":
        return "-0"
    return (Fraction(0) if a == "-0" else Fraction(a)) + (Fraction(0) if b == "-0" else Fraction(b))


def in_fp32(value: Value) -> Value:
    return decoded(rounded(value, "F32"), "F32")


def element(base: int, a: list[Value], b: list[Value], scale: Value, dtype: str, rounding: str) -> int:
    """One element: ``a`` is a column of A, ``b`` a row of B, ``base`` bits of ``dtype``. Returns bits of ``dtype``."""
    sum_: Value = Fraction(0)
    for x, y in zip(b, a, strict=True):
        sum_ = in_fp32(total(product(x, y), sum_))
    if rounding == "steps":
        sum_ = decoded(rounded(sum_, dtype), dtype)
    change = in_fp32(product(scale, sum_))
    if rounding in ("delta", "steps"):
        change = decoded(rounded(change, dtype), dtype)
    return rounded(in_fp32(total(decoded(base, dtype), change)), dtype)
