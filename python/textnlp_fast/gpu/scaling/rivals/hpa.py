"""Kubernetes' horizontal pod autoscaler as KEDA drives it, rebuilt from kubernetes/kubernetes and KEDA's documents.

Read, in pkg/controller/podautoscaler: replica_calculator.go (`GetExternalPerPodMetricReplicas`,
`calcPlainMetricReplicas`, `groupPods`; commit 00067268), horizontal.go (`stabilizeRecommendationWithBehaviors`,
`convertDesiredReplicasWithBehaviorRate`, `calculateScaleUpLimitWithScalingRules`, of 1.26 or later), their tests, and
the documented defaults of `behavior` and of KEDA's ScaledObject (pollingInterval, cooldownPeriod).
"""

from __future__ import annotations

import math
from typing import Literal

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals.frame import Rival, count_of, target_load
from textnlp_fast.gpu.scaling.rivals.windows import MaxWindow, SumWindow

__all__ = ["HorizontalPodAutoscaler"]

_SYNC_S = 15.0
_MOST_MISSED = 8
"""Syncs that are caught up after a long time without an observation: more could not change the outcome."""


class HorizontalPodAutoscaler(Rival):
    """Replicas are the metric's sum divided by its target for one, where they are more than a tenth off.

    Up at once, at most the larger of 100 % and 4 pods in 15 s; down to the largest recommendation of the last 300 s.
    There is no published target: `target_utilisation` is the share of a replica's capacity that it is told.

    `metric` is "external" (KEDA's default, AverageValue: it divides by the target and looks at no pod) or "pods" (a
    custom metric of each pod: pods that do not serve yet are left out, and count as idle where the metric asks for
    more). With `min_instances` 0 the last pod goes after KEDA's cooldownPeriod of 300 s without a request, and comes
    back when KEDA polls, every 30 s.

    Syncs that fall between two observations are made at the later one, each at the time it was due: windows and rate
    limits last as long as the real ones whatever the spacing.
    """

    name = "hpa"
    _numbers = ("_spec", "_active_s", "_polls")
    _windows = ("_recommended", "_added", "_removed")

    def __init__(
        self,
        *,
        target_utilisation: float = 0.7,
        capacity: ReplicaCapacity,
        min_instances: int = 1,
        max_instances: int,
        period_s: float = _SYNC_S,
        metric: Literal["external", "pods"] = "external",
        tolerance: float = 0.1,
        scale_down_stabilisation_s: float = 300.0,
        scale_up_percent: float = 100.0,
        scale_up_pods: int = 4,
        scale_up_period_s: float = 15.0,
        polling_interval_s: float = 30.0,
        cooldown_s: float = 300.0,
    ) -> None:
        super().__init__(
            target_utilisation=target_utilisation,
            min_instances=min_instances,
            max_instances=max_instances,
            period_s=period_s,
        )
        if metric not in ("external", "pods"):
            raise InvalidInputError(f"metric must be external or pods, not {metric!r}")
        self._signal, self.target_value = target_load(target_utilisation, capacity)
        self._target_milli = max(1, round(self.target_value * 1000.0))
        self._metric = metric
        self.tolerance = tolerance
        self.scale_up_factor = 1.0 + scale_up_percent / 100.0
        self.scale_up_pods = scale_up_pods
        self.polling_interval_s = polling_interval_s
        self.cooldown_s = cooldown_s
        self._recommended = MaxWindow(scale_down_stabilisation_s)
        self._added = SumWindow(scale_up_period_s)
        self._removed = SumWindow(scale_up_period_s)
        self._spec: int | None = None
        self._active_s: float | None = None
        self._polls = 0

    def _wanted(self, observation: Observation, now_s: float, last_s: float) -> tuple[int, float] | None:
        due = self._due(now_s, _SYNC_S)
        value = self._signal(observation)
        ready, present = count_of(observation.ready), self._present(observation)
        if value is None or ready is None or present is None:
            return None
        spec = self._spec
        if spec is None:
            spec = present
            # The controller begins with what runs as its first recommendation.
            self._recommended.add(now_s, present)
        if self.min_instances == 0:
            spec = self._activated(now_s, value, spec)
        if due:
            last_tick_s, again = self._tick_time_s(_SYNC_S), min(due, _MOST_MISSED)
            for missed in range(again - 1, -1, -1):
                status = present if missed == again - 1 else max(present, spec)
                spec = self.sync(
                    now_s=last_tick_s - missed * _SYNC_S, metric=value, spec=spec, ready=ready, status=status
                )
        self._spec = spec
        return spec, value / self.target_value

    def _activated(self, now_s: float, metric: float, spec: int) -> int:
        """KEDA's own part: between none and one. The controller does nothing while there is none."""
        if metric > 0.0 or self._active_s is None:
            self._active_s = now_s
        polls = int((now_s - (self._began_s or 0.0)) / self.polling_interval_s + 1e-9)
        if polls == self._polls:
            return spec
        self._polls = polls
        if spec == 0:
            return 1 if metric > 0.0 else 0
        return 0 if metric == 0.0 and now_s - self._active_s >= self.cooldown_s else spec

    def sync(self, *, now_s: float, metric: float, spec: int, ready: int, status: int) -> int:
        """One sync of the controller: the new number in the scale's spec.

        `spec` is the number before, `ready` the pods that serve, `status` all that exist; `metric` is the sum.
        """
        least = max(1, self.min_instances)
        if spec == 0:
            return 0
        if not least <= spec <= self.max_instances:
            wanted = min(max(spec, least), self.max_instances)
        else:
            proposal = self._proposal(metric, spec, ready, status)
            if proposal is None:
                return spec
            wanted = self._normalised(now_s, spec, proposal, least)
        if wanted > spec:
            self._added.add(now_s, wanted - spec)
        elif wanted < spec:
            self._removed.add(now_s, spec - wanted)
        return wanted

    def _proposal(self, metric: float, spec: int, ready: int, status: int) -> int | None:
        """The replica calculator. It counts in whole thousandths; None: it would report an error."""
        total, target = round(metric * 1000.0), self._target_milli
        if self._metric == "external":
            if status == 0:
                return math.ceil(total / target)
            ratio = total / (target * status)
            return math.ceil(total / target) if abs(1.0 - ratio) > self.tolerance else status
        if ready == 0:
            return None
        ratio = (total // ready) / target
        if ratio <= 1.0 or status <= ready:
            return spec if abs(1.0 - ratio) <= self.tolerance else math.ceil(ratio * ready)
        # Pods that start are taken for idle where the others have too much: they may be all that is needed.
        ratio = (total // status) / target
        wanted = math.ceil(ratio * status)
        return spec if ratio - 1.0 <= self.tolerance or wanted < spec else wanted

    def _normalised(self, now_s: float, spec: int, proposal: int, least: int) -> int:
        """The recommendation within the stabilisation window, the rate of growth, and the bounds."""
        upper = int(max(proposal, self._recommended.largest(now_s, proposal)))
        self._recommended.add(now_s, proposal)
        wanted = min(max(spec, proposal), upper)
        if wanted > spec:
            begun = spec - int(self._added.total(now_s)) + int(self._removed.total(now_s))
            limit = max(begun + self.scale_up_pods, math.ceil(begun * self.scale_up_factor))
            return min(wanted, max(limit, spec), self.max_instances)
        return max(wanted, least)
