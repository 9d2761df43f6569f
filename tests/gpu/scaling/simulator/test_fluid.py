"""The fluid simulator beside one that goes request by request, beside queueing theory, and against its own books."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.simulator.fluid import Market, Run, simulate
from textnlp_fast.gpu.scaling.simulator.traffic import (
    Bursts,
    TokenMix,
    Traffic,
    traffic_of_rates,
    traffic_of_requests,
)


class Scripted:
    """Says what it was told to, by the number of the step."""

    name = "scripted"

    def __init__(self, target: Callable[[int], int]) -> None:
        self.seen: list[Observation] = []
        self._target = target

    def decide(self, observation: Observation) -> Decision:
        self.seen.append(observation)
        return Decision(observation.time_s, self._target(len(self.seen) - 1))

    def snapshot(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def poisson(rate: float, seconds: int, seed: int, *, cv: float = 0.0) -> Traffic:
    mix = TokenMix(prompt_mean=7500.0 * 0.1, prompt_cv=cv, output_mean=100.0, output_cv=cv)
    return traffic_of_rates(
        [0, seconds], [rate, rate], name="poisson", seed=seed, bursts=Bursts(sigma=0.0), tokens=mix
    )


def request_by_request(
    traffic: Traffic, ready: list[int], *, wait_s: float, patience_s: float, seed: int
) -> tuple[float, float]:
    """Missed requests and given-up ones: each has its own time and its own work, before one server of changing speed.

    The second's requests come at random times and share its work. A request's wait is found by going through the
    speeds of the seconds to come until what is before it is done; the one that would wait too long takes no work.
    """
    dice = random.Random(seed)
    begun_at, missed, gave_up = 0.0, 0, 0
    for second in range(len(ready) * traffic.step_s):
        count = traffic.requests[second]
        for at in sorted(dice.random() for _ in range(count)):
            arrival = second + at
            begun_at = max(begun_at, arrival)
            wait = begun_at - arrival
            if wait > wait_s:
                missed += 1
            if wait > patience_s:
                gave_up += 1
                continue
            left = traffic.work_s[second] / count
            while left > 0:
                step = int(begun_at) // traffic.step_s
                speed = ready[min(step, len(ready) - 1)]
                until = math.floor(begun_at) + 1
                can = speed * (until - begun_at)
                if can >= left:
                    begun_at += left / speed
                    break
                left -= can
                begun_at = float(until)
    return missed, gave_up


@pytest.mark.parametrize("seed", range(4))
def test_misses_are_those_of_single_requests(seed: int) -> None:
    """A fleet that is driven below and above its load, over minutes; no replica is ever at nought."""
    dice = random.Random(seed)
    traffic = poisson(30.0, 4000, seed, cv=0.8)
    levels = [dice.choice([4, 5, 6, 7, 8, 9]) for _ in range(20)]
    run = simulate(Scripted(lambda step: levels[step // 20 % 20]), traffic, cold_start_s=30.0)
    missed, _ = request_by_request(traffic, run.ready, wait_s=1.0, patience_s=60.0, seed=seed)
    assert 0.02 < run.missed / run.requests < 0.98
    assert run.missed / run.requests == pytest.approx(missed / run.requests, abs=0.01)


@pytest.mark.parametrize(("load", "replicas"), [(0.8, 1), (0.9, 1), (0.9, 3), (0.95, 2)])
def test_waiting_work_is_that_of_m_g_1(load: float, replicas: int) -> None:
    """Pollaczek and Khinchine: mean unfinished work = rate E[S^2] / 2 (1 - load), of a server `replicas` times as fast.

    A second is long against a service here, so the seconds' own randomness is left out below a second of work: the
    bound is wide where loads are low, and narrow where queues last longer than seconds.
    """
    traffic = poisson(load * replicas / 0.2, 400_000, 5, cv=1.0)
    policy = Scripted(lambda _: replicas)
    simulate(policy, traffic, cold_start_s=0.0, initial=replicas, patience_s=1e9)
    queued = np.mean([one.waiting_requests or 0.0 for one in policy.seen]) * traffic.mean_work_s / replicas
    rate = load * replicas / 0.2
    second = (
        0.1**2 + 0.1**2
    ) * 2 + 2 * 0.1 * 0.1  # two parts of 0.1 s, coefficient of variation 1, independent
    expected = rate * second / replicas**2 / (2 * (1 - load))
    assert queued <= expected * 1.15
    assert queued >= expected * 0.85 - 0.5


@st.composite
def runs(draw: st.DrawFn) -> tuple[Traffic, Run, Scripted, float]:
    rates = draw(st.lists(st.floats(0.0, 60.0), min_size=2, max_size=8))
    seed = draw(st.integers(0, 99))
    traffic = traffic_of_rates([300.0 * k for k in range(len(rates))], rates, name="any", seed=seed)
    targets = draw(st.lists(st.integers(-1, 30), min_size=1, max_size=12))
    every = draw(st.integers(1, 10))
    losses = draw(st.lists(st.tuples(st.floats(0, 2000), st.integers(0, 5)), max_size=4))
    market = Market(
        usd_per_hour=2.0, spot_usd_per_hour=0.5, spot_share=draw(st.floats(0, 1)), losses=tuple(losses)
    )
    policy = Scripted(lambda step: targets[step // every % len(targets)])
    cold = draw(st.sampled_from([0.0, 25.0, 180.0]))
    run = simulate(policy, traffic, cold_start_s=cold, initial=draw(st.integers(0, 5)), market=market)
    return traffic, run, policy, cold


@given(runs())
@settings(deadline=None, max_examples=60)
def test_books_balance(case: tuple[Traffic, Run, Scripted, float]) -> None:
    traffic, run, policy, cold = case
    brought = math.fsum(traffic.work_s[: traffic.steps * traffic.step_s])
    out = run.served_work_s + run.given_up_work_s + run.queued_work_s
    assert out == pytest.approx(brought + run.redone_work_s, rel=1e-9, abs=1e-6)
    assert run.served_work_s <= sum(run.ready) * traffic.step_s + 1e-6
    assert run.replica_hours == pytest.approx(sum(run.paid) * traffic.step_s / 3600)
    assert all(paid >= ready >= 0 for paid, ready in zip(run.paid, run.ready, strict=True))
    assert 0 <= run.missed <= run.requests + 1e-9
    assert run.missed == pytest.approx(math.fsum(run.misses))
    assert run.replica_hours * 0.5 - 1e-9 <= run.usd <= run.replica_hours * 2.0 + 1e-9
    assert len(run.ready) == len(policy.seen) == traffic.steps
    for step, one in enumerate(policy.seen):
        assert one.ready == run.ready[step]
        assert one.ready + one.starting <= run.paid[step]
        assert one.gpu_utilisation is not None and 0.0 <= one.gpu_utilisation <= 1.0
    _never_before_its_cold_start(run, policy, cold)


def _never_before_its_cold_start(run: Run, policy: Scripted, cold: float) -> None:
    """Whoever serves in a step had been ordered when a cold start was over: the orders are replayed with a heap."""
    served_from: list[float] = []
    for step in range(len(policy.seen) - 1):
        have = policy.seen[step].ready + policy.seen[step].starting  # type: ignore[operator]
        want = max(0, policy._target(step))
        if want > have:
            for _ in range(want - have):
                heapq.heappush(served_from, (step + 1) * run.step_s + cold)
        elif run.lost == 0 and want < have:
            cut = min(have - want, len(served_from))
            served_from = sorted(served_from)[: len(served_from) - cut]
            heapq.heapify(served_from)
        grown = run.ready[step + 1] - run.ready[step]
        if grown > 0:
            orders = [heapq.heappop(served_from) for _ in range(min(grown, len(served_from)))]
            assert len(orders) == grown
            assert max(orders) <= (step + 1) * run.step_s


def test_a_replica_is_paid_from_its_order_and_serves_after_its_cold_start() -> None:
    traffic = poisson(1.0, 200, 1)
    run = simulate(Scripted(lambda step: 3 if step < 9 else 1), traffic, cold_start_s=30.0, initial=1)
    assert run.ready[:12] == [1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 1, 1]
    assert run.paid[:10] == [1, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    assert run.paid[10] == 3, "replicas that go are paid for while they drain"
    assert run.paid[11] == 1, "and no longer"
    assert run.changes == 2


def test_replicas_that_start_go_before_those_that_serve() -> None:
    run = simulate(
        Scripted(lambda step: [5, 3, 3, 3, 3, 3][min(step, 5)]),
        poisson(1.0, 100, 1),
        cold_start_s=30.0,
        initial=2,
    )
    assert run.ready == [2, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert run.paid == [2, 5, 3, 3, 3, 3, 3, 3, 3, 3]


def test_lost_replicas_are_paid_no_longer_and_their_streams_run_again() -> None:
    market = Market(usd_per_hour=3.0, spot_usd_per_hour=1.0, spot_share=0.5, losses=((50.0, 9),))
    run = simulate(
        Scripted(lambda _: 4), poisson(10.0, 100, 1), cold_start_s=1000.0, initial=4, market=market
    )
    assert run.ready == [4] * 5 + [2] * 5
    assert run.lost == 2
    assert run.redone_work_s > 0
    assert run.paid == [4] * 5 + [2] + [4] * 4, "the policy orders them again at the next step"
    assert run.usd == pytest.approx(sum(2.0 * one for one in run.paid) * 10 / 3600)


def test_nobody_serves_and_all_are_missed() -> None:
    run = simulate(Scripted(lambda _: 0), poisson(10.0, 600, 1), cold_start_s=0.0, initial=0)
    assert run.missed == pytest.approx(run.requests)
    assert run.attainment == pytest.approx(0.0)
    assert run.given_up_work_s > 0


@pytest.mark.parametrize(
    "bad",
    [
        {"cold_start_s": -1.0},
        {"cold_start_s": math.inf},
        {"cold_start_s": math.nan},
        {"initial": -1},
        {"patience_s": 0.1},
    ],
)
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        simulate(Scripted(lambda _: 1), poisson(1.0, 60, 1), **{"cold_start_s": 0.0, **bad})


def test_traffic_without_requests_runs() -> None:
    traffic = traffic_of_rates([0, 100], [0.0, 0.0], name="none")
    run = simulate(Scripted(lambda _: 1), traffic, cold_start_s=0.0)
    assert (run.requests, run.attainment) == (0, 1.0)


def test_seconds_and_steps_hold_what_came() -> None:
    traffic = traffic_of_requests([0.0, 0.9, 10.0, 25.5], [100, 200, 300, 400], [1, 2, 3, 4], name="four")
    assert traffic.steps == 3
    assert list(traffic.requests)[:11] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert list(traffic.prompt_tokens) == [300, 300, 400]
    assert list(traffic.output_tokens) == [3, 3, 4]
    assert math.fsum(traffic.work_s) == pytest.approx(1000 / 7500 + 10 / 1000)


@pytest.mark.parametrize(
    ("times", "rates"),
    [
        ([0], [1]),
        ([0, 1], [1]),
        ([1, 0], [1, 1]),
        ([0, 1], [1, math.nan]),
        ([0, 1], [-1, 1]),
        ([0, math.nan], [1, 1]),
    ],
)
def test_rates_that_are_none_are_refused(times: list[float], rates: list[float]) -> None:
    with pytest.raises(InvalidInputError):
        traffic_of_rates(times, rates, name="bad")
