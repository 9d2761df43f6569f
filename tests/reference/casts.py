"""Casts between float types, one value at a time in exact fractions. Written from docs/format.md, *Casts*."""

from __future__ import annotations

from fractions import Fraction

# Exponent bits, mantissa bits, the pattern of what is too large, and that of a NaN if there is but one.
TYPES = {
    "F8_E4M3": (4, 3, 0x7E, 0x7F),
    "F8_E5M2": (5, 2, 0x7C, 0x7F),
    "F16": (5, 10, 0x7C00, None),
    "BF16": (8, 7, 0x7F80, None),
    "F32": (8, 23, 0x7F800000, None),
    "F64": (11, 52, 0x7FF0000000000000, None),
}


def cast(pattern: int, source: str, target: str) -> int:
    """The pattern of a value of one type, in another."""
    if "F32" not in (source, target):
        return cast(cast(pattern, source, "F32"), "F32", target)
    exponent_bits, mantissa_bits, _, _ = TYPES[source]
    sign = pattern >> (exponent_bits + mantissa_bits)
    exponent = (pattern >> mantissa_bits) % (1 << exponent_bits)
    mantissa = pattern % (1 << mantissa_bits)
    return (sign << (sum(TYPES[target][:2]))) | _magnitude(source, target, exponent, mantissa)


def _magnitude(source: str, target: str, exponent: int, mantissa: int) -> int:
    exponent_bits, mantissa_bits, _, _ = TYPES[source]
    t_exponent_bits, t_mantissa_bits, highest, nan = TYPES[target]
    top = exponent == (1 << exponent_bits) - 1
    if source == "F8_E4M3":
        is_nan, is_infinite = top and mantissa == 7, False
    else:
        is_nan, is_infinite = top and mantissa > 0, top and mantissa == 0
    if is_nan:
        if nan is not None:
            return nan
        moved = t_mantissa_bits - mantissa_bits
        payload = mantissa << moved if moved >= 0 else mantissa >> -moved
        if source != "BF16":
            payload |= 1 << (t_mantissa_bits - 1)
        return (((1 << t_exponent_bits) - 1) << t_mantissa_bits) | payload
    if is_infinite:
        return highest
    bias = (1 << (exponent_bits - 1)) - 1
    significand = Fraction(mantissa, 1 << mantissa_bits) + (1 if exponent else 0)
    value = significand * Fraction(2) ** (max(exponent, 1) - bias)
    return min(_nearest(value, t_exponent_bits, t_mantissa_bits), highest)


def _nearest(value: Fraction, exponent_bits: int, mantissa_bits: int) -> int:
    """The pattern nearest to a value that is not negative, as if there were no highest exponent; ties: the even one."""
    if value == 0:
        return 0
    lowest = 2 - (1 << (exponent_bits - 1))
    power = max(lowest, value.numerator.bit_length() - value.denominator.bit_length() - 1)
    while value >= Fraction(2) ** (power + 1):
        power += 1
    steps = round(value / Fraction(2) ** (power - mantissa_bits))  # Python rounds ties to even
    return steps + ((power - lowest) << mantissa_bits)
