"""The oracle beside all fleets there are, on small cases, and as a policy in the simulator."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.gpu.scaling.simulator.fluid import simulate
from textnlp_fast.gpu.scaling.simulator.oracle import Clairvoyant, oracle_of
from textnlp_fast.gpu.scaling.simulator.traffic import Traffic, traffic_of_rates

STEP_S = 10


def needing(need: list[int]) -> Traffic:
    """Traffic whose steps need exactly so many replicas."""
    seconds = len(need) * STEP_S
    return Traffic(
        name="small",
        step_s=STEP_S,
        requests=[1] * seconds,
        work_s=[float(count) for count in need for _ in range(STEP_S)],
        prompt_tokens=[1.0] * len(need),
        output_tokens=[1.0] * len(need),
        service_s=1.0,
        mean_work_s=1.0,
    )


def cheapest_of_all(need: list[int], cold_steps: int) -> int:
    """Replica-steps of the cheapest fleet: every number of ready replicas in every step is tried."""
    least = None
    for ready in itertools.product(*(range(one, max(need) + 1) for one in need)):
        rises = sum(max(0, later - before) for before, later in itertools.pairwise(ready))
        paid = sum(ready) + cold_steps * rises
        least = paid if least is None else min(least, paid)
    assert least is not None
    return least


@given(st.lists(st.integers(0, 3), min_size=1, max_size=7), st.integers(0, 5))
@settings(deadline=None, max_examples=120)
def test_no_fleet_is_cheaper(need: list[int], cold_steps: int) -> None:
    found = oracle_of(needing(need), cold_start_s=cold_steps * STEP_S)
    assert found.replica_hours * 3600 / STEP_S == pytest.approx(cheapest_of_all(need, cold_steps))
    assert all(ready >= one for ready, one in zip(found.ready, need, strict=True))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.sampled_from([0, 10, 30, 70]))
@settings(deadline=None, max_examples=80)
def test_as_a_policy_it_has_the_fleet_that_it_foresaw(need: list[int], cold_start_s: int) -> None:
    traffic = needing(need)
    found = oracle_of(traffic, cold_start_s=cold_start_s)
    policy = Clairvoyant(found)
    # Those that rise within the first cold start would have been ordered before the trace: they are there at once.
    run = simulate(policy, traffic, cold_start_s=cold_start_s, initial=policy.initial)
    assert run.ready == found.ready
    assert run.missed == 0
    stops = sum(max(0, before - later) for before, later in itertools.pairwise(found.ready))
    drains = (run.replica_hours - found.replica_hours) * 3600 / STEP_S
    assert drains >= -1e-9
    assert drains <= stops + 1e-9, "a run pays a step for each replica that drains, and else the same"


def test_whole_replicas_are_not_rounded_up() -> None:
    traffic = needing([1])
    tenths = Traffic(**{**traffic.__dict__, "work_s": [0.1 + 0.2 + 0.7] * 10})
    assert oracle_of(tenths, cold_start_s=0).ready == [1]


def test_a_longer_cold_start_costs_more_and_changes_less() -> None:
    traffic = traffic_of_rates([0, 20_000, 40_000], [5.0, 60.0, 5.0], name="hill", seed=3)
    found = [oracle_of(traffic, cold_start_s=cold) for cold in (0, 60, 180, 600)]
    hours = [one.replica_hours for one in found]
    assert hours == sorted(hours)
    changes = [sum(a != b for a, b in itertools.pairwise(one.ready)) for one in found]
    assert changes == sorted(changes, reverse=True)
