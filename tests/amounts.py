"""How much a run tries: all of it, or what shows where the core reads and writes when a sanitizer watches it.

What the core says is held against the reference by the runs without a sanitizer; the oracle, in Python, would take most
of the time of one with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import pytest

SANITIZED: Final = "TEXTNLP_FAST_SANITIZED" in os.environ

# Of a test that asks the reference alone.
nothing_of_the_core = pytest.mark.skipif(SANITIZED, reason="there is nothing of the core in it")


def bits_to_flip(size_bytes: int, first_bytes: int) -> Iterator[int]:
    """Of a payload: all, or those of its first bytes and of the rest each seventh, in whichever place of a byte."""
    for bit in range(8 * size_bytes):
        if not SANITIZED or bit < 8 * first_bytes or bit % 7 == 0:
            yield bit


def examples(count: int) -> int:
    """Of hypothesis: ``count``, or an eighth of them."""
    return max(count // 8, 10) if SANITIZED else count
