"""Facts in their order, and what shows that a GPU's counters began anew."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from textnlp_fast.gpu.health.facts import Event, Reading
from textnlp_fast.gpu.health.signals import VOLATILE_COUNTERS
from textnlp_fast.gpu.health.state import GPUState

__all__ = ["Fact", "began_anew", "ordered", "whole"]

Fact = Reading | Event


def began_anew(gpu: GPUState, reading: Reading) -> bool:
    """Whether counters that only grow are smaller than they were: the GPU was reset, or its driver loaded."""
    restarted = False
    for name in VOLATILE_COUNTERS:
        now = getattr(reading, name)
        if now is None:
            continue
        restarted = restarted or now < gpu.counters.get(name, 0)
        gpu.counters[name] = now
    return restarted


def ordered(facts: Iterable[Fact]) -> Sequence[Fact]:
    """By time; at one time events first, then readings, then how many GPUs there are, which lost ones explain."""

    def order(fact: Fact) -> tuple[float, int, str, str, str, int]:
        if isinstance(fact, Reading):
            return (fact.at_s, 1, fact.machine, fact.gpu, "", fact.index)
        rank = 2 if fact.kind == "gpu-count" else 0
        return (fact.at_s, rank, fact.machine, fact.gpu or "", fact.kind, fact.code or 0)

    some = [fact for fact in facts if not math.isnan(fact.at_s)]  # a NaN has no place in time
    keys = [order(fact) for fact in some]
    if len(set(keys)) == len(keys):
        return sorted(some, key=order)
    return sorted(some, key=lambda fact: (*order(fact), repr(fact)))


def whole(text: str) -> int:
    """A small number as text; 0 for what is none."""
    return int(text) if text.isdecimal() and len(text) < 6 else 0
