"""SpotHedge does what its paper says: placement, over-provision, fallback."""

from __future__ import annotations

import pytest

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.scaling.spot.hedge import SpotHedge
from textnlp_fast.gpu.scaling.spot.market import SpotObservation, ZoneMarket


def _seen(target: int, *zones: ZoneMarket) -> SpotObservation:
    return SpotObservation(0.0, target, zones, on_demand_usd_per_hour=3.0)


def _zone(name: str, price: float = 1.0, **what: int) -> ZoneMarket:
    return ZoneMarket(name, name[:-1], price, **what)


def test_the_next_replica_goes_to_the_cheapest_active_zone_without_one() -> None:
    mix = SpotHedge(extra=0).decide(_seen(2, _zone("a1", 3.0), _zone("b1", 1.0), _zone("c1", 2.0)))
    assert dict(mix.spot) == {"a1": 0, "b1": 1, "c1": 1}


def test_where_all_have_one_the_cheapest_gets_the_rest_and_with_spread_the_emptiest() -> None:
    zones = (_zone("a1", 3.0), _zone("b1", 1.0), _zone("c1", 2.0))
    assert dict(SpotHedge(extra=0).decide(_seen(5, *zones)).spot) == {"a1": 1, "b1": 3, "c1": 1}
    assert dict(SpotHedge(extra=0, spread=True).decide(_seen(5, *zones)).spot) == {"a1": 1, "b1": 2, "c1": 2}


def test_a_preempted_zone_is_left_until_a_launch_there_comes_off_or_fewer_than_two_are_active() -> None:
    hedge = SpotHedge(extra=0)
    hedge.decide(_seen(1, _zone("a1"), _zone("b1"), _zone("c1")))
    mix = hedge.decide(_seen(1, _zone("a1", preempted=1), _zone("b1"), _zone("c1")))
    assert hedge.preempting == ["a1"] and dict(mix.spot)["b1"] == 1
    hedge.decide(_seen(1, _zone("a1", launched=1, starting=1), _zone("b1"), _zone("c1")))
    assert hedge.preempting == []
    hedge.decide(_seen(2, _zone("a1", refused=1), _zone("b1"), _zone("c1")))
    assert hedge.preempting == ["a1"]
    # One active zone would be left: all are active again.
    hedge.decide(_seen(2, _zone("a1"), _zone("b1", preempted=1), _zone("c1")))
    assert hedge.preempting == []


@pytest.mark.parametrize(
    ("ready", "on_demand"),
    [(0, 4), (1, 4), (2, 4), (3, 3), (4, 2), (5, 1), (6, 0), (7, 0)],
)
def test_fallback_is_the_least_of_the_target_and_what_is_not_ready(ready: int, on_demand: int) -> None:
    mix = SpotHedge(extra=2).decide(_seen(4, _zone("a1", ready=ready), _zone("b1")))
    assert mix.on_demand == on_demand
    assert mix.spot_total == 6


def test_nothing_is_held_for_a_target_of_zero() -> None:
    mix = SpotHedge(extra=2).decide(_seen(0, _zone("a1", ready=3)))
    assert mix.total == 0


def test_restore_takes_its_snapshot_and_refuses_others() -> None:
    hedge = SpotHedge()
    hedge.decide(_seen(1, _zone("a1", preempted=1), _zone("b1"), _zone("c1")))
    again = SpotHedge()
    again.restore(hedge.snapshot())
    assert again.preempting == ["a1"]
    for state in (
        {},
        {"preempting": [1], "target": 1},
        {"preempting": [], "target": -1},
        {"preempting": 3, "target": 1},
    ):
        with pytest.raises(CorruptDataError):
            again.restore(state)
    assert again.preempting == ["a1"]
