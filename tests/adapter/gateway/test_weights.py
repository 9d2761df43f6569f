"""Weights as properties, and a fleet in arithmetic that they have to find the capacities of."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.adapter.gateway.weights import LEAST, ReplicaLoad, next_weights, percent

counts = st.floats(0, 1e6)
loads = st.builds(ReplicaLoad, counts, counts, st.floats(0, 1))
fleets = st.dictionaries(st.sampled_from("abcdef"), st.none() | loads, min_size=1)
weights = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(LEAST, 1))


@given(weights, fleets)
def test_weights_are_of_those_that_are_there_and_never_none(
    before: dict[str, float], fleet: dict[str, ReplicaLoad | None]
) -> None:
    after = next_weights(before, fleet)
    assert after.keys() == fleet.keys()
    assert max(after.values()) == 1
    assert all(LEAST <= each <= 1 for each in after.values())
    assert all(1 <= percent(each) <= 100 for each in after.values())


@given(weights, fleets, loads, counts, st.floats(0, 1))
def test_more_in_the_queue_or_in_the_cache_is_never_more_weight(
    before: dict[str, float],
    fleet: dict[str, ReplicaLoad | None],
    load: ReplicaLoad,
    more: float,
    fuller: float,
) -> None:
    worse = ReplicaLoad(load.running, load.waiting + more, max(load.kv_use, fuller))
    good, bad = (next_weights(before, fleet | {"a": each}) for each in (load, worse))
    assert bad["a"] <= good["a"]
    # Nobody else loses by it.
    assert all(bad[name] >= good[name] for name in fleet if name != "a")


@given(weights, fleets)
def test_one_step_is_small(before: dict[str, float], fleet: dict[str, ReplicaLoad | None]) -> None:
    before = {name: before.get(name, 1.0) for name in fleet}
    before = {name: each / max(before.values()) for name, each in before.items()}
    after = next_weights(before, fleet)
    for name, each in after.items():
        # Largest fall of one beside the largest growth of another.
        assert each >= min(before[name], max(LEAST, before[name] * 0.7 / 1.04)) - 1e-9
        assert each <= before[name] / 0.7 + 0.04 / 0.7 + 1e-9


@given(st.sampled_from([math.nan, math.inf, -1.0]), st.integers(0, 2))
def test_figures_that_are_none_change_nothing(bad: float, place: int) -> None:
    figures = [1.0, 2.0, 0.5]
    figures[place] = bad
    assert next_weights({"a": 0.5, "b": 1.0}, {"a": ReplicaLoad(*figures), "b": None}) == {"a": 0.5, "b": 1.0}


@given(st.floats(LEAST, 1), st.floats(0, 1))
def test_a_share_scales(weight: float, share: float) -> None:
    assert percent(weight, 0) == 0
    assert percent(weight, share) <= percent(weight)
    assert percent(weight, 1.0) == percent(weight)


def test_they_find_the_capacities() -> None:
    """A closed load is dealt out by weight as HAProxy's leastconn does; each replica runs what it can."""
    capacity = {"a": 32, "b": 16, "c": 8, "d": 4}
    current = dict.fromkeys(capacity, 1.0)
    seen = []
    for _ in range(300):
        whole = 66 / sum(current.values())
        dealt = {name: whole * weight for name, weight in current.items()}
        current = next_weights(
            current,
            {
                name: ReplicaLoad(min(dealt[name], most), max(0.0, dealt[name] - most))
                for name, most in capacity.items()
            },
        )
        seen.append(sum(max(0.0, dealt[name] - most) for name, most in capacity.items()))
    # At first 26 of 66 wait although there is room for 60; then only those wait for which there is none.
    assert seen[0] > 20
    assert sum(seen[-100:]) / 100 < 10
