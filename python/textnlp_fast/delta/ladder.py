"""Bounded errors: of all the values that the bound allows, the one that is cheapest to code against the base.

Frames code the residual to the base under a table that the base picks, so what is cheap is a *few* residuals, whichever
they are. Where the base itself is allowed the residual is 0; others go to the nearest rung of a ladder whose rungs are
``2 k + 1`` apart, the farthest at which every residual still has a rung within ``k``. The first rung may stand anywhere
from ``k + 1`` to ``2 k + 1``: low, and small residuals have tokens without raw bits; high, and it catches more of them.
Which is cheaper depends on the tensor, so a sample is coded both ways, and some between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta import codec
from textnlp_fast.delta.change import Change, Rule
from textnlp_fast.delta.elements import Doubles, Element, Mask, Words

__all__ = ["at_most_off", "max_abs_rule", "max_ulp_rule"]

# Where the first rung stands between k + 1 (0) and 2 k + 1 (8).
_EIGHTHS: Final = (8, 7, 6, 4, 2, 0)
_MOST_STEPS: Final = 2**31 - 1


def climbed(element: Element, target: Words, base: Words, steps: Any, eighths: int) -> Words:
    """``target`` moved by at most ``steps`` (a number or one for each element) onto the ladder from ``base``.

    What is not finite stays, and nothing becomes infinite.
    """
    wide = np.uint32 if element.size_bytes <= 2 else np.uint64
    low, high = (wide(bound) for bound in element.ordered_range)
    here, there = element.ordered(target).astype(wide), element.ordered(base).astype(wide)
    # Beyond the type's range more steps allow nothing more, and sums of them must not overflow.
    k = np.minimum(np.asarray(steps, np.uint64), np.uint64(min(2 * element.top, _MOST_STEPS))).astype(wide)
    above = here >= there
    size = np.where(above, here - there, there - here)
    far = np.flatnonzero(size > k)
    k, above, size, start = k[far] if k.ndim else k, above[far], size[far], here[far]
    beyond = size - (wide(1) + k * wide(eighths) // wide(8))
    move = k.astype(np.int64) - (beyond % (wide(2) * k + wide(1))).astype(np.int64)
    move = np.where(above, move, -move)
    # A finite target is between low and high, so what is cut off there only comes closer to it.
    up = np.minimum(np.maximum(move, 0).astype(wide), np.where(start <= high, high - start, wide(0)))
    down = np.minimum(np.maximum(-move, 0).astype(wide), np.where(start >= low, start - low, wide(0)))
    ordered = np.clip(there, low, high)
    ordered[far] = start + up - down
    moved = element.from_ordered(ordered.astype(element.word))
    return np.where(element.is_finite(target), moved, target)


def _cheapest(change: Change, make: Callable[[int], Rule]) -> Rule:
    """Of the rules for each first rung, the one whose sample takes the fewest bytes."""
    target, base = change.sample()
    sizes = {
        eighths: len(
            codec.encode(make(eighths)(0, target, base).data, base.copy().data, dtype=change.dtype, threads=1)
        )
        for eighths in _EIGHTHS
    }
    return make(min(_EIGHTHS, key=sizes.__getitem__))  # the first of equals


def max_ulp_rule(change: Change, element: Element, steps: int) -> Rule:
    """No finite weight moves by more than ``steps``."""

    def make(eighths: int) -> Rule:
        return lambda _, target, base: climbed(element, target, base, steps, eighths)

    return _cheapest(change, make)


def max_abs_rule(change: Change, element: Element, error: float) -> Rule:
    """No finite weight moves by more than ``error`` in value."""
    if not element.is_float:
        whole = min(math.floor(error), _MOST_STEPS)
        return max_ulp_rule(change, element, whole) if whole else lambda _, target, __: target
    allowed = np.array(
        [_steps_within(element, field, error) for field in range(1 << element.exponent_bits)], np.uint64
    )

    def make(eighths: int) -> Rule:
        return lambda _, target, base: _bounded(element, target, base, error, allowed, eighths)

    return _cheapest(change, make)


def _steps_within(element: Element, exponent: int, error: float) -> int:
    step = element.step(exponent)
    return _MOST_STEPS if step == 0 or error / step >= _MOST_STEPS else math.floor(error / step)


def _bounded(
    element: Element, target: Words, base: Words, error: float, allowed: npt.NDArray[np.uint64], eighths: int
) -> Words:
    """The base where allowed, else the ladder of the coarser exponent, whose steps most elements of a context share."""
    finite, held = element.is_finite(target), element.is_finite(base)
    near = held & at_most_off(element.values(target), element.values(base), error)
    sent = np.where(near & finite, base, target)
    far = np.flatnonzero(finite & ~near)
    wanted, start = target[far], base[far]
    steps = allowed[element.exponents(wanted)]
    steps = np.where(held[far], np.minimum(steps, allowed[element.exponents(start)]), steps)
    moved = climbed(element, wanted, start, steps, eighths)
    # Steps grow where the move enters a higher exponent: what comes too far off there stays exact.
    kept = at_most_off(element.values(wanted), element.values(moved), error)
    sent[far] = np.where(kept, moved, wanted)
    return sent


def at_most_off(a: Doubles, b: Doubles, error: float) -> Mask:
    """Whether ``|a - b| <= error``, exactly, though the difference may not fit a float64. False for NaNs."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = a - b
        part = difference - a
        rest = (a - (difference - part)) - (b + part)  # what rounding dropped (Knuth's TwoSum)
        size = np.abs(difference)
        outwards = np.where(difference < 0, -rest, rest) > 0
    return np.asarray((size < error) | ((size == error) & ~outwards))
