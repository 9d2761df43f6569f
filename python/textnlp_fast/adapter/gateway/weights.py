"""From queues and caches to weights. Pure: no clock, no network.

HAProxy sends each request to the replica with the fewest in flight for its weight, so a weight is a guess of what a
replica carries beside the others. Where requests wait in an engine, what runs is all it can, and the guess was too
high by what waits; where some run and none wait it may be too low. So weights fall by the share that waits, grow by a
little while none does, as windows of TCP do, and are read beside the largest: how busy the fleet is cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["LEAST", "ReplicaLoad", "next_weights", "percent"]

#: No replica that is ready weighs less: what gets nothing cannot show that it is better again.
LEAST: Final = 0.02
# Of the way to where the queue points, in one step; and no step is larger than these.
_GAIN: Final = 0.5
_LARGEST_FALL: Final = 0.7
_GROWTH: Final = 0.04
# Above this a KV cache is about to preempt requests, which costs all their work.
_FULL_FROM: Final = 0.9


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What an engine says of itself: requests that run and wait, and the share of its KV cache that is used."""

    running: float = 0.0
    waiting: float = 0.0
    kv_use: float = 0.0


def next_weights(before: Mapping[str, float], loads: Mapping[str, ReplicaLoad | None]) -> dict[str, float]:
    """Weights of all replicas in `loads`, in [LEAST, 1], the largest 1; one unseen before begins at the mean.

    None is a replica that was not heard: it keeps its weight. More waiting, or a fuller cache, never gives a replica
    more weight.
    """
    if not loads:
        return {}
    known = [before[name] for name in loads if name in before]
    begin = sum(known) / len(known) if known else 1.0
    moved = {name: _moved(before.get(name, begin), load) for name, load in loads.items()}
    largest = max(moved.values())
    return {name: max(LEAST, weight / largest) for name, weight in moved.items()}


def percent(weight: float, share: float = 1.0) -> int:
    """What the agent answers: 0 for a share of none, else 1 to 100."""
    if not share > 0:
        return 0
    return max(1, min(100, round(100 * weight * min(share, 1.0))))


def _moved(weight: float, load: ReplicaLoad | None) -> float:
    if load is None or not all(
        math.isfinite(x) and x >= 0 for x in (load.running, load.waiting, load.kv_use)
    ):
        return weight
    # A few that wait for the next step of the engine are no queue.
    waiting = max(0.0, load.waiting - 1)
    carried = (load.running + 1) / (load.running + 1 + waiting)
    room = min(1.0, max(0.0, (1 - load.kv_use) / (1 - _FULL_FROM)))
    factor = carried * (0.5 + 0.5 * room)
    if factor >= 1:
        return weight + (_GROWTH if load.running > 0 else 0.0)  # who idles has shown nothing
    return weight * max(_LARGEST_FALL, 1 + _GAIN * (factor - 1))
