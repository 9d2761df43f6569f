"""Ray Serve's autoscaler, rebuilt from Ray 2.60 (2.55's decides alike).

Read: python/ray/serve/autoscaling_policy.py (`replica_queue_length_autoscaling_policy`, `_apply_scaling_factors`,
`_apply_delay_logic`, `_get_cold_start_scale_up_replicas`), python/ray/serve/config.py (`AutoscalingConfig`), and
python/ray/serve/_private/autoscaling_state.py (`get_total_num_requests`, `apply_bounds`).
"""

from __future__ import annotations

import math

from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals.frame import Rival, count_of, target_load
from textnlp_fast.gpu.scaling.rivals.windows import MeanWindow

__all__ = ["RayServeAutoscaler"]

_CLOSE_S = 1e-6
"""Delays count as over this much before: differences of large times are that rough."""


class RayServeAutoscaler(Rival):
    """Replicas are the mean of ongoing requests over 30 s divided by target_ongoing_requests.

    More replicas come once more were wanted for 30 s without a break, and go once fewer were wanted for 600 s without a
    break: as many as are wanted at that moment. Published defaults all; `target_utilisation` gives
    target_ongoing_requests as a share of a replica's capacity (published: 2 requests, made for no LLM).

    The current number in its formula is that of running replicas, and what it compares with is its own target: replicas
    that start are not ordered twice. Its loop runs every 0.1 s, so that each observation is a decision; delays go by
    the clock, as in Ray 2.55 and later (earlier ones counted loops).

    Not rebuilt: metrics are pushed every 10 s, so that the real one sees requests up to 10 s later; application-level
    policies, target capacity, gangs. The wanted number is bounded after the delays, not before.
    """

    name = "ray_serve"
    _numbers = ("_direction", "_since_s")
    _windows = ("_ongoing",)

    def __init__(
        self,
        *,
        target_utilisation: float = 0.7,
        capacity: ReplicaCapacity,
        min_instances: int = 1,
        max_instances: int,
        period_s: float = 10.0,
        look_back_period_s: float = 30.0,
        upscale_delay_s: float = 30.0,
        downscale_delay_s: float = 600.0,
        downscale_to_zero_delay_s: float | None = None,
        upscaling_factor: float = 1.0,
        downscaling_factor: float = 1.0,
    ) -> None:
        super().__init__(
            target_utilisation=target_utilisation,
            min_instances=min_instances,
            max_instances=max_instances,
            period_s=period_s,
        )
        self._signal, self.target_value = target_load(target_utilisation, capacity)
        self.upscale_delay_s = upscale_delay_s
        self.downscale_delay_s = downscale_delay_s
        self.downscale_to_zero_delay_s = (
            downscale_delay_s if downscale_to_zero_delay_s is None else downscale_to_zero_delay_s
        )
        self.upscaling_factor = upscaling_factor
        self.downscaling_factor = downscaling_factor
        self._ongoing = MeanWindow(look_back_period_s)
        self._direction = 0
        self._since_s: float | None = None

    def _wanted(self, observation: Observation, now_s: float, last_s: float) -> tuple[int, float] | None:
        value = self._signal(observation)
        if value is not None:
            # A gauge stays what it was until it is read again: what was missed counts as the reading that ends it.
            self._ongoing.add(self._ongoing.until(last_s), now_s, value)
        ready = count_of(observation.ready)
        ongoing = self._ongoing.mean(now_s)
        if ready is None or ongoing is None:
            return None
        if self._target is None:
            self._target = self._bounded(self._present(observation) or 0)
        wanted = self.decision(now_s=now_s, ongoing=ongoing, running=ready, target=self._target)
        return wanted, ongoing / self.target_value

    def decision(self, *, now_s: float, ongoing: float, running: int, target: int) -> int:
        """One pass of the control loop, before the bounds: `target` is what the pass before ended with."""
        if running == 0:
            # Nothing runs: the first request brings a replica at once, and nothing else changes the target.
            return max(math.ceil(self.upscaling_factor), target) if ongoing > 0.0 else target
        desired = running * (ongoing / (self.target_value * running))
        return self._after_delay(now_s, max(0, self._scaled(desired, running)), target)

    def _scaled(self, desired: float, running: int) -> int:
        change = desired - running
        scaled = math.ceil(
            running + (self.upscaling_factor if change > 0 else self.downscaling_factor) * change
        )
        if math.ceil(desired) < running and scaled == running:
            scaled -= 1
        return scaled

    def _after_delay(self, now_s: float, desired: int, target: int) -> int:
        direction = (desired > target) - (desired < target)
        if direction != self._direction or direction == 0:
            self._direction, self._since_s = direction, now_s
        if direction == 0:
            return target
        delay_s = self.upscale_delay_s
        if direction < 0:
            # Only the last replica may leave none behind.
            delay_s = self.downscale_to_zero_delay_s if target == 1 else self.downscale_delay_s
            desired = desired if target == 1 else max(1, desired)
        if now_s - (self._since_s or 0.0) + _CLOSE_S < delay_s:
            return target
        self._direction, self._since_s = 0, None
        return desired
