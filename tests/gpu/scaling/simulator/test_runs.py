"""Frontiers: what is read off between two runs, and every policy there is over a day."""

from __future__ import annotations

import math

import pytest

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.simulator.runs import (
    Frontier,
    Point,
    capacity_of,
    frontier_of,
    made_policy,
    policy_names,
    run_policy,
    settings_of,
)
from textnlp_fast.gpu.scaling.simulator.seasons import made_trace
from textnlp_fast.gpu.scaling.simulator.traffic import Traffic


@pytest.fixture(scope="module")
def hours() -> Traffic:
    return made_trace(days=0.5, seed=1).traffic(seed=1)


def point(hours: float, attainment: float, changes: float = 0.0) -> Point:
    return Point(1.0, attainment, hours, changes)


def test_between_two_runs_misses_fall_by_equal_factors() -> None:
    found = Frontier("x", (point(100, 0.9, 10), point(200, 0.999, 30)))
    middle = found.at_hours(150)
    assert middle is not None
    assert middle.attainment == pytest.approx(0.99)
    assert middle.changes == pytest.approx(20)
    back = found.at_attainment(0.99)
    assert back is not None
    assert back.replica_hours == pytest.approx(150)


def test_runs_that_others_beat_are_left_out() -> None:
    good = (point(100, 0.9), point(150, 0.99), point(200, 0.999))
    found = Frontier("x", (point(160, 0.98), *reversed(good), point(150, 0.5), point(90, 0.9)))
    assert found.best == (point(90, 0.9), *good[1:])


def test_what_a_policy_does_not_reach_is_none_and_what_all_have_is_the_cheapest() -> None:
    found = Frontier("x", (point(100, 0.9), point(200, 0.999)))
    assert found.at_attainment(0.9999) is None
    assert found.at_hours(99) is None
    assert found.at_attainment(0.5) == point(100, 0.9)
    assert found.at_hours(1e9) == point(200, 0.999)
    assert Frontier("x", ()).at_hours(1) is None
    perfect = Frontier("x", (point(100, 0.9), point(200, 1.0))).at_attainment(1.0)
    assert perfect is not None
    assert perfect.replica_hours == pytest.approx(200)


@pytest.mark.parametrize("name", policy_names())
def test_every_policy_runs_and_serves(name: str, hours: Traffic) -> None:
    run = run_policy(name, hours, cold_start_s=180.0)
    assert run.requests == sum(hours.requests)
    assert 0.5 < run.attainment <= 1.0
    demand = math.fsum(hours.work_s) / 3600
    assert demand < run.replica_hours < 10 * demand
    assert run == run_policy(name, hours, cold_start_s=180.0), "the same traffic gives the same run"


@pytest.mark.parametrize("name", [one for one in policy_names() if one != "oracle"])
def test_more_room_costs_more_and_misses_less(name: str, hours: Traffic) -> None:
    ends = settings_of(name)[-6], settings_of(name)[-2]
    found = frontier_of(name, hours, cold_start_s=180.0, settings=ends)
    cheap, dear = found.points
    assert cheap.replica_hours < dear.replica_hours
    assert cheap.attainment <= dear.attainment


def test_a_sweep_ends_when_enough_is_attained(hours: Traffic) -> None:
    seen = []
    found = frontier_of(
        "static_peak", hours, cold_start_s=0.0, enough=0.8, on_run=lambda s, run: seen.append(s)
    )
    assert len(found.points) == len(seen) < len(settings_of("static_peak"))
    assert found.points[-1].attainment >= 0.8 > found.points[-2].attainment


def test_capacity_is_what_fills_a_replica(hours: Traffic) -> None:
    capacity = capacity_of(hours)
    assert capacity.requests_per_s is not None
    assert capacity.concurrency is not None
    assert capacity.requests_per_s * hours.mean_work_s == pytest.approx(1.0)
    # Little's law: in flight = rate x time in service.
    assert capacity.concurrency == pytest.approx(capacity.requests_per_s * hours.service_s)


def test_unknown_names_and_settings_are_refused(hours: Traffic) -> None:
    with pytest.raises(InvalidInputError, match="knative"):
        made_policy("kubernetes", 0.7, hours, cold_start_s=0.0)
    with pytest.raises(InvalidInputError, match="share"):
        made_policy("static_peak", -1.0, hours, cold_start_s=0.0)
