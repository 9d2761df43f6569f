"""CRC-32C of a whole out of those of its parts (RFC 3720), for who reads parts side by side.

A CRC is a remainder of polynomials over GF(2): bytes that follow multiply what came before by a power of x. As in
zlib's ``crc32_combine``, by Mark Adler.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, cast

__all__ = ["crc32c", "joined_crc32c"]

_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli's, the highest power in the lowest bit
_ONE: Final = 1 << 31


def crc32c(before: int, data: memoryview) -> int:
    """The CRC-32C of bytes that follow others, whose is ``before``; 0 of none."""
    google_crc32c = cast("Any", importlib.import_module("google_crc32c"))  # comes with Google's client
    return int(google_crc32c.extend(before, bytes(data)))


def joined_crc32c(parts: Iterable[tuple[int, int]]) -> int:
    """The CRC-32C of the whole, by the CRC-32C and the length in bytes of each part, in order."""
    whole = 0
    for crc, length in parts:
        whole = _times(_power(length), whole) ^ crc
    return whole


@lru_cache(maxsize=64)
def _power(length: int) -> int:
    """What ``length`` more bytes multiply a remainder by: x to the power of 8 times that."""
    result, factor = _ONE, _ONE >> 8
    while length:
        if length & 1:
            result = _times(factor, result)
        factor = _times(factor, factor)
        length >>= 1
    return result


def _times(left: int, right: int) -> int:
    product, bit = 0, _ONE
    while bit:
        if left & bit:
            product ^= right
        right = right >> 1 ^ _POLYNOMIAL if right & 1 else right >> 1
        bit >>= 1
    return product
