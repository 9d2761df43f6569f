"""The cases that every policy must pass, ours and its rivals: inherit `PolicyCases`, and give `make` and the bounds."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import Policy

__all__ = ["PolicyCases", "observed", "plausible", "series"]

_SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])

_STEPS_S = st.sampled_from(
    [10.0] * 6 + [0.0, 0.5, 1.0, 2.0, 7.0, 15.0, 60.0, 600.0, 90_000.0, -30.0, -1e6, math.nan]
)
_GAUGES = st.one_of(
    st.floats(0.0, 500.0),
    st.sampled_from([0.0, None, math.nan, math.inf, -math.inf, -3.0, 1e300, 5e-324]),
)
_SHARES = st.one_of(st.floats(0.0, 1.0), st.sampled_from([None, math.nan, math.inf, -0.5, 7.0]))
_COUNTS = st.one_of(st.integers(0, 40), st.sampled_from([None, -1, 10**15]))


@st.composite
def series(draw: st.DrawFn, *, most: int = 25) -> list[Observation]:
    """Observations as they may come: late, twice, with holes, and with figures that cannot be."""
    time_s, observations = draw(st.sampled_from([0.0, 1_700_000_000.0])), []
    for step_s in draw(st.lists(_STEPS_S, min_size=1, max_size=most)):
        # One that is late or has no time says nothing of when the next one comes.
        if step_s > 0.0:
            time_s += step_s
        observations.append(
            Observation(
                time_s=time_s if step_s >= 0.0 else time_s + step_s,
                ready=draw(_COUNTS),
                starting=draw(st.integers(-1, 10)),
                request_rate=draw(_GAUGES),
                prompt_tokens_rate=draw(_GAUGES),
                output_tokens_rate=draw(_GAUGES),
                waiting_requests=draw(_GAUGES),
                running_requests=draw(_GAUGES),
                prefill_tokens=draw(_GAUGES),
                decode_tokens=draw(_GAUGES),
                kv_cache_use=draw(_SHARES),
                ttft_s=draw(_GAUGES),
                inter_token_s=draw(_GAUGES),
                slo_attainment=draw(_SHARES),
                gpu_utilisation=draw(_SHARES),
            )
        )
        if math.isnan(step_s):
            observations[-1] = observations[-1]._replace(time_s=math.nan)
    return observations


def plausible(seed: int, *, steps: int = 200) -> list[Observation]:
    """Observations of a fleet whose load rises, falls, bursts and stops: what a policy decides by and remembers."""
    chance = random.Random(seed)
    step_s, load, ready, now_s = chance.choice([2.0, 10.0, 10.0, 30.0]), 20.0, 3, 1000.0
    observations = []
    for _ in range(steps):
        if chance.random() < 0.06:
            load = chance.choice([0.0, 5.0, 30.0, 60.0, 110.0, chance.uniform(0.0, 120.0)])
        if chance.random() < 0.1:
            ready = chance.randrange(1, 12)
        now_s += step_s
        in_flight = load * chance.uniform(0.8, 1.2)
        waiting = max(0.0, in_flight - 10.0 * ready)
        observation = observed(
            now_s,
            ready=ready,
            starting=chance.choice([0, 0, 0, 1, 4]),
            in_flight=None if chance.random() < 0.03 else in_flight,
            waiting=waiting,
            rate=in_flight / 5.0,
            kv_cache_use=min(1.0, in_flight / (14.0 * ready)),
        )
        observations.append(
            observation._replace(
                prompt_tokens_rate=200.0 * in_flight,
                output_tokens_rate=50.0 * (in_flight - waiting),
                prefill_tokens=900.0 * waiting + 100.0,
                decode_tokens=1500.0 * (in_flight - waiting),
                ttft_s=0.2 + 0.1 * waiting,
                inter_token_s=0.02,
                slo_attainment=1.0 if waiting == 0.0 else 0.7,
            )
        )
    return observations


def observed(
    time_s: float,
    *,
    ready: int | None,
    starting: int = 0,
    in_flight: float | None = None,
    waiting: float = 0.0,
    rate: float | None = None,
    kv_cache_use: float | None = None,
) -> Observation:
    """An observation with the figures that rivals go by."""
    return Observation(
        time_s=time_s,
        ready=ready,
        starting=starting,
        request_rate=rate,
        waiting_requests=None if in_flight is None else waiting,
        running_requests=None if in_flight is None else in_flight - waiting,
        kv_cache_use=kv_cache_use,
    )


class PolicyCases:
    """What holds of any policy, whatever it is told."""

    min_instances = 1
    max_instances = 12

    def make(self) -> Policy:
        """A new policy with these bounds, which has seen nothing."""
        raise NotImplementedError

    @_SETTINGS
    @given(series())
    def test_decisions_stay_within_the_bounds(self, observations: list[Observation]) -> None:
        policy = self.make()
        for observation in observations:
            decision = policy.decide(observation)
            assert isinstance(decision.target, int)
            assert self.min_instances <= decision.target <= self.max_instances, observation
            assert decision.reasons
            assert all(reason.text for reason in decision.reasons)

    @_SETTINGS
    @given(series())
    def test_the_same_observations_give_the_same_decisions(self, observations: list[Observation]) -> None:
        first, second = self.make(), self.make()
        assert _decisions(first, observations) == _decisions(second, observations)

    @_SETTINGS
    @given(series(), st.integers(0, 24))
    def test_a_restored_policy_goes_on_where_the_other_stopped(
        self, observations: list[Observation], middle: int
    ) -> None:
        policy, restored = self.make(), self.make()
        _decisions(policy, observations[:middle])
        restored.restore(_through_json(policy.snapshot()))
        assert _decisions(restored, observations[middle:]) == _decisions(policy, observations[middle:])

    @pytest.mark.parametrize("seed", range(12))
    def test_one_that_is_restarted_at_every_step_decides_as_one_that_is_not(self, seed: int) -> None:
        policy, restarted = self.make(), self.make()
        for observation in plausible(seed):
            expected = policy.decide(observation)
            assert _said(restarted.decide(observation)) == _said(expected)
            state = _through_json(restarted.snapshot())
            restarted = self.make()
            restarted.restore(state)

    @_SETTINGS
    @given(
        series(most=10), st.integers(0, 30), st.sampled_from(["gone", [], "text", math.nan, {"a": 1}, True])
    )
    def test_a_broken_snapshot_is_refused_and_nothing_changes(
        self, observations: list[Observation], which: int, put: Any
    ) -> None:
        policy = self.make()
        _decisions(policy, observations)
        before = _through_json(policy.snapshot())
        broken = dict(before)
        key = sorted(broken)[which % len(broken)]
        if put == "gone":
            del broken[key]
        elif broken[key] == put or (put == [] and isinstance(broken[key], list)):
            return  # An empty list may be what it kept.
        else:
            broken[key] = put
        with pytest.raises(CorruptDataError):
            policy.restore(broken)
        assert _through_json(policy.snapshot()) == before

    def test_a_snapshot_of_another_policy_is_refused(self) -> None:
        policy = self.make()
        for foreign in ({}, {"policy": "another"}, [], "text", None):
            with pytest.raises(CorruptDataError):
                policy.restore(foreign)  # type: ignore[arg-type]

    def test_without_figures_it_stays_where_the_fleet_is(self) -> None:
        policy = self.make()
        middle = (self.min_instances + self.max_instances) // 2
        for step in range(5):
            decision = policy.decide(observed(10.0 * step, ready=middle))
            assert decision.target == middle


def _decisions(policy: Policy, observations: list[Observation]) -> list[str]:
    # As text: a time that is not a number is not equal to itself.
    return [repr(_said(policy.decide(observation))) for observation in observations]


def _said(decision: Decision) -> tuple[object, ...]:
    return (*decision, decision.target)


def _through_json(state: Mapping[str, Any]) -> dict[str, Any]:
    restored: dict[str, Any] = json.loads(json.dumps(dict(state), allow_nan=False))
    return restored
