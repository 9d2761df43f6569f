"""The pod autoscaler against the numbers of its own tests, and against a slow one that keeps everything it ever did."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu.scaling.policy_cases import PolicyCases, observed
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals import rival
from textnlp_fast.gpu.scaling.rivals.hpa import HorizontalPodAutoscaler


class TestCases(PolicyCases):
    def make(self) -> Policy:
        return rival(
            "hpa",
            target_utilisation=0.7,
            capacity=ReplicaCapacity(concurrency=10.0),
            min_instances=self.min_instances,
            max_instances=self.max_instances,
            cold_start=ColdStart(),
            period_s=10.0,
        )


class TestFromZero(TestCases):
    min_instances = 0


def _autoscaler(
    target: float, *, least: int = 1, most: int = 1000, **options: Any
) -> HorizontalPodAutoscaler:
    return HorizontalPodAutoscaler(
        target_utilisation=1.0,
        capacity=ReplicaCapacity(concurrency=target),
        min_instances=least,
        max_instances=most,
        **options,
    )


@pytest.mark.parametrize(
    ("target", "metric", "replicas", "wanted"),
    [
        pytest.param(2.222, 8.6, 3, 4, id="ScaleUpPerPodCMExternal"),
        pytest.param(3.0, 8.6, 5, 3, id="ScaleDownPerPodCMExternal"),
        pytest.param(2.867, 8.6, 3, 3, id="exactly as it is"),
        pytest.param(1.0, 10.9, 10, 10, id="not quite a tenth above is tolerated"),
        pytest.param(1.0, 11.1, 10, 12, id="more than a tenth above is not"),
        pytest.param(1.0, 9.0, 10, 10, id="a tenth below is tolerated"),
        pytest.param(1.0, 8.9, 10, 9, id="more than a tenth below is not"),
        pytest.param(0.7, 2.1, 5, 3, id="thousandths, not floating point"),
    ],
)
def test_external_metric(target: float, metric: float, replicas: int, wanted: int) -> None:
    policy = _autoscaler(target)
    assert policy.sync(now_s=0.0, metric=metric, spec=replicas, ready=replicas, status=replicas) == wanted


@pytest.mark.parametrize(
    ("target", "levels", "pending", "wanted"),
    [
        pytest.param(15.0, [20.0, 10.0, 30.0], 0, 4, id="ScaleUpCM"),
        pytest.param(15.0, [50.0, 10.0, 30.0], 0, 6, id="ScaleUpCMUnreadyHotCpuNoLessScale"),
        pytest.param(15.0, [50.0, 15.0, 30.0], 0, 7, id="ScaleUpCMUnreadyHotCpuScaleWouldScaleDown"),
        pytest.param(0.3, [0.5, 0.7], 1, 4, id="ScaleUpUnreadyLessScale"),
        pytest.param(0.3, [0.4], 2, 3, id="ScaleUpUnreadyNoScale"),
    ],
)
def test_metric_of_each_pod(target: float, levels: list[float], pending: int, wanted: int) -> None:
    policy = _autoscaler(target, metric="pods")
    ready, status = len(levels), len(levels) + pending
    assert policy.sync(now_s=0.0, metric=sum(levels), spec=status, ready=ready, status=status) == wanted


@pytest.mark.parametrize(
    ("spec", "proposal", "least", "most", "wanted"),
    [
        pytest.param(5, 7, 3, 8, 7, id="prenormalized desired replicas within range"),
        pytest.param(3, 1, 2, 8, 2, id="prenormalized desired replicas < minReplicas"),
        pytest.param(20, 1000, 1, 10, 10, id="maxReplicas is the limit"),
        pytest.param(100, 1000, 100, 150, 150, id="more than the maximum replica count"),
        pytest.param(10, 50, 1, 1000, 20, id="scaleUp with default behavior"),
        pytest.param(3, 1000, 1, 2000, 7, id="four pods are more than 100 % of three"),
        pytest.param(1, 2, 2, 6, 2, id="ScaleUpRCImmediately"),
        pytest.param(6, 3, 2, 5, 5, id="ScaleDownRCImmediately"),
    ],
)
def test_one_step_is_bounded(spec: int, proposal: int, least: int, most: int, wanted: int) -> None:
    policy = _autoscaler(1.0, least=least, most=most)
    assert policy.sync(now_s=0.0, metric=float(proposal), spec=spec, ready=spec, status=spec) == wanted


@pytest.mark.parametrize(
    ("recommendations", "wanted"),
    [
        pytest.param([], 3, id="empty log"),
        pytest.param([(4, 120.0), (5, 60.0)], 5, id="stabilize"),
        pytest.param([(1, 120.0), (2, 60.0)], 3, id="no stabilize"),
        pytest.param([(10, 600.0), (9, 540.0)], 3, id="no stabilize - old recommendations"),
        pytest.param(
            [(10, 600.0), (9, 540.0), (5, 120.0), (4, 60.0)], 5, id="stabilize - old recommendations"
        ),
    ],
)
def test_stabilisation(recommendations: list[tuple[int, float]], wanted: int) -> None:
    policy = _autoscaler(1.0)
    for replicas, ago_s in recommendations:
        policy._recommended.add(-ago_s, replicas)
    assert policy.sync(now_s=0.0, metric=3.0, spec=5, ready=5, status=5) == wanted


class _Slow:
    """The controller with plain lists, as its documents describe it."""

    def __init__(self, first: int) -> None:
        self.recommended = [(0.0, first)]
        self.changes: list[tuple[float, int]] = []
        self.spec = first

    def sync(self, now_s: float, load: int, most: int) -> int:
        proposal = self.spec if abs(1.0 - load / self.spec) <= 0.1 else load
        recent = [n for time_s, n in self.recommended if time_s > now_s - 300.0] + [proposal]
        self.recommended.append((now_s, proposal))
        wanted = proposal if proposal >= self.spec else min(self.spec, max(recent))
        if wanted > self.spec:
            begun = self.spec - sum(n for time_s, n in self.changes if time_s > now_s - 15.0)
            wanted = max(self.spec, min(wanted, max(begun + 4, 2 * begun)))
        wanted = max(1, min(most, wanted))
        self.changes.append((now_s, wanted - self.spec))
        self.spec = wanted
        return wanted


@settings(deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=80))
def test_against_a_slow_one_at_its_own_pace(loads: list[int]) -> None:
    policy, slow = _autoscaler(1.0, most=60), _Slow(5)
    fleet = 5
    for step, load in enumerate(loads):
        now_s = 15.0 * step
        decision = policy.decide(observed(now_s, ready=fleet, in_flight=float(load)))
        fleet = slow.sync(now_s, load, 60)
        assert decision.target == fleet


@pytest.mark.parametrize("period_s", [2.0, 5.0, 10.0, 15.0, 60.0])
def test_growth_lasts_as_long_whatever_the_spacing(period_s: float) -> None:
    """From 2 to 500: 6, 12, 24, ..., 384, 500 at seconds 0, 15, 30, ..."""
    policy = _autoscaler(1.0, period_s=period_s)
    fleet, reached_s = 2, math.inf
    for step in range(200):
        now_s = step * period_s
        fleet = policy.decide(observed(now_s, ready=2, starting=fleet - 2, in_flight=500.0)).target
        if fleet == 500:
            reached_s = now_s
            break
    assert 105.0 <= reached_s <= 105.0 + period_s


def test_what_was_added_within_the_period_counts_against_its_limit() -> None:
    """100 % in a minute: from ten to twenty at once, and no further until that is a minute old."""
    policy = _autoscaler(1.0, scale_up_period_s=60.0, period_s=15.0)
    fleet, targets = 10, []
    for step in range(10):
        fleet = policy.decide(observed(15.0 * step, ready=fleet, in_flight=500.0)).target
        targets.append(fleet)
        state = dict(policy.snapshot())
        policy = _autoscaler(1.0, scale_up_period_s=60.0, period_s=15.0)
        policy.restore(state)
    assert targets == [20, 20, 20, 20, 40, 40, 40, 40, 80, 80]


@pytest.mark.parametrize("period_s", [2.0, 10.0, 15.0, 60.0])
def test_down_after_five_minutes_whatever_the_spacing(period_s: float) -> None:
    policy = _autoscaler(1.0, period_s=period_s)
    fleet, fallen_s = 20, math.inf
    for step in range(round(1200 / period_s)):
        now_s = step * period_s
        fleet = policy.decide(observed(now_s, ready=fleet, in_flight=20.0 if now_s < 600.0 else 5.0)).target
        if fleet == 5:
            fallen_s = now_s
            break
    # Syncs that fall between two observations already know the later one.
    assert 900.0 - max(15.0, period_s) <= fallen_s <= 900.0 + 15.0 + period_s


def test_pods_that_start_count_as_there_for_the_external_metric() -> None:
    policy = _autoscaler(10.0, period_s=15.0)
    decisions = [policy.decide(observed(15.0 * s, ready=2, starting=4, in_flight=60.0)) for s in range(4)]
    assert [decision.target for decision in decisions] == [6, 6, 6, 6]


def test_none_after_keda_s_cooldown_and_one_at_the_next_poll() -> None:
    policy = _autoscaler(10.0, least=0, period_s=10.0)
    fleet, gone_s, back_s = 3, math.inf, math.inf
    for step in range(200):
        now_s = 10.0 * step
        load = 30.0 if now_s < 100.0 or now_s >= 1005.0 else 0.0
        fleet = policy.decide(observed(now_s, ready=fleet, in_flight=load)).target
        if fleet == 0:
            gone_s = min(gone_s, now_s)
        if fleet > 0 and now_s > 1000.0:
            back_s = min(back_s, now_s)
    # The last request was seen at 90 s; KEDA looks every 30 s.
    assert 390.0 <= gone_s <= 420.0
    assert 1010.0 <= back_s <= 1035.0
    assert fleet == 3


def test_no_third_kind_of_metric() -> None:
    with pytest.raises(InvalidInputError, match="external or pods"):
        _autoscaler(1.0, metric="object")
