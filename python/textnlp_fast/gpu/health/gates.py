"""When a polled rule's finding opens, gets worse and ends: hysteresis over the values of one signal.

A level counts once its values have been reached for `for_s` without a break, and by so many readings: at slow polls two
blips would be a minute. The finding ends when values have been good
for `clear_s`. Readings further apart than the rules' `gap_s` say nothing about the time between.
"""

from __future__ import annotations

from typing import Final

from textnlp_fast.gpu.health.rules import PolledRule
from textnlp_fast.gpu.health.state import MOST_TIMES, Gate

__all__ = ["grown", "reached", "step"]

_NOTHING: Final = 0


def grown(gate: Gate, at_s: float, count: float, window_s: float, gap_s: float) -> float | None:
    """How much a counter grew within the window; None at its first value. A counter that fell began anew."""
    before, before_at_s = gate.raw, gate.at_s
    gate.raw = count
    if before is None or before_at_s is None or count < before:
        gate.grown.clear()
        return None if before is None else 0.0
    more, apart_s = count - before, at_s - before_at_s
    if more > 0:
        # What grew unseen is taken as having grown evenly.
        share = min(1.0, window_s / apart_s) if apart_s > max(gap_s, window_s) else 1.0
        gate.grown.append([at_s, more * share])
    gate.grown = [one for one in gate.grown if one[0] > at_s - window_s]
    if len(gate.grown) > MOST_TIMES:
        oldest, next_ = gate.grown[0], gate.grown[1]
        gate.grown[:2] = [[next_[0], oldest[1] + next_[1]]]
    return sum(one[1] for one in gate.grown)


def reached(rule: PolledRule, value: float) -> int:
    """How many of the levels a value reaches."""
    count = 0
    for level in rule.levels:
        if (value <= level.at) if rule.below else (value >= level.at):
            count += 1
        else:
            break
    return count


def step(
    rule: PolledRule, gate: Gate, at_s: float, value: float, *, gap_s: float, clear_s: float
) -> tuple[int, bool]:
    """Takes one value. Returns which level holds now (0: none), and whether the finding, if there is one, ends."""
    levels = len(rule.levels)
    if len(gate.since) != levels:
        gate.since = [None] * levels
        gate.readings = [0] * levels
    if gate.at_s is not None and at_s - gate.at_s > gap_s:
        gate.since = [None] * levels
        gate.readings = [0] * levels
        gate.good_since = None
    gate.at_s = at_s
    count = reached(rule, value)
    level = _NOTHING
    for place in range(levels):
        if place < count:
            since = gate.since[place]
            if since is None:
                since = gate.since[place] = at_s
            gate.readings[place] += 1
            if at_s - since >= rule.for_s and (not rule.for_s or gate.readings[place] >= rule.readings):
                level = place + 1
        else:
            gate.since[place] = None
            gate.readings[place] = 0
    good = count == 0 and (
        rule.clear is None or ((value >= rule.clear) if rule.below else (value <= rule.clear))
    )
    if not good:
        gate.good_since = None
        return level, False
    if gate.good_since is None:
        gate.good_since = at_s
    return level, at_s - gate.good_since >= clear_s
