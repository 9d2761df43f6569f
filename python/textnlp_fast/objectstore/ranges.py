"""Several byte ranges of one object, fetched with fewer requests: near neighbours become one."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

__all__ = ["cut", "merged"]

_COALESCE_BYTES = 256 << 10


def merged(starts: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges (start, length), ascending and apart, that cover the wanted ones."""
    groups: list[tuple[int, int]] = []
    for start, length in sorted(zip(starts, lengths, strict=True)):
        if groups:
            first, size = groups[-1]
            if start <= first + size + _COALESCE_BYTES:
                groups[-1] = (first, max(size, start + length - first))
                continue
        groups.append((start, length))
    return groups


def cut(
    groups: Sequence[tuple[int, int]],
    parts: Sequence[memoryview],
    starts: Sequence[int],
    lengths: Sequence[int],
) -> list[memoryview]:
    """The wanted ranges, out of what was read for the groups that :func:`merged` made of them.

    A part that is shorter than its group gives shorter ranges, or empty ones.
    """
    firsts = [first for first, _ in groups]
    ranges = []
    for start, length in zip(starts, lengths, strict=True):
        group = bisect.bisect_right(firsts, start) - 1
        begin = start - firsts[group]
        ranges.append(parts[group][begin : begin + length])
    return ranges
