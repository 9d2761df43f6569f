"""What an HPA does with one External metric of type AverageValue, written after Kubernetes' own description of it.

"Horizontal Pod Autoscaling", sections Algorithm details, Support for configurable scaling behaviour; and for what the
text leaves open pkg/controller/podautoscaler (replica_calculator.go, horizontal.go). Shares nothing with the package.
Times are seconds, quantities thousandths as on the wire.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Rules:
    """One direction of `behavior`; the defaults are Kubernetes' for scaling up."""

    stabilization_s: float = 0.0
    policies: list[tuple[str, int, float]] = field(
        default_factory=lambda: [("Pods", 4, 15.0), ("Percent", 100, 15.0)]
    )


@dataclass
class Hpa:
    replicas: int
    least: int = 1
    most: int = 1000
    tolerance_up: float = 0.1
    tolerance_down: float = 0.1
    holds_at_edge: bool = True
    """1.33 and later compare the ratio with 1 + tolerance; before, |1 - ratio| with the tolerance."""
    up: Rules = field(default_factory=Rules)
    down: Rules = field(default_factory=lambda: Rules(300.0, [("Percent", 100, 15.0)]))
    wanted_before: list[tuple[float, int]] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)

    def proposal(self, value_milli: int, target_milli: int = 1000) -> int:
        if self.replicas == 0:
            return 0  # an HPA whose target has no replicas does nothing: KEDA brings the first
        ratio = float(value_milli) / (float(target_milli) * float(self.replicas))
        if self.holds_at_edge:
            within = 1.0 - self.tolerance_down <= ratio <= 1.0 + self.tolerance_up
        else:
            within = abs(1.0 - ratio) <= self.tolerance_up
        return self.replicas if within else math.ceil(float(value_milli) / float(target_milli))

    def step(self, now_s: float, value: float) -> int:
        """One round with the metric at `value`; the replicas there are afterwards."""
        if self.replicas == 0:
            return 0
        wanted = self._stabilized(now_s, self.proposal(math.ceil(value * 1000)))
        wanted = self._limited(now_s, wanted)
        wanted = min(max(wanted, self.least), self.most)
        if wanted != self.replicas:
            self.changes.append((now_s, wanted - self.replicas))
            self.replicas = wanted
        return self.replicas

    def _stabilized(self, now_s: float, wanted: int) -> int:
        self.wanted_before.append((now_s, wanted))
        up = min(count for at, count in self.wanted_before if now_s - at <= self.up.stabilization_s)
        down = max(count for at, count in self.wanted_before if now_s - at <= self.down.stabilization_s)
        return min(max(self.replicas, up), down)

    def _limited(self, now_s: float, wanted: int) -> int:
        if wanted > self.replicas:
            limits = []
            for kind, value, period_s in self.up.policies:
                begun = self.replicas - sum(by for at, by in self.changes if by > 0 and now_s - at < period_s)
                limits.append(begun + value if kind == "Pods" else math.ceil(begun * (1 + value / 100)))
            return min(wanted, max(*limits, self.replicas))
        limits = []
        for kind, value, period_s in self.down.policies:
            begun = self.replicas - sum(by for at, by in self.changes if by < 0 and now_s - at < period_s)
            limits.append(begun - value if kind == "Pods" else int(begun * (1 - value / 100)))
        return max(wanted, min(*limits, self.replicas))
