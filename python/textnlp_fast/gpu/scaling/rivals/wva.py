"""llm-d's workload variant autoscaler (WVA), rebuilt for one variant from llm-d/llm-d-workload-variant-autoscaler 0.9.

Read: internal/saturation (`AnalyzeModelSaturation`, `isScaleDownSafe`, `CalculateSaturationTargets`) and its test,
internal/engines/analyzers/saturation_v2 (`Analyze`, `computeReplicaCapacity`, `computeK2`),
deploy/configmap-saturation-scaling.yaml of v0.7.0 and v0.9.0, docs/developer-guide/saturation-scaling-config.md.
"""

from __future__ import annotations

import math
from typing import Literal

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals.frame import Rival, count_of, gauge_of, rate_of
from textnlp_fast.gpu.scaling.rivals.windows import MaxWindow

__all__ = ["WorkloadVariantAutoscaler"]

_INTERVAL_S = 60.0
_METRIC_WINDOW_S = 60.0
_DOWN_TO_UP = 0.70 / 0.85
"""scaleDownBoundary as a part of scaleUpThreshold, both as published."""
_HISTORY = 10
"""Readings of a saturated replica that its capacity is the mean of; older ones fade, where the real one drops them."""


class WorkloadVariantAutoscaler(Rival):
    """Scales by what replicas hold of their KV cache and by their queues, once a minute.

    `analyzer` "v2", the default since 0.9: the demand is what the KV caches hold and what waits; a replica's capacity
    is 80 % of its cache, or less where it was seen to queue with less. It orders what `demand / scaleUpThreshold`
    (0.85) lacks of all replicas, those that start included, and gives back what `demand / scaleDownBoundary` (0.70)
    leaves.
    `target_utilisation` is scaleUpThreshold; scaleDownBoundary keeps its ratio to it.

    "v1": one replica more where the spare KV cache up to kvCacheThreshold (0.80) is below kvSpareTrigger (0.1), or the
    spare queue up to queueLengthThreshold (5) below queueSpareTrigger (3); one less where both triggers would still be
    kept with its load on the others; nothing while a replica starts. `target_utilisation` is kvCacheThreshold.

    Metrics are maxima over a minute. Its number is carried out by a horizontal pod autoscaler: up at once, down to the
    largest number of the last 300 s, as that one's defaults are.

    Not rebuilt: observations are means over replicas, so that all are as saturated as the mean; capacity derived from
    vLLM's arguments; several variants, roles, costs and the limiter; scale to zero, which is off by default.
    """

    name = "wva"
    _numbers = ("_seen_capacity", "_readings", "_desired")
    _windows = ("_kv_use", "_queue", "_recommended")

    def __init__(
        self,
        *,
        target_utilisation: float | None = None,
        capacity: ReplicaCapacity | None = None,
        min_instances: int = 1,
        max_instances: int,
        period_s: float = 15.0,
        analyzer: Literal["v1", "v2"] = "v2",
        kv_cache_threshold: float = 0.80,
        queue_length_threshold: float = 5.0,
        kv_spare_trigger: float = 0.1,
        queue_spare_trigger: float = 3.0,
        scale_down_stabilisation_s: float = 300.0,
    ) -> None:
        del capacity  # It measures what a replica carries.
        if analyzer not in ("v1", "v2"):
            raise InvalidInputError(f"analyzer must be v1 or v2, not {analyzer!r}")
        if target_utilisation is None:
            target_utilisation = kv_cache_threshold if analyzer == "v1" else 0.85
        super().__init__(
            target_utilisation=target_utilisation,
            min_instances=min_instances,
            max_instances=max_instances,
            period_s=period_s,
        )
        self._analyzer = analyzer
        self.kv_cache_threshold = target_utilisation if analyzer == "v1" else kv_cache_threshold
        self.scale_up_threshold = target_utilisation
        self.scale_down_boundary = target_utilisation * _DOWN_TO_UP
        self.queue_length_threshold = queue_length_threshold
        self.kv_spare_trigger = kv_spare_trigger
        self.queue_spare_trigger = queue_spare_trigger
        self._kv_use = MaxWindow(_METRIC_WINDOW_S)
        self._queue = MaxWindow(_METRIC_WINDOW_S)
        self._recommended = MaxWindow(scale_down_stabilisation_s)
        self._seen_capacity = 0.0
        self._readings = 0
        self._desired: int | None = None

    def _wanted(
        self, observation: Observation, now_s: float, last_s: float
    ) -> tuple[int, float | None] | None:
        ready, present = count_of(observation.ready), self._present(observation)
        kv_use, waiting = gauge_of(observation.kv_cache_use), gauge_of(observation.waiting_requests)
        if kv_use is not None and waiting is not None and ready:
            self._kv_use.add(now_s, min(1.0, kv_use))
            self._queue.add(now_s, waiting / ready)
        if not self._due(now_s, _INTERVAL_S) or ready is None or present is None:
            return None
        if self._desired is None:
            self._recommended.add(now_s, present)
        if ready == 0:
            # Nothing reports: a request that waits brings the first replica, and what starts is waited for.
            desired, demand = max(present, 1 if waiting else 0), None
        else:
            kv_use, queue = self._kv_use.largest(now_s, -1.0), self._queue.largest(now_s, -1.0)
            if kv_use < 0.0:
                return None
            if self._analyzer == "v1":
                desired, demand = (
                    self.by_spare(kv_use=kv_use, queue=queue, ready=ready, present=present),
                    None,
                )
            else:
                request = self._of_a_request(observation, kv_use, ready)
                desired, demand = self.by_tokens(
                    kv_use=kv_use, queue=queue, request=request, ready=ready, present=present
                )
        self._desired = desired
        upper = int(self._recommended.largest(now_s, desired))
        self._recommended.add(now_s, desired)
        return (desired if desired >= present else max(desired, min(present, upper))), demand

    def by_spare(self, *, kv_use: float, queue: float, ready: int, present: int) -> int:
        """The first analyzer: `kv_use` and `queue` of the mean replica."""
        if present != ready:
            return present
        saturated = kv_use >= self.kv_cache_threshold or queue >= self.queue_length_threshold
        spare_kv = 0.0 if saturated else self.kv_cache_threshold - kv_use
        spare_queue = 0.0 if saturated else self.queue_length_threshold - queue
        if spare_kv < self.kv_spare_trigger or spare_queue < self.queue_spare_trigger:
            return ready + 1
        if ready < 2:
            return ready
        more = ready / (ready - 1)
        keeps_kv = self.kv_cache_threshold - kv_use * more >= self.kv_spare_trigger
        keeps_queue = self.queue_length_threshold - queue * more >= self.queue_spare_trigger
        return ready - 1 if keeps_kv and keeps_queue else ready

    def by_tokens(
        self, *, kv_use: float, queue: float, request: float, ready: int, present: int
    ) -> tuple[int, float]:
        """The second analyzer, and the demand in replicas; `request` is what a waiting one needs of a KV cache."""
        capacity = min(self.kv_cache_threshold, self._capacity(kv_use, queue))
        demand = ready * (kv_use + queue * request)
        lacking = demand / self.scale_up_threshold - present * capacity
        if lacking > 0.0:
            # Rounded, so that what is exactly enough does not order a replica more.
            return present + math.ceil(round(lacking / capacity, 6)), demand / capacity
        spare = ready * capacity - demand / self.scale_down_boundary
        return max(1, present - math.floor(max(0.0, spare) / capacity + 1e-6)), demand / capacity

    def _capacity(self, kv_use: float, queue: float) -> float:
        """What a replica holds when it queues: now, or as it was seen before; all of its cache until then."""
        if queue >= self.queue_length_threshold and kv_use > 0.0:
            self._readings = min(self._readings + 1, _HISTORY)
            self._seen_capacity += (kv_use - self._seen_capacity) / self._readings
            return kv_use
        return self._seen_capacity if self._readings else 1.0

    @staticmethod
    def _of_a_request(observation: Observation, kv_use: float, ready: int) -> float:
        """The part of a replica's KV cache that a waiting request's prompt takes; else what a running one takes."""
        tokens, prompts = gauge_of(observation.decode_tokens), gauge_of(observation.prompt_tokens_rate)
        rate, running = rate_of(observation), gauge_of(observation.running_requests)
        if tokens and prompts and rate:
            return min(1.0, prompts / rate * kv_use * ready / tokens)
        return min(1.0, kv_use * ready / running) if running else 0.0
