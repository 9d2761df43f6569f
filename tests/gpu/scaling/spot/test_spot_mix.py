"""Our mix: what holds whatever it sees, and what it reaches on made-up zones beside its peer."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.gpu.scaling.spot.hedge import SpotHedge
from textnlp_fast.gpu.scaling.spot.market import ON_DEMAND, Mix, SpotObservation, ZoneMarket
from textnlp_fast.gpu.scaling.spot.mix import SpotMix
from textnlp_fast.gpu.scaling.spot.settings import SpotSettings
from textnlp_fast.gpu.scaling.spot.simulate import Costs, simulate
from textnlp_fast.gpu.scaling.spot.traces import Traces, ZoneTrace, synthetic

#: A run of the simulator is shrunk for minutes, and its seed says all there is to say.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def _zone(name: str, price: Any = 0.9, **what: Any) -> ZoneMarket:
    return ZoneMarket(name, name[:-1], price, **what)


def _seen(time_s: float, target: Any, *zones: ZoneMarket, **what: Any) -> SpotObservation:
    return SpotObservation(time_s, target, zones, on_demand_usd_per_hour=3.0, **what)


def _always(*names: str, ticks: int = 400) -> Traces:
    return Traces(195.0, tuple(ZoneTrace(name, name[:-1], (1_000_000,) * ticks) for name in names))


class _Watched:
    """Checks each mix against what is there, and restarts the policy from its snapshot now and then."""

    name = "watched"

    def __init__(self, settings: SpotSettings, *, restart_every: int = 0) -> None:
        self.settings, self.policy = settings, SpotMix(settings)
        self.restart_every, self.asked = restart_every, 0
        self.mixes: list[Mix] = []

    def decide(self, observation: SpotObservation) -> Mix:
        self.asked += 1
        if self.restart_every and self.asked % self.restart_every == 0:
            state = json.loads(json.dumps(self.policy.snapshot()))
            self.policy = SpotMix(self.settings)
            self.policy.restore(state)
        mix = self.policy.decide(observation)
        self.mixes.append(mix)
        assert mix.total <= self.settings.max_machines
        assert all(count > 0 for _, count in mix.spot) and mix.on_demand >= 0
        if self.settings.budget_usd_per_hour is not None:
            price = {one.zone: one.usd_per_hour or 0.0 for one in observation.zones}
            usd = sum(price[name] * count for name, count in mix.spot)
            usd += mix.on_demand * (observation.on_demand_usd_per_hour or 0.0)
            assert usd <= self.settings.budget_usd_per_hour * (1 + 1e-6)
        elif observation.target is not None:
            # There is always capacity on demand: what is planned never falls below the target.
            going = sum(one.noticed for one in observation.zones)
            assert mix.total >= min(observation.target, self.settings.max_machines - going)
            # And nothing that serves is ended unless enough that serves is left.
            wanted = dict(mix.spot)
            left = sum(
                min(max(0, one.ready - one.noticed), wanted.get(one.zone, 0))  # what starts is noticed, too
                for one in observation.zones
                if one.ready
            )
            left += min(observation.on_demand_ready, mix.on_demand)
            serving = (
                sum(max(0, one.ready - one.noticed) for one in observation.zones)
                + observation.on_demand_ready
            )
            assert left >= min(observation.target, serving, self.settings.max_machines - going)
        return mix

    def snapshot(self) -> dict[str, Any]:
        return dict(self.policy.snapshot())

    def restore(self, state: Any) -> None:
        self.policy.restore(state)


@settings(max_examples=8, deadline=None, phases=_PHASES)
@given(
    seed=st.integers(0, 10_000),
    most=st.sampled_from([4, 9, 40]),
    budget=st.sampled_from([None, None, 2.0, 7.0]),
    machines=st.sampled_from([None, 1, 2]),
    cold_s=st.sampled_from([60.0, 180.0, 600.0]),
    notice_s=st.sampled_from([None, 120.0]),
)
def test_bounds_hold_on_any_zones_and_targets(
    seed: int, most: int, budget: float | None, machines: int | None, cold_s: float, notice_s: float | None
) -> None:
    rng = random.Random(seed)
    traces = synthetic(seed=seed, ticks=150, shocks_per_day=4).limited(machines)
    targets = [rng.randrange(7)]
    while len(targets) < 150:
        targets.append(rng.randrange(7) if rng.random() < 0.05 else targets[-1])
    chosen = SpotSettings(max_machines=most, budget_usd_per_hour=budget, cold_start_s=cold_s)
    found = simulate(_Watched(chosen), traces, target=targets, cold_start_s=cold_s, notice_s=notice_s)
    assert found.most <= most


@settings(max_examples=8, deadline=None, phases=_PHASES)
@given(seed=st.integers(0, 10_000), every=st.integers(1, 40))
def test_a_restored_policy_goes_on_as_if_nothing_had_been(seed: int, every: int) -> None:
    traces = synthetic(seed=seed, ticks=200).limited(2)
    whole, restarted = _Watched(SpotSettings()), _Watched(SpotSettings(), restart_every=every)
    assert simulate(whole, traces, target=4) == simulate(restarted, traces, target=4)
    assert whole.mixes == restarted.mixes


@settings(max_examples=80, deadline=None, phases=_PHASES)
@given(st.data())
def test_nothing_that_is_seen_makes_it_raise(data: st.DataObject) -> None:
    number: Any = st.one_of(
        st.integers(-3, 6), st.floats(), st.none(), st.booleans(), st.just(10**30), st.text(max_size=2)
    )
    policy = SpotMix(SpotSettings(max_machines=12))
    names = ["a1", "a2", "b1", "c1"]
    for step in range(6):
        zones = tuple(
            ZoneMarket(name, name[0], *(data.draw(number) for _ in range(8)))
            for name in data.draw(st.lists(st.sampled_from(names), max_size=5))
        )
        time_s = data.draw(st.one_of(st.just(step * 60.0), number))
        mix = policy.decide(
            SpotObservation(time_s, data.draw(number), zones, *(data.draw(number) for _ in range(4)))
        )
        assert 0 <= mix.total <= 12 or any(one.name == "count_invalid" for one in mix.alerts)
        json.dumps(policy.snapshot(), allow_nan=False)


def test_what_makes_no_sense_holds_the_last_mix_and_says_so() -> None:
    policy = SpotMix()
    first = policy.decide(_seen(0.0, 3, _zone("a1"), _zone("b1")))
    assert first.total >= 3
    for bad in (
        _seen(math.nan, 3, _zone("a1", ready=3), _zone("b1")),
        _seen(60.0, 3),
    ):
        held = policy.decide(bad)
        assert (held.spot, held.on_demand) == (first.spot, first.on_demand)
        assert held.alerts and held.reasons[0].part == "hold"
    mix = policy.decide(_seen(60.0, math.nan, _zone("a1", math.nan, ready=3), _zone("b1")))
    assert {one.name for one in mix.alerts} == {"target_invalid", "price_invalid"}
    assert mix.total >= 3
    # Nor is a price that no sum of prices could hold.
    mix = policy.decide(_seen(90.0, 3, _zone("a1", 1e308, ready=3), _zone("b1")))
    assert {one.name for one in mix.alerts} == {"price_invalid"}
    # A zone that is no longer told of, where machines are, is neither emptied nor forgotten.
    mix = policy.decide(_seen(120.0, 3, _zone("b1")))
    assert dict(mix.spot).get("a1") == 3
    assert "zone_missing" in {one.name for one in mix.alerts}


def test_nothing_moves_where_nothing_changes() -> None:
    watched = _Watched(SpotSettings())
    found = simulate(watched, _always("a1", "a2", "b1", "b2", "c1"), target=4)
    steps = [(mix.spot, mix.on_demand) for mix in watched.mixes]
    steps = [now for before, now in zip([None, *steps], steps, strict=False) if now != before]
    # Zones grow old and need less beside them; what was left is never gone back to.
    assert len(steps) == len(set(steps)) <= 20
    assert found.preempted == 0 and found.launches <= 24
    spot, on_demand = steps[-1]
    assert on_demand == 0 and sum(count for _, count in spot) <= 6


def test_replacements_are_ordered_before_machines_under_notice_go() -> None:
    policy = SpotMix()
    zones = [_zone("a1", ready=2), _zone("b1", ready=2), _zone("c1")]
    mix = Mix(0.0, (), 0)
    for step in range(100):
        mix = policy.decide(_seen(step * 195.0, 4, *zones))
        spot = dict(mix.spot)
        zones = [_zone(name, ready=spot.get(name, 0)) for name in ("a1", "b1", "c1")]
    hit = max(mix.spot, key=lambda each: each[1])[0]
    count = dict(mix.spot)[hit]
    now = [one._replace(noticed=count) if one.zone == hit else one for one in zones]
    after = policy.decide(_seen(100 * 195.0, 4, *now, on_demand_ready=mix.on_demand))
    assert after.total >= 4 and dict(after.spot).get(hit, 0) == 0


def test_on_demand_goes_when_spot_serves_and_not_before() -> None:
    policy = SpotMix(SpotSettings(availability=0.9))
    starting = policy.decide(_seen(0.0, 2, _zone("a1"), _zone("b1"), on_demand_ready=2))
    assert starting.on_demand == 2 and starting.spot_total >= 2
    spot = dict(starting.spot)
    mix = starting
    for step in range(1, 40):
        zones = [_zone(name, ready=spot.get(name, 0)) for name in ("a1", "b1")]
        mix = policy.decide(_seen(step * 195.0, 2, *zones, on_demand_ready=mix.on_demand))
        spot = dict(mix.spot)
    assert mix.on_demand == 0 and mix.spot_total >= 2


def test_switched_off_or_dear_spot_is_on_demand() -> None:
    traces = _always("a1", "b1", ticks=30)
    for chosen, costs in (
        (SpotSettings(spot=False), None),
        (SpotSettings(max_spot_usd_per_hour=0.5), None),
        (SpotSettings(), Costs(spot=9.0)),
    ):
        watched = _Watched(chosen)
        found = simulate(watched, traces, target=3, costs=costs)
        assert found.usd == pytest.approx(found.on_demand_usd) and found.at_target == 29
    assert SpotMix(SpotSettings(spot=False)).decide(_seen(0.0, 1, _zone("a1"))).reasons[0].part == "off"


def test_the_cheaper_of_zones_that_are_alike_is_taken() -> None:
    traces = _always("a1", "b1", "c1", ticks=600)
    watched = _Watched(SpotSettings(availability=0.95))
    simulate(watched, traces, target=4, costs=Costs(spot={"a": 1.2, "b": 0.6, "c": 1.2}))
    spot = dict(watched.mixes[-1].spot)
    assert spot.get("b1", 0) >= 4 and watched.mixes[-1].on_demand == 0


def test_drains_name_places_that_have_too_much() -> None:
    policy = SpotMix()
    mix = policy.decide(_seen(0.0, 1, _zone("a1", ready=3), _zone("b1", ready=3), on_demand_ready=4))
    assert mix.drain and set(mix.drain) <= {"a1", "b1", ON_DEMAND}
    assert mix.total >= 1


def test_alerts_at_bounds() -> None:
    policy = SpotMix(SpotSettings(max_machines=2))
    assert [one.name for one in policy.decide(_seen(0.0, 5, _zone("a1"))).alerts] == ["at_max_instances"]
    policy = SpotMix(SpotSettings(budget_usd_per_hour=2.0))
    assert "budget_reached" in [one.name for one in policy.decide(_seen(0.0, 5, _zone("a1"))).alerts]


def test_states_and_settings_that_make_no_sense_are_refused() -> None:
    policy = SpotMix()
    policy.decide(_seen(0.0, 3, _zone("a1")))
    good = dict(policy.snapshot())
    for name in good:
        for bad in (None, "x", [1], {"a": "b"}):
            with pytest.raises(CorruptDataError):
                policy.restore({**good, name: bad})
    assert dict(policy.snapshot()) == good
    for wrong in (
        {"availability": 1.0},
        {"availability": math.nan},
        {"cold_start_s": -1.0},
        {"max_machines": 0},
        {"max_machines": True},
        {"min_on_demand": 101},
        {"budget_usd_per_hour": "5"},
    ):
        with pytest.raises(InvalidInputError):
            SpotSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1])
def test_costs_less_than_its_peer_at_no_less_availability(seed: int) -> None:
    """On made-up zones; `benches/spot.py` has the recorded ones."""
    traces = synthetic(seed=seed, ticks=3000).limited(None)
    ours = [
        simulate(SpotMix(SpotSettings(availability=one)), traces, target=4) for one in (0.95, 0.99, 0.999)
    ]
    for extra in (0, 2):
        peer = simulate(SpotHedge(extra=extra, spread=True), traces, target=4)
        assert any(one.availability >= peer.availability and one.cost <= peer.cost for one in ours)
    assert ours[-1].cost < 0.7
