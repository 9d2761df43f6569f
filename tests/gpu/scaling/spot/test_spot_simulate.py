"""The simulator against sums done by hand, and the oracle against a search through everything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.spot.market import Mix, SpotObservation
from textnlp_fast.gpu.scaling.spot.oracle import oracle_usd
from textnlp_fast.gpu.scaling.spot.simulate import Costs, simulate
from textnlp_fast.gpu.scaling.spot.traces import Traces, ZoneTrace

_HOUR = Costs(on_demand=3600.0, spot=900.0)  # a dollar a second, and a quarter


class _Script:
    """Says what it was told to, tick after tick, and remembers what it saw."""

    name = "script"

    def __init__(self, mixes: Sequence[tuple[Mapping[str, int], int]]) -> None:
        self.mixes, self.seen = mixes, []  # type: ignore[var-annotated]

    def decide(self, observation: SpotObservation) -> Mix:
        self.seen.append(observation)
        spot, on_demand = self.mixes[min(int(observation.time_s / 100), len(self.mixes) - 1)]
        return Mix(observation.time_s, tuple(spot.items()), on_demand)

    def snapshot(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError


def _traces(**zones: Sequence[int]) -> Traces:
    return Traces(100.0, tuple(ZoneTrace(name, name[:-1], tuple(each)) for name, each in zones.items()))


def test_cold_starts_preemptions_and_bills_by_hand() -> None:
    script = _Script([({"a1": 2}, 1)] * 3 + [({"a1": 2}, 0)] * 3)
    found = simulate(
        script,
        _traces(a1=[5, 5, 5, 0, 0, 5]),
        target=2,
        cold_start_s=150.0,
        costs=_HOUR,
        rounds=1,
        drain_s=10.0,
    )
    # Ordered at 0, ready at 150: serving at ticks 2, and after the loss at 3 the machine on demand alone.
    assert found.at_target == 1 and found.missing == 2 + 2 + 0 + 1 + 2 + 2
    assert (found.preempted, found.launches, found.refused, found.drained) == (2, 5, 4, 1)
    # Spot: two machines for 300 s, two for the last 100 s; on demand: 300 s and 10 s of draining.
    assert found.usd == pytest.approx(2 * 300 * 0.25 + 2 * 100 * 0.25 + 310)
    assert found.on_demand_usd == pytest.approx(310)
    assert found.all_on_demand_usd == pytest.approx(2 * 600)
    (zone,) = script.seen[3].zones
    assert (zone.ready, zone.starting, zone.preempted, zone.refused) == (0, 0, 2, 0)
    assert script.seen[4].zones[0].refused == 2


def test_a_zone_with_room_for_some_gives_some_and_takes_those_beyond() -> None:
    script = _Script([({"a1": 4}, 0)])
    found = simulate(script, _traces(a1=[3, 3, 1, 4]), target=3, cold_start_s=50.0, costs=_HOUR, rounds=1)
    assert (found.launches, found.refused, found.preempted) == (3 + 3, 1 + 1 + 3, 2)
    assert [one.zones[0].ready for one in script.seen] == [0, 3, 1, 1]


def test_refusals_are_told_in_the_same_tick_as_often_as_there_are_rounds() -> None:
    for rounds in (1, 3):
        script = _Script([({"a1": 1}, 0)])
        found = simulate(script, _traces(a1=[0, 0]), target=1, costs=_HOUR, rounds=rounds)
        assert len(script.seen) == 2 * rounds and found.refused == 2 * rounds and found.usd == 0


def test_notice_comes_before_and_its_machines_need_no_draining() -> None:
    script = _Script([({"a1": 1}, 0), ({"b1": 1}, 0), ({"b1": 1}, 0)])
    found = simulate(
        script,
        _traces(a1=[1, 1, 0], b1=[1, 1, 1]),
        target=1,
        cold_start_s=50.0,
        notice_s=60.0,
        costs=_HOUR,
        rounds=1,
    )
    assert [one.time_s for one in script.seen] == [0.0, 100.0, 200.0]  # gone before there was notice to give
    script = _Script([({"a1": 1}, 0), ({"a1": 1}, 0), ({"b1": 1}, 0)])
    found = simulate(
        script,
        _traces(a1=[1, 1, 0], b1=[1, 1, 1]),
        target=1,
        cold_start_s=50.0,
        notice_s=60.0,
        costs=_HOUR,
        rounds=1,
    )
    assert [one.time_s for one in script.seen] == [0.0, 100.0, 140.0, 200.0]
    assert script.seen[2].zones[0].noticed == 1
    assert found.drained == 0 and found.preempted == 1


def test_on_demand_may_be_short() -> None:
    script = _Script([({}, 3)])
    found = simulate(script, _traces(a1=[0, 0]), target=3, on_demand_limit=2, cold_start_s=10.0)
    assert found.most == 2 and script.seen[-1].on_demand_refused == 1


def test_contradictions_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        simulate(_Script([({}, 0)]), _traces(a1=[0, 0]), target=[1])
    with pytest.raises(InvalidInputError):
        simulate(_Script([({}, 0)]), _traces(a1=[0, 0]), target=1, notice_s=101.0)


@settings(max_examples=40, deadline=None)
@given(
    a=st.lists(st.integers(0, 1), min_size=5, max_size=5),
    b=st.lists(st.integers(0, 1), min_size=5, max_size=5),
    wanted=st.lists(st.integers(0, 1), min_size=5, max_size=5),
    cold_s=st.sampled_from([80.0, 150.0]),
)
def test_the_oracle_is_the_least_of_all_ways_that_serve(
    a: list[int], b: list[int], wanted: list[int], cold_s: float
) -> None:
    """Every sequence of holding any of three places is tried; those that serve bound the oracle from above, tightly."""
    traces = _traces(a1=a, b1=b)
    costs = Costs(on_demand=3600.0, spot={"a": 900.0, "b": 1800.0})
    prices, ahead = (25.0, 50.0, 100.0), math.ceil(cold_s / 100.0)
    best = math.inf
    # Held from tick t to t+1, for each of the three places; what is held at the end serves nobody.
    for plan in itertools.product(range(8), repeat=4):
        usd, run, fine = 0.0, [0, 0, 0], True
        for tick in range(5):
            up = (a[tick], b[tick], 1)
            serving = any(run[p] >= ahead and up[p] for p in range(3))
            if wanted[tick] and tick >= ahead and not serving:
                fine = False
                break
            for p in range(3):
                hold = tick < 4 and plan[tick] >> p & 1 and up[p]
                run[p] = (run[p] if up[p] else 0) + 1 if hold else 0
                usd += prices[p] if hold else 0.0
        if fine:
            best = min(best, usd)
    assert oracle_usd(traces, target=wanted, cold_start_s=cold_s, costs=costs) == pytest.approx(best)
