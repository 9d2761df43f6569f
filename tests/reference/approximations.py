"""What approximations owe, one weight at a time: plain numbers, exact fractions, no arrays and nothing of the core."""

from __future__ import annotations

import math
from fractions import Fraction

from reference.codec_elements import TYPES, ElementType, ordered

MANTISSA_BITS = {"F8_E4M3": 3, "F8_E5M2": 2, "F16": 10, "BF16": 7, "F32": 23, "F64": 52}


def value(bits: int, dtype: str) -> Fraction | None:
    """The number that the bits stand for; None for infinities and NaNs."""
    element = TYPES[dtype]
    if dtype not in MANTISSA_BITS:
        signed = dtype.startswith("I") and bits >= 1 << (element.bits - 1)
        return Fraction(bits - (1 << element.bits) if signed else bits)
    mantissa_bits = MANTISSA_BITS[dtype]
    sign = -1 if bits >> (element.bits - 1) else 1
    field = bits >> mantissa_bits & ((1 << element.exponent) - 1)
    mantissa = bits & ((1 << mantissa_bits) - 1)
    if field == (1 << element.exponent) - 1 and (dtype != "F8_E4M3" or mantissa == 7):
        return None
    power = max(field, 1) - ((1 << (element.exponent - 1)) - 1) - mantissa_bits
    whole = mantissa + (1 << mantissa_bits if field else 0)
    return sign * whole * Fraction(2) ** power


def steps_apart(a: int, b: int, dtype: str) -> int:
    """Steps between two numbers, counted in the order of their values."""
    element: ElementType = TYPES[dtype]
    if dtype.startswith("I"):
        half = 1 << (element.bits - 1)
        return abs((a ^ half) - (b ^ half))
    return abs(ordered(a, element) - ordered(b, element))


def size_of_change(a: Fraction, b: Fraction) -> float:
    """``|a - b|`` rounded to float64, as changes are compared."""
    try:
        return float(abs(a - b))
    except OverflowError:
        return math.inf


def largest_changes(target: list[int], base: list[int], dtype: str, count: int) -> set[int]:
    """Places of the ``count`` largest changes, the first of equal ones first, and of all that are not finite."""
    sizes: dict[int, float | int] = {}
    always: set[int] = set()
    for place, (after, before) in enumerate(zip(target, base, strict=True)):
        if after == before:
            continue
        a, b = value(after, dtype), value(before, dtype)
        if a is None or b is None:
            always.add(place)
        else:
            sizes[place] = size_of_change(a, b) if dtype in MANTISSA_BITS else int(abs(a - b))
    ranked = sorted(sizes, key=lambda place: (-sizes[place], place))
    return always | set(ranked[: max(0, count - len(always))])


def nearest(exact: Fraction, dtype: str, candidates: list[int]) -> int:
    """Of the candidate bits of one sign the one nearest in value, of two the even one."""
    found = [
        (abs(exact - number), bits & 1, bits)
        for bits in candidates
        if (number := value(bits, dtype)) is not None
    ]
    return min(found)[2]
