"""Ray Serve's autoscaler beside the real one, where Ray is installed, and its documented delays."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

from gpu.scaling.policy_cases import PolicyCases, observed
from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals import rival
from textnlp_fast.gpu.scaling.rivals.ray_serve import RayServeAutoscaler


class TestCases(PolicyCases):
    def make(self) -> Policy:
        return rival(
            "ray_serve",
            target_utilisation=0.7,
            capacity=ReplicaCapacity(concurrency=10.0),
            min_instances=self.min_instances,
            max_instances=self.max_instances,
            cold_start=ColdStart(),
            period_s=10.0,
        )


class TestFromZero(TestCases):
    min_instances = 0


class _Real:
    """Ray's own policy function, with the loop around it that the controller runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
        policies = pytest.importorskip("ray.serve.autoscaling_policy", reason="Ray Serve is not installed")
        if not hasattr(policies, "time"):
            pytest.skip("this Ray counts its delays in loops: 2.55 and later go by the clock")
        settings = pytest.importorskip("ray.serve.config")
        names = pytest.importorskip("ray.serve._private.common")
        self._deployment, self._context = (
            names.DeploymentID(name="d", app_name="a"),
            settings.AutoscalingContext,
        )
        self._policy = policies._apply_autoscaling_config(policies.replica_queue_length_autoscaling_policy)
        self.config = settings.AutoscalingConfig(**config)
        self._state: dict[str, Any] = {}
        self.target = 1
        self.now_s = 0.0
        monkeypatch.setattr(policies, "time", SimpleNamespace(time=lambda: self.now_s))

    def decide(self, now_s: float, ongoing: float, running: int) -> int:
        self.now_s = now_s
        context = self._context(
            deployment_id=self._deployment,
            deployment_name="d",
            app_name="a",
            current_num_replicas=running,
            target_num_replicas=self.target,
            running_replicas=[],
            total_num_requests=ongoing,
            total_queued_requests=0.0,
            aggregated_metrics={},
            raw_metrics={},
            capacity_adjusted_min_replicas=self.config.min_replicas,
            capacity_adjusted_max_replicas=self.config.max_replicas,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now_s,
            config=self.config,
        )
        decision, self._state = self._policy(context)
        self.target = max(self.config.min_replicas, min(self.config.max_replicas, decision))
        return self.target


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upscaling_factor": 0.5, "downscaling_factor": 0.3},
        {"upscale_delay_s": 0.0, "downscale_delay_s": 20.0},
        {"upscale_delay_s": 5.0, "downscale_delay_s": 30.0, "downscale_to_zero_delay_s": 90.0},
    ],
)
def test_as_the_real_one(monkeypatch: pytest.MonkeyPatch, seed: int, options: dict[str, float]) -> None:
    chance = random.Random(seed)
    least = seed % 2
    config = {"min_replicas": least, "max_replicas": 25, "target_ongoing_requests": 3.0, **options}
    real = _Real(monkeypatch, config)
    rebuilt = RayServeAutoscaler(
        target_utilisation=0.3,
        capacity=ReplicaCapacity(concurrency=10.0),
        min_instances=least,
        max_instances=25,
        **options,  # type: ignore[arg-type]
    )
    assert rebuilt.target_value == 3.0
    target, running, now_s, ongoing, changes = 1, 1, 0.0, 3.0, 0
    for _ in range(1500):
        now_s += chance.choice([0.1, 1.0, 2.0, 10.0, 10.0, 37.0])
        if chance.random() < 0.05:
            ongoing = chance.choice([0.0, 0.0, 3.0, chance.uniform(0.0, 100.0), float(chance.randrange(80))])
        if running != target and chance.random() < 0.3:
            running = target
        expected = real.decide(now_s, ongoing, running)
        wanted = rebuilt.decision(now_s=now_s, ongoing=ongoing, running=running, target=target)
        assert max(least, min(25, wanted)) == expected
        changes += expected != target
        target = expected
    assert changes > 5


def test_the_defaults_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _Real(monkeypatch, {}).config
    rebuilt = RayServeAutoscaler(capacity=ReplicaCapacity(concurrency=10.0), max_instances=3)
    assert rebuilt.upscale_delay_s == config.upscale_delay_s
    assert rebuilt.downscale_delay_s == config.downscale_delay_s
    assert rebuilt._ongoing.window_s == config.look_back_period_s
    assert rebuilt.upscaling_factor == config.get_upscaling_factor()
    assert rebuilt.downscaling_factor == config.get_downscaling_factor()
    assert config.downscale_to_zero_delay_s is None


def _fleet(period_s: float) -> RayServeAutoscaler:
    return RayServeAutoscaler(
        target_utilisation=0.5,
        capacity=ReplicaCapacity(concurrency=20.0),
        max_instances=50,
        period_s=period_s,
    )


@pytest.mark.parametrize("period_s", [1.0, 2.0, 10.0, 20.0])
def test_up_half_a_minute_after_the_mean_asks_for_it_and_down_ten_minutes_after(period_s: float) -> None:
    policy = _fleet(period_s)
    fleet, up_s, down_s = 2, None, None
    now_s = 0.0
    while now_s <= 2000.0:
        load = 100.0 if 300.0 <= now_s < 600.0 else 20.0
        fleet = policy.decide(observed(now_s, ready=fleet, in_flight=load)).target
        if up_s is None and fleet > 2:
            up_s = now_s
        if up_s is not None and down_s is None and fleet == 2:
            down_s = now_s
        now_s += period_s
    assert up_s is not None
    assert down_s is not None
    assert 330.0 <= up_s <= 330.0 + 2 * period_s
    # Each reading of fewer starts the wait once, and the first is the one that falls out of the window of 30 s.
    assert 1200.0 <= down_s <= 1230.0 + 2 * period_s


@of_hypothesis(deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.floats(0.0, 500.0))
def test_replicas_that_start_are_not_ordered_twice(ready: int, target: int, ongoing: float) -> None:
    """What is wanted depends on the load alone, not on how many of those ordered already run."""
    policy = _fleet(10.0)
    if ready == 0:
        assert policy.decision(now_s=0.0, ongoing=ongoing, running=0, target=target) in (
            target,
            max(1, target),
        )
    else:
        policy.upscale_delay_s = policy.downscale_delay_s = policy.downscale_to_zero_delay_s = 0.0
        wanted = policy.decision(now_s=0.0, ongoing=ongoing, running=ready, target=target)
        assert abs(wanted - ongoing / 10.0) <= 1.0 + 1e-9 or wanted in (1, target)


def test_without_running_replicas_the_first_request_brings_one_at_once() -> None:
    policy = _fleet(10.0)
    assert policy.decision(now_s=0.0, ongoing=0.0, running=0, target=0) == 0
    assert policy.decision(now_s=0.1, ongoing=5.0, running=0, target=0) == 1
    assert policy.decision(now_s=0.2, ongoing=500.0, running=0, target=1) == 1
