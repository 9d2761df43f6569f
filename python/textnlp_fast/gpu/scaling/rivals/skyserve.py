"""SkyServe's request-rate autoscaler, rebuilt from SkyPilot 0.14.1.

Read: sky/serve/autoscalers.py (`RequestRateAutoscaler`, `_AutoscalerWithHysteresis`), sky/serve/constants.py,
sky/serve/controller.py (`_run_autoscaler`, `load_balancer_sync`).
"""

from __future__ import annotations

import math

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals.frame import Rival, rate_of
from textnlp_fast.gpu.scaling.rivals.windows import MeanWindow

__all__ = ["SkyServeAutoscaler"]

_DECISION_S = 20.0
_DECISION_AT_ZERO_S = 5.0
_MOST_MISSED = 1000
"""Decisions that are caught up after a long silence: more than the longest delay has."""


class SkyServeAutoscaler(Rival):
    """Replicas are the requests of the last 60 s, per second, divided by target_qps_per_replica.

    It decides every 20 s, and counts: more replicas come with the fifteenth decision in a row that wants more (300 s),
    and go with the sixtieth that wants fewer (1200 s); each to what that decision wants. From zero it goes at once, and
    decides every 5 s there. Published defaults all; `target_utilisation` gives target_qps_per_replica as a share of
    `capacity.requests_per_s` (there is no published one).

    Decisions that fall between two observations are made at the later one, so that the counts last as long as the real
    ones whatever the spacing. It looks at neither queues nor at how many replicas run: one that is lost is replaced,
    because the target stays.

    Not rebuilt: the load balancer tells its requests every 20 s, so that the real one sees them up to 20 s later; over-
    provisioning and on-demand fallback (num_overprovision, base_ondemand_fallback_replicas; off by default); versions.
    """

    name = "skyserve"
    _numbers = ("_next_s", "_up", "_down", "_replicas")
    _windows = ("_requests",)

    def __init__(
        self,
        *,
        target_utilisation: float = 0.7,
        capacity: ReplicaCapacity,
        min_instances: int = 1,
        max_instances: int,
        period_s: float = 10.0,
        qps_window_s: float = 60.0,
        upscale_delay_s: float = 300.0,
        downscale_delay_s: float = 1200.0,
    ) -> None:
        super().__init__(
            target_utilisation=target_utilisation,
            min_instances=min_instances,
            max_instances=max_instances,
            period_s=period_s,
        )
        if capacity.requests_per_s is None:
            raise InvalidInputError(
                "SkyServe scales by the request rate: capacity has no requests_per_s",
                hint="Give ReplicaCapacity(requests_per_s=...).",
            )
        self.target_value = target_utilisation * capacity.requests_per_s
        self.qps_window_s = qps_window_s
        self.scale_up_threshold = int(upscale_delay_s / _DECISION_S)
        self.scale_down_threshold = int(downscale_delay_s / _DECISION_S)
        self._requests = MeanWindow(qps_window_s)
        self._next_s: float | None = None
        self._up = self._down = 0
        self._replicas = min_instances

    def _wanted(self, observation: Observation, now_s: float, last_s: float) -> tuple[int, float] | None:
        rate = rate_of(observation)
        if rate is not None:
            # Its own load balancer misses no request: what was not read counts as the reading that ends it.
            self._requests.add(self._requests.until(last_s), now_s, rate)
        requests = self._requests.integral(now_s)
        if self._next_s is None:
            # The service begins with its least; here one that already runs goes on from what there is.
            self._next_s = now_s
            self._replicas = self._bounded(self._present(observation) or 0)
        if requests is None:
            self._next_s = max(self._next_s, now_s)
            return None
        qps = round(requests) / self.qps_window_s
        if now_s - self._next_s > _MOST_MISSED * _DECISION_S:
            self._next_s = now_s
        while self._next_s <= now_s + 1e-9:
            self.decision(qps=qps)
            self._next_s += _DECISION_S if self._replicas else _DECISION_AT_ZERO_S
        return self._replicas, qps / self.target_value

    def decision(self, *, qps: float) -> int:
        """One decision of the controller: its target after it."""
        wanted = self._bounded(math.ceil(qps / self.target_value))
        if self._replicas == 0:
            self._replicas = wanted
        elif wanted > self._replicas:
            self._up, self._down = self._up + 1, 0
            if self._up >= self.scale_up_threshold:
                self._up, self._replicas = 0, wanted
        elif wanted < self._replicas:
            self._up, self._down = 0, self._down + 1
            if self._down >= self.scale_down_threshold:
                self._down, self._replicas = 0, wanted
        else:
            self._up = self._down = 0
        return self._replicas
