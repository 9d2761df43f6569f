"""Knative's autoscaler against the numbers of its own tests (autoscaler_test.go) and its documented behaviour."""

from __future__ import annotations

import pytest

from gpu.scaling.policy_cases import PolicyCases, observed
from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals import rival
from textnlp_fast.gpu.scaling.rivals.knative import KnativePodAutoscaler


class TestCases(PolicyCases):
    def make(self) -> Policy:
        return rival(
            "knative",
            target_utilisation=0.7,
            capacity=ReplicaCapacity(concurrency=10.0),
            min_instances=self.min_instances,
            max_instances=self.max_instances,
            cold_start=ColdStart(),
            period_s=10.0,
        )


def _autoscaler(target: float, *, ready: int = 1, **options: float) -> KnativePodAutoscaler:
    """As newTestAutoscaler makes it: rates of 10, created with one pod."""
    settings: dict[str, float] = {"max_scale_up_rate": 10.0, "max_scale_down_rate": 10.0} | options
    policy = KnativePodAutoscaler(
        target_utilisation=1.0,
        capacity=ReplicaCapacity(concurrency=target),
        max_instances=10_000,
        **settings,  # type: ignore[arg-type]
    )
    policy.scale(now_s=-1000.0, ready=ready, stable=0.0, panic=0.0)
    return policy


@pytest.mark.parametrize(
    ("target", "stable", "panic", "ready", "options", "wanted"),
    [
        pytest.param(10, 0, 0, 1, {}, 0, id="NoDataAtZeroNoAutoscale"),
        pytest.param(181, 21, 26, 1, {}, 1, id="StableModeUnlimitedTBC"),
        pytest.param(10, 50, 49, 1, {}, 5, id="0TBC"),
        pytest.param(10, 50, 50, 1, {}, 5, id="StableModeNoChange"),
        pytest.param(10, 50, 50, 5, {}, 5, id="StableModeNoChangeAlreadyScaled"),
        pytest.param(
            1, 3, 3.1, 2, {"max_scale_up_rate": 1.1}, 3, id="StableModeIncreaseWithSmallScaleUpRate"
        ),
        pytest.param(
            10, 1, 1, 100, {"max_scale_down_rate": 1.1}, 90, id="StableModeDecreaseWithSmallScaleDownRate"
        ),
        pytest.param(10, 50, 100, 1, {}, 10, id="PanicModeDoublePodCount"),
        pytest.param(10, 100, 100, 8, {}, 10, id="StableModeDecrease, up"),
        pytest.param(10, 50, 50, 8, {}, 5, id="StableModeDecrease"),
        pytest.param(10, 1, 0, 1, {}, 1, id="StableModeNoTraffic"),
        pytest.param(10, 1000, 1001, 1, {}, 10, id="RateLimitScaleUp"),
        pytest.param(10, 1000, 1001, 10, {}, 100, id="RateLimitScaleUp again"),
        pytest.param(10, 1, 1, 100, {}, 10, id="RateLimitScaleDown"),
        pytest.param(10, 1, 1, 10, {}, 1, id="RateLimitScaleDown again"),
        pytest.param(10, 1000, 888, 0, {}, 10, id="UseOnePodAsMinimumIfEndpointsNotFound"),
    ],
)
def test_table(
    target: float, stable: float, panic: float, ready: int, options: dict[str, float], wanted: int
) -> None:
    policy = _autoscaler(target, **options)
    assert policy.scale(now_s=0.0, ready=ready, stable=stable, panic=panic) == wanted


@pytest.mark.parametrize(("stable", "panic", "wanted"), [(50.0, 30.0, 50), (20.0, 30.0, 30)])
def test_in_panic_the_larger_of_both_means_decides(stable: float, panic: float, wanted: int) -> None:
    policy = _autoscaler(1)
    policy._panic_since_s, policy._panic_pods = -5.0, 5
    assert policy.scale(now_s=0.0, ready=5, stable=stable, panic=panic) == wanted


def test_unpanic_after_slow_increase() -> None:
    policy = _autoscaler(1)
    assert policy.scale(now_s=0.0, ready=10, stable=11.0, panic=25.0) == 25
    assert policy._panic_since_s == 0.0
    assert policy.scale(now_s=30.0, ready=40, stable=30.0, panic=41.0) == 41
    assert policy._panic_since_s == 0.0
    assert policy.scale(now_s=62.0, ready=55, stable=50.0, panic=56.0) == 50
    assert policy._panic_since_s is None


def test_a_panic_that_is_still_justified_goes_on() -> None:
    policy = _autoscaler(1)
    assert policy.scale(now_s=0.0, ready=10, stable=11.0, panic=25.0) == 25
    assert policy.scale(now_s=30.0, ready=40, stable=30.0, panic=80.0) == 80
    assert policy._panic_since_s == 30.0


def test_exponential_growth_is_followed() -> None:
    policy = _autoscaler(1)
    for tick, (ready, load) in enumerate([(1, 6.0), (6, 36.0), (36, 216.0), (216, 1296.0), (1296, 1296.0)]):
        assert policy.scale(now_s=float(tick), ready=ready, stable=load, panic=load) == load


def test_panic_then_unpanic_scales_down() -> None:
    policy = _autoscaler(10)
    assert policy.scale(now_s=0.0, ready=1, stable=100.0, panic=100.0) == 10
    assert policy.scale(now_s=0.0, ready=10, stable=100.0, panic=1000.0) == 100
    assert policy.scale(now_s=30.0, ready=10, stable=1.0, panic=1.0) == 100
    assert policy.scale(now_s=61.0, ready=10, stable=1.0, panic=1.0) == 1


@pytest.mark.parametrize(("ready", "panics"), [(0, False), (1, False), (2, True)])
def test_it_starts_in_panic_with_more_than_one_pod(ready: int, panics: bool) -> None:
    policy = _autoscaler(100, ready=ready, panic_threshold=220.0)
    assert (policy._panic_since_s is not None) == panics
    assert policy._panic_pods == ready or policy._panic_pods is not None


def test_scale_down_delay() -> None:
    policy = _autoscaler(10, panic_threshold=100.0, scale_down_delay_s=300.0)

    def scaled(now_s: float, load: float) -> int:
        return policy.scale(now_s=now_s, ready=0, stable=load, panic=load)

    assert scaled(2.0, 40.0) == 4
    assert scaled(300.0, 0.0) == 4
    assert scaled(302.0, 0.0) == 0
    assert [scaled(540.0, 40.0), scaled(600.0, 30.0), scaled(660.0, 0.0)] == [4, 4, 4]
    assert [scaled(840.0, 0.0), scaled(900.0, 0.0)] == [3, 0]


def _default(**options: float) -> KnativePodAutoscaler:
    return KnativePodAutoscaler(
        capacity=ReplicaCapacity(concurrency=100.0),
        max_instances=1000,
        **options,  # type: ignore[arg-type]
    )


def test_the_documented_target_is_seventy_percent() -> None:
    """container-concurrency-target-default 100 at 70 %: 350 requests in flight ask for five pods."""
    policy = _default(period_s=10.0)
    for step in range(20):
        decision = policy.decide(observed(10.0 * step, ready=5, in_flight=350.0))
    assert decision.target == 5
    assert decision.demand == pytest.approx(5.0)


@pytest.mark.parametrize("period_s", [2.0, 10.0])
def test_a_step_panics_at_once_and_leaves_after_the_stable_window(period_s: float) -> None:
    policy = _default(period_s=period_s)
    now_s, first_at_ten, down = 0.0, None, None
    while now_s <= 400.0:
        load = 700.0 if 100.0 <= now_s < 200.0 else 70.0
        decision = policy.decide(observed(now_s, ready=1 if now_s < 110.0 else 10, in_flight=load))
        if first_at_ten is None and decision.target >= 10:
            first_at_ten = now_s
        if first_at_ten is not None and down is None and decision.target < 10:
            down = now_s
        now_s += period_s
    assert first_at_ten is not None
    assert down is not None
    # Six seconds of panic window, and one observation; the stable mean alone would take half a minute and more.
    assert first_at_ten <= 100.0 + 6.0 + period_s
    # Down once the panic of the rise is over and the load is gone: gradually, as the stable mean falls.
    assert 200.0 <= down <= 200.0 + 60.0 + 2 * period_s


def test_the_last_pod_goes_after_the_window_and_the_grace_period() -> None:
    policy = _default(period_s=2.0)
    times: list[tuple[float, int]] = []
    for step in range(100):
        now_s = 2.0 * step
        load = 50.0 if now_s < 20.0 else 0.0
        times.append((now_s, policy.decide(observed(now_s, ready=1, in_flight=load)).target))
    gone = next(now_s for now_s, target in times if target == 0)
    assert 18.0 + 60.0 + 30.0 <= gone <= 18.0 + 60.0 + 30.0 + 4.0
    assert policy.decide(observed(300.0, ready=0, in_flight=1.0)).target == 1


def test_it_goes_by_the_rate_where_only_that_is_known() -> None:
    policy = KnativePodAutoscaler(
        target_utilisation=0.5, capacity=ReplicaCapacity(requests_per_s=4.0), max_instances=50, period_s=10.0
    )
    for step in range(20):
        decision = policy.decide(observed(10.0 * step, ready=1, rate=11.0))
    assert decision.target == 6
