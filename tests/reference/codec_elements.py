"""Elements and what becomes of them: fields, residuals counted in steps, and the tokens these are told in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_TOKENS: Final = 128


@dataclass(frozen=True, slots=True)
class ElementType:
    """``size`` in bytes; ``exponent`` in bits, 0 for what is not floating point."""

    number: int
    size: int
    exponent: int

    @property
    def bits(self) -> int:
        return 8 * self.size

    @property
    def rotates(self) -> bool:
        return self.exponent != 0 and self.size > 1


TYPES: Final[dict[str, ElementType]] = {
    "OPAQUE": ElementType(0, 1, 0),
    "BOOL": ElementType(1, 1, 0),
    "U8": ElementType(2, 1, 0),
    "I8": ElementType(3, 1, 0),
    "F8_E4M3": ElementType(4, 1, 4),
    "F8_E5M2": ElementType(5, 1, 5),
    "U16": ElementType(6, 2, 0),
    "I16": ElementType(7, 2, 0),
    "F16": ElementType(8, 2, 5),
    "BF16": ElementType(9, 2, 8),
    "U32": ElementType(10, 4, 0),
    "I32": ElementType(11, 4, 0),
    "F32": ElementType(12, 4, 8),
    "U64": ElementType(13, 8, 0),
    "I64": ElementType(14, 8, 0),
    "F64": ElementType(15, 8, 11),
}
BY_NUMBER: Final = {element.number: element for element in TYPES.values()}
NAMES: Final = {element.number: name for name, element in TYPES.items()}

# --- elements and residuals ---------------------------------------------------------------------------------


def ordered(value: int, element: ElementType) -> int:
    """An integer that grows with the number that the bits stand for; integers are taken as they are."""
    top = 1 << (element.bits - 1)
    if element.exponent == 0:
        return value
    return 2 * top - 1 - value if value & top else value + top


def from_ordered(value: int, element: ElementType) -> int:
    top = 1 << (element.bits - 1)
    if element.exponent == 0:
        return value
    return value - top if value & top else 2 * top - 1 - value


def residual(value: int, base: int, element: ElementType) -> int:
    """Steps from base to value, away from zero; between minus and plus half of the range."""
    half = 1 << (element.bits - 1)
    steps = ordered(value, element) - ordered(base, element)
    if element.exponent and base & half:
        steps = -steps
    return (steps + half) % (2 * half) - half


def moved(base: int, steps: int, element: ElementType) -> int:
    half = 1 << (element.bits - 1)
    if element.exponent and base & half:
        steps = -steps
    return from_ordered((ordered(base, element) + steps) % (2 * half), element)


@dataclass(frozen=True, slots=True)
class Scheme:
    """``direct``: the largest size with a bucket of its own; ``mantissa``: leading bits of a bucket."""

    direct: int
    mantissa: int

    def limit(self, bits: int) -> int:
        return min(MAX_TOKENS, 2 * (self.direct + (bits - self.mantissa << self.mantissa)) + 1)

    def last_bucket(self, bits: int) -> int:
        """No size needs a later one."""
        return min(MAX_TOKENS // 2, self.direct + (bits - self.mantissa << self.mantissa))

    def raw_bits(self, token: int) -> int:
        above = (token + 1) // 2 - self.direct - 1
        return 0 if above < 0 else above >> self.mantissa

    def split(self, residual: int) -> tuple[int, int]:
        """Token and raw bits of a signed residual."""
        size = abs(residual)
        bucket, place = size, 0
        if size > self.direct:
            shifted = size - self.direct - 1 + (1 << self.mantissa)
            low = shifted.bit_length() - 1 - self.mantissa
            lead = (shifted >> low) - (1 << self.mantissa)
            place = shifted % (1 << low)
            bucket = self.direct + 1 + (low << self.mantissa) + lead
        return 2 * bucket - (residual > 0), place

    def join(self, token: int, raw: int) -> int:
        """The residual, to be taken modulo the element's range."""
        bucket = (token + 1) // 2
        size = bucket
        if bucket > self.direct:
            low, lead = divmod(bucket - self.direct - 1, 1 << self.mantissa)
            implicit = 1 << self.mantissa
            size = (implicit + lead << low) + raw - implicit + self.direct + 1
        return size if token % 2 else -size


def context_field(value: int, element: ElementType) -> int:
    if element.exponent == 0:
        return 0
    return value >> (element.bits - 1 - element.exponent) & ((1 << element.exponent) - 1)


def context(base: int, element: ElementType, context_base: int) -> int:
    return max(0, context_field(base, element) - context_base)
