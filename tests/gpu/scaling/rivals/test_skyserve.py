"""SkyServe's autoscaler beside the real one, where SkyPilot is installed, and its documented delays."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from gpu.scaling.policy_cases import PolicyCases, observed
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals import rival
from textnlp_fast.gpu.scaling.rivals.skyserve import SkyServeAutoscaler


class TestCases(PolicyCases):
    def make(self) -> Policy:
        return rival(
            "skyserve",
            target_utilisation=0.7,
            capacity=ReplicaCapacity(requests_per_s=2.0),
            min_instances=self.min_instances,
            max_instances=self.max_instances,
            cold_start=ColdStart(),
            period_s=10.0,
        )


class TestFromZero(TestCases):
    min_instances = 0


def _real(
    monkeypatch: pytest.MonkeyPatch, *, least: int, most: int, target_qps: float
) -> tuple[Any, dict[str, float]]:
    """SkyPilot's own class on a clock of ours."""
    autoscalers = pytest.importorskip("sky.serve.autoscalers", reason="SkyPilot is not installed")
    spec = SimpleNamespace(
        min_replicas=least,
        max_replicas=most,
        num_overprovision=None,
        target_qps_per_replica=target_qps,
        upscale_delay_seconds=None,
        downscale_delay_seconds=None,
    )
    clock = {"now_s": 0.0}
    monkeypatch.setattr(autoscalers, "time", SimpleNamespace(time=lambda: clock["now_s"]))
    return autoscalers.RequestRateAutoscaler("service", spec), clock


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("period_s", [5.0, 10.0, 20.0])
def test_as_the_real_one(monkeypatch: pytest.MonkeyPatch, seed: int, period_s: float) -> None:
    chance, least = random.Random(seed), seed % 2
    real, clock = _real(monkeypatch, least=least, most=30, target_qps=1.5)
    rebuilt = SkyServeAutoscaler(
        target_utilisation=0.5,
        capacity=ReplicaCapacity(requests_per_s=3.0),
        min_instances=least,
        max_instances=30,
        period_s=period_s,
    )
    next_s, arrivals, changes, before = 0.0, 10, 0, -1
    for step in range(round(30_000 / period_s)):
        now_s = step * period_s
        if chance.random() < period_s / 400.0:
            arrivals = chance.choice([0, 0, chance.randrange(round(40 * period_s)), chance.randrange(100)])
        # In the middle of each gap's even parts, so that no request lies on a window's edge.
        times = [now_s - period_s + (number + 0.5) * period_s / arrivals for number in range(arrivals)]
        clock["now_s"] = now_s
        real.collect_request_information({"timestamps": times})
        while next_s <= now_s:
            real._generate_scaling_decisions([])
            next_s += real.get_decision_interval()
        decision = rebuilt.decide(observed(now_s, ready=least, rate=arrivals / period_s))
        assert decision.target == real.target_num_replicas
        changes += real.target_num_replicas != before
        before = real.target_num_replicas
    assert changes > 5


def test_the_defaults_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    real, _ = _real(monkeypatch, least=1, most=3, target_qps=1.0)
    rebuilt = SkyServeAutoscaler(capacity=ReplicaCapacity(requests_per_s=1.0), max_instances=3)
    assert rebuilt.scale_up_threshold == real.scale_up_threshold
    assert rebuilt.scale_down_threshold == real.scale_down_threshold
    assert rebuilt.qps_window_s == real.qps_window_size


@pytest.mark.parametrize("period_s", [2.0, 10.0, 20.0, 60.0])
def test_up_after_five_minutes_and_down_after_twenty(period_s: float) -> None:
    policy = SkyServeAutoscaler(
        target_utilisation=1.0,
        capacity=ReplicaCapacity(requests_per_s=1.0),
        max_instances=20,
        period_s=period_s,
    )
    up_s, down_s, now_s = math.inf, math.inf, 0.0
    while now_s < 4000.0:
        rate = 8.0 if 600.0 <= now_s < 1800.0 else 2.0
        target = policy.decide(observed(now_s, ready=2, rate=rate)).target
        if target > 2:
            up_s = min(up_s, now_s)
        elif up_s < math.inf:
            down_s = min(down_s, now_s)
        now_s += period_s
    # The first decision that wants more counts: fifteen of them are 280 s, sixty 1180 s.
    assert 600.0 + 280.0 - period_s <= up_s <= 600.0 + 280.0 + 20.0 + period_s
    assert 1800.0 + 1180.0 - period_s <= down_s <= 1800.0 + 1180.0 + 60.0 + period_s


def test_from_zero_it_goes_at_once() -> None:
    policy = SkyServeAutoscaler(
        target_utilisation=1.0,
        capacity=ReplicaCapacity(requests_per_s=1.0),
        min_instances=0,
        max_instances=20,
        period_s=5.0,
    )
    targets = [
        policy.decide(observed(5.0 * s, ready=0, rate=0.0 if s < 10 else 12.0)).target for s in range(12)
    ]
    assert targets == [0] * 10 + [1, 1]


def test_it_needs_a_rate() -> None:
    with pytest.raises(InvalidInputError, match="requests_per_s"):
        SkyServeAutoscaler(capacity=ReplicaCapacity(concurrency=3.0), max_instances=3)
