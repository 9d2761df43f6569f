"""Neighbours dealt out to stages, so that the largest stage is as small as it can be. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["balanced"]


def balanced(sizes: Sequence[int], stages: int) -> list[int]:
    """Where each of `stages` ends in `sizes`: none is empty, and the largest sum is the least possible.

    There are as many sizes as stages, at least. By bisection over the largest sum: a cap is enough if stages that
    are filled up to it one after the other suffice.
    """
    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        if len(_filled(sizes, middle, 1)) <= stages:
            high = middle
        else:
            low = middle + 1
    return _filled(sizes, low, stages)


def _filled(sizes: Sequence[int], cap: int, least: int) -> list[int]:
    """Ends of stages filled up to `cap`; earlier ones end sooner where otherwise fewer than `least` would come out."""
    ends: list[int] = []
    total = 0
    for place, size in enumerate(sizes):
        left = len(sizes) - place
        must_end = len(ends) + 1 + left <= least
        if place and (total + size > cap or must_end):
            ends.append(place)
            total = 0
        total += size
    ends.append(len(sizes))
    return ends
