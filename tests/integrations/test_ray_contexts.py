"""The policy with contexts as Ray makes them: what is seen, how often is decided, and that the state is enough."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.standins import Following
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.integrations.policy_settings import SettingError
from textnlp_fast.integrations.ray_serve import STATE, LLMAutoscalingPolicy, observe

FOLLOWING = "integrations.standins:Following"


def context(**others: Any) -> Any:
    values = {
        "current_time": 1000.0,
        "current_num_replicas": 2,
        "target_num_replicas": 3,
        "total_num_requests": 10.0,
        "total_queued_requests": 4.0,
        "aggregated_metrics": {},
        "policy_state": {},
        "capacity_adjusted_min_replicas": 1,
        "capacity_adjusted_max_replicas": 8,
        "config": SimpleNamespace(target_ongoing_requests=2.0),
    }
    return SimpleNamespace(**{**values, **others})


def test_requests_are_seen_as_waiting_and_running() -> None:
    seen = observe(context())
    assert (seen.time_s, seen.ready, seen.starting) == (1000.0, 2, 1)
    assert (seen.waiting_requests, seen.running_requests) == (4.0, 6.0)
    assert seen.kv_cache_use is None


def test_what_replicas_report_of_their_engines_is_added_averaged_or_the_worst() -> None:
    seen = observe(
        context(
            aggregated_metrics={
                "waiting_requests": {"a": 1.0, "b": 2.0},
                "kv_cache_use": {"a": 0.2, "b": 0.6},
                "ttft_s": {"a": 0.1, "b": 0.9},
                "decode_tokens": {"a": 100.0, "b": float("nan")},
                "my_own": {"a": 3.0},
            }
        )
    )
    assert (seen.waiting_requests, seen.running_requests) == (7.0, 3.0)
    assert (seen.kv_cache_use, seen.ttft_s, seen.decode_tokens) == (pytest.approx(0.4), 0.9, 100.0)


@given(
    inside=st.none() | st.floats() | st.integers(),
    queued=st.none() | st.floats(),
    metrics=st.none()
    | st.dictionaries(
        st.sampled_from(["ttft_s", "kv_cache_use", "ready", "time_s", "x"]),
        st.dictionaries(st.text(max_size=2), st.none() | st.floats() | st.booleans(), max_size=3),
        max_size=4,
    ),
)
def test_whatever_is_reported_gives_an_observation(inside: Any, queued: Any, metrics: Any) -> None:
    seen = observe(
        context(total_num_requests=inside, total_queued_requests=queued, aggregated_metrics=metrics)
    )
    assert seen.ready == 2
    assert seen.running_requests is None or seen.running_requests >= 0


def test_it_decides_once_a_period_and_repeats_itself_in_between() -> None:
    policy = LLMAutoscalingPolicy(policy=FOLLOWING, period_s=10.0)
    state: dict[str, Any] = {"of_ray": 1}
    seen = []
    for tick in range(400):
        count, state = policy(
            context(current_time=1000.0 + tick / 10, total_num_requests=4.0 + tick, policy_state=state)
        )
        seen.append((count, state[STATE]["turn"]))
    # ten seconds are a hundred calls; the count is what was inside at the decision, by two
    assert seen[0] == (2, 1)
    assert seen[99] == (2, 1)
    assert [turn for _, turn in seen] == [1] * 100 + [2] * 100 + [3] * 100 + [4] * 100
    assert [seen[at][0] for at in (100, 200, 300)] == [8, 8, 8]
    assert state["of_ray"] == 1


def test_a_clock_that_goes_back_does_not_stop_it() -> None:
    policy = LLMAutoscalingPolicy(policy=FOLLOWING)
    _, state = policy(context(current_time=5000.0))
    assert policy(context(current_time=10.0, total_num_requests=14.0, policy_state=state))[0] == 7


def test_the_state_is_enough_for_another_object_to_go_on() -> None:
    first = LLMAutoscalingPolicy(policy=FOLLOWING)
    state: dict[str, Any] = {}
    for tick in range(5):
        _, state = first(context(current_time=1000.0 + 10 * tick, policy_state=state))
    _, state = LLMAutoscalingPolicy(policy=FOLLOWING)(context(current_time=1050.0, policy_state=state))
    assert state[STATE]["snapshot"]["seen"] == 6


def test_a_state_of_another_version_is_left_behind() -> None:
    _, state = LLMAutoscalingPolicy(policy=FOLLOWING)(context())
    state[STATE]["snapshot"] = {"other": "format"}
    count, state = LLMAutoscalingPolicy(policy=FOLLOWING)(context(current_time=2000.0, policy_state=state))
    assert (count, state[STATE]["snapshot"]["seen"]) == (5, 1)


def test_bounds_are_rays_and_a_change_of_them_is_heeded_at_once() -> None:
    policy = LLMAutoscalingPolicy(policy=FOLLOWING)
    count, state = policy(context(total_num_requests=100.0))
    assert count == 8
    count, state = policy(
        context(total_num_requests=100.0, policy_state=state, capacity_adjusted_max_replicas=3)
    )
    assert count == 3
    with pytest.raises(SettingError, match="min_instances: comes from Ray"):
        LLMAutoscalingPolicy(min_instances=2)


def test_settings_are_checked_when_it_is_made_and_reach_the_policy() -> None:
    for settings, field in (
        ({"slo": 1}, "slo"),
        ({"slo_attainment": 7}, "slo_attainment"),
        ({"policy": "a:b"}, "policy"),
    ):
        with pytest.raises(SettingError) as caught:
            LLMAutoscalingPolicy(**settings)  # type: ignore[arg-type]
        assert caught.value.field == field
    made: list[ScalingPolicy] = []

    def note(settings: ScalingPolicy) -> Following:
        made.append(settings)
        return Following(settings)

    policy = LLMAutoscalingPolicy(capacity_requests_per_s=3.0, cold_start_weights_s=11)
    policy._make = note
    policy(context())
    assert (made[0].capacity.requests_per_s, made[0].capacity.concurrency) == (3.0, None)
    assert (made[0].min_instances, made[0].max_instances, made[0].cold_start.weights_s) == (1, 8, 11.0)
