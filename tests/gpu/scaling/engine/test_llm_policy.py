"""Our policy: the cases of every policy, and what only ours promises."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu.scaling.policy_cases import PolicyCases
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.engine import LLMPolicy
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity, ScalingPolicy, ScheduledFloor

_FEW = settings(max_examples=40, deadline=None)
_CAPACITY = ReplicaCapacity(requests_per_s=2.0, concurrency=20.0, tokens_in_flight=30_000.0)


class TestCases(PolicyCases):
    def make(self) -> Policy:
        return _policy(min_instances=self.min_instances, max_instances=self.max_instances)


def _policy(**options: object) -> LLMPolicy:
    defaults: dict[str, object] = {"max_instances": 1000, "capacity": _CAPACITY}
    return LLMPolicy(ScalingPolicy(**(defaults | options)))  # type: ignore[arg-type]


def _busy(time_s: float, replicas: float, ready: int = 10, **more: object) -> Observation:
    """Arrivals that keep so many replicas busy, with what is in flight in keeping."""
    facts: dict[str, object] = {
        "request_rate": 2.0 * replicas,
        "running_requests": 20.0 * replicas,
        "waiting_requests": 0.0,
        "prefill_tokens": 0.0,
        "decode_tokens": 30_000.0 * replicas,
    }
    return Observation(time_s=time_s, ready=ready, **(facts | more))  # type: ignore[arg-type]


def _run(policy: LLMPolicy, loads: list[float], *, begin_s: float = 0.0) -> list[Decision]:
    decisions: list[Decision] = []
    for step, load in enumerate(loads):
        ready = decisions[-1].target if decisions else 10
        decisions.append(policy.decide(_busy(begin_s + 10.0 * (step + 1), load, ready)))
    return decisions


@_FEW
@given(st.floats(0.1, 200.0), st.sampled_from([30.0, 180.0, 600.0]))
def test_a_constant_load_is_never_followed_up_and_down(load: float, cold_start_s: float) -> None:
    policy = _policy(cold_start=ColdStart(provisioning_s=cold_start_s, weights_s=0.0, warm_up_s=0.0))
    targets = [decision.target for decision in _run(policy, [load] * 500)]
    # It may come down, as it learns how little the load scatters, and never goes up again.
    assert all(later <= earlier for earlier, later in pairwise(targets))
    assert targets[-1] >= math.ceil(load)
    assert targets[-1] <= math.ceil(1.7 * load + 2)


@_FEW
@given(st.lists(st.floats(0.5, 60.0), min_size=5, max_size=60), st.floats(1.0, 4.0))
def test_more_load_at_one_moment_never_means_fewer_replicas(loads: list[float], factor: float) -> None:
    policy, other = _policy(), _policy()
    _run(policy, loads)
    _run(other, loads)
    time_s = 10.0 * (len(loads) + 1)
    assert (
        other.decide(_busy(time_s, factor * loads[-1])).target
        >= policy.decide(_busy(time_s, loads[-1])).target
    )


@_FEW
@given(st.floats(0.5, 40.0), st.floats(1.0, 3.0))
def test_more_constant_load_never_means_fewer_replicas(load: float, factor: float) -> None:
    few = _run(_policy(), [load] * 200)[-1].target
    many = _run(_policy(), [factor * load] * 200)[-1].target
    assert many >= few


@_FEW
@given(st.floats(2.0, 50.0), st.floats(1.5, 5.0), st.integers(1, 300))
def test_a_step_is_answered_within_a_period(load: float, factor: float, quiet: int) -> None:
    policy = _policy()
    before = _run(policy, [load] * (60 + quiet))[-1].target
    after = policy.decide(_busy(10.0 * (61 + quiet), factor * load, before)).target
    # One sight of a step is not believed to the last twentieth of it.
    assert after > before or after >= 0.95 * factor * load
    # And within three, all that the step needs is ordered.
    for step in range(2):
        after = policy.decide(_busy(10.0 * (62 + quiet + step), factor * load, before)).target
    assert after >= factor * load


def test_a_queue_counts_before_any_rate_is_known() -> None:
    policy = _policy(capacity=ReplicaCapacity(concurrency=20.0))
    calm = policy.decide(Observation(10.0, 3, running_requests=30.0, waiting_requests=0.0)).target
    queue = Observation(20.0, 3, running_requests=60.0, waiting_requests=200.0)
    first = policy.decide(queue).target
    second = policy.decide(queue._replace(time_s=30.0)).target
    assert calm < first <= second
    assert second >= 13


@pytest.mark.parametrize(
    ("signal", "capacity", "expected"),
    [
        ({"decode_tokens": 300_000.0, "prefill_tokens": 30_000.0}, {"tokens_in_flight": 30_000.0}, 11.0),
        ({"running_requests": 100.0, "waiting_requests": 20.0}, {"concurrency": 20.0}, 6.0),
        ({"kv_cache_use": 0.45}, {}, 5.0),
        ({"gpu_utilisation": 0.4}, {}, 5.0),
        ({"gpu_utilisation": 0.9, "kv_cache_use": 0.45}, {}, 5.0),
        ({"gpu_utilisation": 0.9, "request_rate": 8.0}, {"requests_per_s": 2.0}, 4.0),
    ],
)
def test_the_best_signal_that_is_there_is_taken(
    signal: dict[str, float], capacity: dict[str, float], expected: float
) -> None:
    policy = _policy(capacity=ReplicaCapacity(**capacity))
    decision = policy.decide(Observation(10.0, 10, **signal))  # type: ignore[arg-type]
    assert decision.demand == pytest.approx(expected)


def test_requests_that_became_longer_are_seen_in_what_is_in_flight() -> None:
    policy = _policy()
    _run(policy, [10.0] * 360)
    # As many requests as before, each twice as long.
    for step in range(720):
        decision = policy.decide(
            _busy(3600.0 + 10.0 * (step + 1), 10.0, 25, running_requests=400.0, decode_tokens=600_000.0)
        )
    assert decision.demand is not None
    assert decision.demand > 12.0


def _bad(time_s: float) -> list[Observation]:
    good = _busy(time_s, 10.0)
    return [
        good._replace(ready=None),
        good._replace(request_rate=math.nan),
        good._replace(request_rate=-1.0),
        good._replace(request_rate=math.inf),
        good._replace(waiting_requests=-5.0),
        good._replace(waiting_requests=math.nan),
        good._replace(running_requests=math.nan, decode_tokens=math.nan),
        good._replace(starting=-1),
        good._replace(time_s=math.nan),
        good._replace(time_s=time_s - 3600.0),
        Observation(time_s, 10),
    ]


@pytest.mark.parametrize("which", range(11))
def test_what_cannot_be_true_keeps_the_last_decision_and_raises_an_alert(which: int) -> None:
    policy = _policy()
    last = _run(policy, [10.0] * 100)[-1].target
    decision = policy.decide(_bad(1010.0)[which])
    assert decision.target == last
    assert decision.alerts
    assert decision.alerts[0].name.startswith("metrics_")
    assert decision.alerts[0].text.endswith(".")
    # And it goes on as if nothing had been.
    again = policy.decide(_busy(1020.0, 10.0, last))
    assert again.target == last
    assert not again.alerts


def test_an_outage_of_the_metrics_is_told_and_survived() -> None:
    policy = _policy()
    _run(policy, [10.0] * 100)
    decision = policy.decide(_busy(1000.0 + 7200.0, 4.0))
    assert [alert.name for alert in decision.alerts] == ["metrics_late"]
    later = _run(policy, [4.0] * 400, begin_s=9000.0)
    assert 4 <= later[-1].target <= 9


def test_the_last_replica_goes_when_nobody_asked_and_comes_at_the_first_request() -> None:
    policy = _policy(min_instances=0, idle_to_zero_s=300.0)
    _run(policy, [3.0] * 50)
    targets = [decision.target for decision in _run(policy, [0.0] * 200, begin_s=500.0)]
    first_zero = targets.index(0)
    assert first_zero >= 29
    assert all(target == 0 for target in targets[first_zero:])
    woken = policy.decide(
        Observation(3000.0, 0, request_rate=0.1, waiting_requests=1.0, running_requests=0.0)
    )
    assert woken.target >= 1


def test_with_a_minimum_it_never_goes_to_zero() -> None:
    assert min(decision.target for decision in _run(_policy(), [1.0] * 20 + [0.0] * 600)) == 1


def test_a_schedule_is_a_floor_also_over_midnight() -> None:
    # 1970-01-02 is a Friday.
    friday = ScheduledFloor(instances=7, begin_hour=22.0, end_hour=2.0, weekdays=(4,))
    policy = _policy(schedule=(friday,))
    at = {hour: policy.decide(_busy(86400.0 + hour * 3600.0, 1.0, 3)) for hour in (20, 21.9, 22, 25.9, 26.1)}
    assert [decision.target >= 7 for decision in at.values()] == [False, False, True, True, False]
    assert at[22].reasons[0].part == "schedule"
    saturday = policy.decide(_busy(2 * 86400.0 + 23 * 3600.0, 1.0, 3))
    assert saturday.target < 7


def test_a_budget_is_kept_and_told() -> None:
    policy = _policy(usd_per_hour=4.0, budget_usd_per_hour=30.0)
    decision = _run(policy, [20.0] * 5)[-1]
    assert decision.target == 7
    assert decision.reasons[0].part == "budget"
    assert [alert.name for alert in decision.alerts] == ["budget_reached"]
    assert _run(_policy(max_instances=9), [20.0] * 5)[-1].alerts[0].name == "at_max_instances"


def test_a_least_that_the_budget_does_not_pay_is_kept_and_told() -> None:
    policy = _policy(min_instances=8, usd_per_hour=4.0, budget_usd_per_hour=30.0)
    decision = _run(policy, [2.0] * 5)[-1]
    assert decision.target == 8
    assert [alert.name for alert in decision.alerts] == ["budget_below_minimum"]


def test_figures_without_a_capacity_say_what_is_missing() -> None:
    policy = LLMPolicy(ScalingPolicy())
    seen = Observation(0.0, 3, request_rate=20.0, running_requests=12.0)
    (alert,) = policy.decide(seen).alerts
    assert alert.name == "metrics_missing"
    assert "capacity" in alert.text
    (alert,) = LLMPolicy(ScalingPolicy()).decide(Observation(0.0, 3)).alerts
    assert "source" in alert.text


def test_misses_beyond_the_slo_widen_the_margin() -> None:
    quiet, missed = _policy(), _policy()
    for step in range(4000):
        load = 20.0 + 3.0 * math.sin(step / 40.0) + (step * 7919 % 13 - 6) / 4.0
        well = quiet.decide(_busy(10.0 * step, load, 30, slo_attainment=1.0)).target
        badly = missed.decide(_busy(10.0 * step, load, 30, slo_attainment=0.9)).target
    assert badly > well


def test_a_fleet_that_cannot_be_read_keeps_what_was_seen_of_it() -> None:
    policy = LLMPolicy()
    seen = [8, 8, None, None, -3, 8]
    assert [policy.decide(Observation(10.0 * step, ready)).target for step, ready in enumerate(seen)] == [
        8
    ] * 6


@pytest.mark.parametrize("starting", [None, "x", math.nan])
def test_a_count_of_starting_replicas_that_is_none_holds(starting: object) -> None:
    policy = _policy()
    last = _run(policy, [10.0] * 50)[-1].target
    decision = policy.decide(_busy(600.0, 10.0)._replace(starting=starting))  # type: ignore[arg-type]
    assert (decision.target, decision.alerts[0].name) == (last, "metrics_invalid")


@pytest.mark.parametrize(
    "wrong", [{"capacity": 3}, {"cold_start": 30}, {"schedule": "x"}, {"schedule": (1,)}]
)
def test_settings_of_another_kind_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        ScalingPolicy(**wrong)  # type: ignore[arg-type]


def test_a_first_look_sends_nobody_away() -> None:
    policy = _policy()
    assert policy.decide(_busy(10.0, 0.2, ready=6, starting=2)).target == 8
    # Later ones do, once the load is known to be low.
    assert _run(policy, [0.2] * 200, begin_s=10.0)[-1].target <= 2


def test_misses_before_anything_ordered_can_serve_widen_no_margin() -> None:
    quiet, missed = _policy(), _policy()
    for step in range(400):
        early = 0.0 if step < 36 else 1.0
        well = quiet.decide(_busy(10.0 * step, 20.0, 30, slo_attainment=1.0)).target
        badly = missed.decide(_busy(10.0 * step, 20.0, 30, slo_attainment=early)).target
    assert badly == well


def test_the_season_is_used_once_it_has_earned_it() -> None:
    policy = _policy(cold_start=ColdStart(provisioning_s=1800.0, weights_s=0.0, warm_up_s=0.0))
    forecasts, loads = [], []
    for step in range(6 * 8640):
        day = (step * 10.0 % 86400.0) / 86400.0
        load = 4.0 if day < 0.5 else 16.0
        decision = policy.decide(_busy(10.0 * (step + 1), load, 20))
        loads.append(load)
        forecasts.append(decision.forecast)
    # On the sixth day, half an hour before noon it is known what noon brings.
    noon = 5 * 8640 + 4320
    before = max(forecast or 0.0 for forecast in forecasts[noon - 180 : noon - 30])
    assert before > 6.0
    first_day = max(forecast or 0.0 for forecast in forecasts[4320 - 180 : 4320 - 30])
    assert first_day < 5.0


def test_a_decision_says_why_in_sentences() -> None:
    decision = _run(_policy(), [12.0] * 10)[-1]
    assert decision.reasons
    assert "replicas" in decision.reasons[0].text
    assert "{" not in decision.reasons[0].text
    assert decision.forecast == pytest.approx(12.0, rel=0.1)
