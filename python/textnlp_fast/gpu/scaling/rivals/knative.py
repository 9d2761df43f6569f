"""Knative's pod autoscaler (KPA), rebuilt from knative/serving.

Read: pkg/autoscaler/scaling/autoscaler.go (`Scale`, `newAutoscaler`; commit 00a4a55c), autoscaler_test.go beside it
(01f103ef), pkg/autoscaler/metrics/collector.go (c8d5ba94), pkg/autoscaler/aggregation/bucketing.go and its test, and
the defaults in config/core/configmaps/autoscaler.yaml.
"""

from __future__ import annotations

import math

from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals.frame import Rival, count_of, target_load
from textnlp_fast.gpu.scaling.rivals.windows import MaxWindow, MeanWindow

__all__ = ["KnativePodAutoscaler"]

_TICK_S = 2.0


class KnativePodAutoscaler(Rival):
    """Replicas are what the mean of requests in flight (or of the rate) over a minute asks for, at once.

    A second mean, over the last tenth of that window, starts a panic where it asks for twice the ready replicas: until
    a whole stable window has passed without that, the larger of both means decides and nothing goes down. All settings
    are the published defaults; `target_utilisation` is container-concurrency-target-percentage, by default 70 %.

    The panic window of 6 s is made for a scrape a second. With an observation every 2 s it is the mean of three, and
    with one every 10 s the last one alone: as quick as it can be, and noisier than the real one.

    Not rebuilt: the activator and excess burst capacity (they route requests and scale nothing), activation scale,
    initial scale, unreachable revisions.
    """

    name = "knative"
    _numbers = ("_panic_since_s", "_panic_pods", "_zero_since_s")
    _windows = ("_stable", "_panic", "_delay")

    def __init__(
        self,
        *,
        target_utilisation: float = 0.7,
        capacity: ReplicaCapacity,
        min_instances: int = 0,
        max_instances: int,
        period_s: float = _TICK_S,
        stable_window_s: float = 60.0,
        panic_window_percentage: float = 10.0,
        panic_threshold: float = 2.0,
        max_scale_up_rate: float = 1000.0,
        max_scale_down_rate: float = 2.0,
        scale_down_delay_s: float = 0.0,
        scale_to_zero_grace_s: float = 30.0,
    ) -> None:
        super().__init__(
            target_utilisation=target_utilisation,
            min_instances=min_instances,
            max_instances=max_instances,
            period_s=period_s,
        )
        self._signal, self.target_value = target_load(target_utilisation, capacity)
        self.stable_window_s = stable_window_s
        self.panic_threshold = panic_threshold
        self.max_scale_up_rate = max_scale_up_rate
        self.max_scale_down_rate = max_scale_down_rate
        self.scale_down_delay_s = scale_down_delay_s
        self.scale_to_zero_grace_s = scale_to_zero_grace_s
        self._stable = MeanWindow(stable_window_s)
        self._panic = MeanWindow(stable_window_s * panic_window_percentage / 100.0)
        self._delay = MaxWindow(scale_down_delay_s)
        self._panic_since_s: float | None = None
        self._panic_pods: float | None = None
        self._zero_since_s: float | None = None

    def _wanted(self, observation: Observation, now_s: float, last_s: float) -> tuple[int, float] | None:
        value = self._signal(observation)
        if value is not None:
            self._stable.add(last_s, now_s, value)
            self._panic.add(last_s, now_s, value)
        ready = count_of(observation.ready)
        if ready is None or not self._due(now_s, _TICK_S):
            return None
        stable = self._stable.mean(now_s)
        if stable is None:
            return None
        panic = self._panic.mean(now_s) or 0.0
        wanted = self.scale(now_s=now_s, ready=ready, stable=stable, panic=panic)
        return self._after_grace(now_s, wanted), stable / self.target_value

    def scale(self, *, now_s: float, ready: int, stable: float, panic: float) -> int:
        """One tick: `stable` and `panic` are the means over both windows. Before the bounds, as the real one's."""
        if self._panic_pods is None:
            # An autoscaler that begins has no history yet: it keeps at least what runs until it has some.
            self._panic_pods = ready
            if ready > 1:
                self._panic_since_s = now_s
        pods = max(1, ready)
        most, least = math.ceil(self.max_scale_up_rate * pods), math.floor(pods / self.max_scale_down_rate)
        # Means are cut to six digits, or one that should be whole would ask for a replica more.
        for_panic = math.ceil(math.floor(panic * 1e6) / 1e6 / self.target_value)
        for_stable = math.ceil(math.floor(stable * 1e6) / 1e6 / self.target_value)
        desired = min(max(for_stable, least), most)

        if for_panic / pods >= self.panic_threshold:
            self._panic_since_s = now_s
        elif self._panic_since_s is not None and self._panic_since_s + self.stable_window_s < now_s:
            self._panic_since_s, self._panic_pods = None, 0
        if self._panic_since_s is not None:
            desired = max(desired, min(max(for_panic, least), most), int(self._panic_pods))
            self._panic_pods = desired

        if self.scale_down_delay_s > 0.0:
            self._delay.add(now_s, desired)
            desired = int(self._delay.largest(now_s, desired))
        return desired

    def _after_grace(self, now_s: float, wanted: int) -> int:
        """The last replica goes only when none was wanted for the grace period."""
        if wanted > 0:
            self._zero_since_s = None
            return wanted
        if self._zero_since_s is None:
            self._zero_since_s = now_s
        if self._target == 0 or now_s - self._zero_since_s >= self.scale_to_zero_grace_s:
            return 0
        return 1
