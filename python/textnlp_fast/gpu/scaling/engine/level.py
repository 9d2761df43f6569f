"""The load's level through the noise of arrivals: a Kalman filter whose two variances are learned.

Requests come by chance and differ in length, so the load of one period scatters about its level with a variance in
proportion to the level; the scatter is learned from differences between neighbouring periods, where the level has
hardly moved (von Neumann's estimator). The level itself wanders: by how much is what the forecast finds wrong at its
lead, as a random walk would have it. The quotient of both is all that the gain of a local-level filter depends on
(Harvey 1989). A period that lies far above what both allow is a step, not noise, and is taken at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.gpu.scaling.numbers import number, number_or_none

__all__ = ["Level"]

_LEAST: Final = 0.02
"""Replicas: the logarithm's floor."""
_SCATTER_MEMORY: Final = 500.0
"""Periods over which the scatter is learned."""
_SURPRISE: Final = 4.0
"""Standard deviations beyond which a period above the level is a step."""


class Level:
    """`log` is the level's logarithm; `scatter` the variance of a period's work in its mean, in replica-seconds."""

    __slots__ = ("_previous", "log", "replicas", "scatter", "surprised")

    def __init__(self) -> None:
        self.log: float | None = None
        self.replicas = 0.0
        self.scatter = 0.5
        self.surprised = False
        self._previous = 0.0

    def follow(self, load: float, period_s: float, drift: float) -> None:
        """Takes in a period's load; `drift` is the variance of the log level's walk in one period."""
        load = max(load, _LEAST)
        if self.log is None:
            self.log, self._previous = math.log(load), load
            # By way of the logarithm, as after a restart: the last bit may be another.
            self.replicas = math.exp(self.log)
            return
        level = self.replicas
        noise = self.scatter / (period_s * level)
        quotient = drift / noise if noise > 0.0 else 1e6
        gain = 0.5 * (math.sqrt(quotient * quotient + 4.0 * quotient) - quotient)
        innovation = load / level - 1.0
        bound = _SURPRISE * math.sqrt(noise + drift)
        self.surprised = innovation > bound
        # What lies above the bound is believed whole, what lies below as always: no jump at the bound.
        moved = gain * min(innovation, bound) + max(0.0, innovation - bound)
        self.log += math.log1p(max(-0.9, moved))
        self.log = max(self.log, math.log(_LEAST))
        self.replicas = math.exp(self.log)
        step = load - self._previous
        self._previous = load
        # A step up is no scatter: what the bound cut off would make every later period look like noise.
        most = bound * level
        squared = min(step * step, 2.0 * most * most)
        self.scatter += (0.5 * squared * period_s / level - self.scatter) / _SCATTER_MEMORY

    def snapshot(self) -> Mapping[str, Any]:
        return {"log": self.log, "scatter": self.scatter, "previous": self._previous}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.log = number_or_none(state["log"])
        self.replicas = 0.0 if self.log is None else math.exp(self.log)
        self.scatter, self._previous = number(state["scatter"]), number(state["previous"])
