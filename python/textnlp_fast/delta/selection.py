"""Which weights arrive exactly while all others keep the base's bits: the largest changes, or those above a threshold.

A change has a *rank*, a number of 64 bits that grows with it; 0 is none. Changes from or to what is not finite rank
highest and are always kept. The cut between kept and dropped is found by counting ranks digit by digit, in at most five
passes over the blocks, so that memory does not grow with the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.change import Change, Rule
from textnlp_fast.delta.elements import Doubles, Element, Words

__all__ = ["Priority", "threshold_rule", "top_k_rule"]

Ranks = npt.NDArray[np.uint64]

#: Gives what to rank the elements from ``begin`` to ``end`` by in place of their change: not negative, no NaN.
Priority = Callable[[int, int], Doubles]

ALWAYS: Final = np.uint64(2**64 - 1)
_DIGIT_BITS: Final = 16
_DIGITS: Final = 1 << _DIGIT_BITS


def change_sizes(element: Element, target: Words, base: Words) -> Doubles:
    """``|target - base|`` in value, infinite where either is not finite though the bits differ, 0 where they agree."""
    size = np.abs(element.differences(target, base))
    known = element.is_finite(target) & element.is_finite(base)
    return np.where(known, size, np.where(target == base, 0.0, np.inf))


def ranks_of(element: Element, target: Words, base: Words, priority: Doubles | None) -> Ranks:
    changed = target != base
    if priority is None and not element.is_float:
        a, b = element.ordered(target).astype(np.uint64), element.ordered(base).astype(np.uint64)
        return np.asarray(np.where(a >= b, a - b, b - a))
    size = change_sizes(element, target, base) if priority is None else priority.astype(np.float64)
    # Bits of floats that are not negative grow with them; one more, so that -0 for +0 is a change too.
    ranks = (np.abs(size).view(np.uint64) + np.uint64(1)) * changed
    known = element.is_finite(target) & element.is_finite(base)
    return np.asarray(np.where(known | ~changed, ranks, ALWAYS))


def top_k_rule(change: Change, element: Element, share: float, priority: Priority | None) -> Rule:
    """Keeps ``share`` of the weights, rounded up; of equal changes those that come first."""

    def ranks(begin: int, target: Words, base: Words) -> Ranks:
        by = None if priority is None else priority(begin, begin + target.size)
        return ranks_of(element, target, base, by)

    wanted = min(math.ceil(share * change.elements), change.elements)
    if element.is_float:  # of integers it is an ordinary rank: the change from one end to the other
        wanted = max(wanted, sum(int((ranks(*block) == ALWAYS).sum()) for block in change.blocks()))
    cut, kept_at_cut = _cut(change, ranks, wanted)
    last = _place_of(change, ranks, cut, kept_at_cut)

    def rule(begin: int, target: Words, base: Words) -> Words:
        rank = ranks(begin, target, base)
        place = np.arange(begin, begin + target.size)
        kept = (rank > cut) | ((rank == cut) & (place <= last))
        return np.where(kept, target, base)

    return rule


def _cut(change: Change, ranks: Callable[[int, Words, Words], Ranks], wanted: int) -> tuple[np.uint64, int]:
    """The ``wanted``-th highest rank, and how many of the weights at it are among the ``wanted``."""
    prefix = 0
    for shift in range(64 - _DIGIT_BITS, -1, -_DIGIT_BITS):
        counts = np.zeros(_DIGITS, np.int64)
        for block in change.blocks():
            rank = ranks(*block)
            if shift + _DIGIT_BITS < 64:
                rank = rank[(rank >> np.uint64(shift + _DIGIT_BITS)) == np.uint64(prefix)]
            digits = (rank >> np.uint64(shift)) & np.uint64(_DIGITS - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=_DIGITS)
        from_the_top = np.cumsum(counts[::-1])
        place = int(np.searchsorted(from_the_top, wanted))
        wanted -= int(from_the_top[place - 1]) if place else 0
        prefix = prefix << _DIGIT_BITS | (_DIGITS - 1 - place)
    return np.uint64(prefix), wanted


def _place_of(
    change: Change, ranks: Callable[[int, Words, Words], Ranks], rank: np.uint64, number: int
) -> int:
    """The place of the ``number``-th weight of that rank."""
    for begin, target, base in change.blocks():
        places = np.flatnonzero(ranks(begin, target, base) == rank)
        if number <= places.size:
            return begin + int(places[number - 1]) if number else -1
        number -= places.size
    return change.elements


def threshold_rule(element: Element, least: float) -> Rule:
    """Keeps changes of at least ``least``."""

    def rule(_: int, target: Words, base: Words) -> Words:
        return np.where(change_sizes(element, target, base) >= least, target, base)

    return rule
