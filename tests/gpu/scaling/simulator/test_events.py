"""The simulator of single requests, beside one that goes step by step, queueing theory, and the fluid one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.simulator.events import Engine, EventRun, simulate_requests
from textnlp_fast.gpu.scaling.simulator.fluid import simulate
from textnlp_fast.gpu.scaling.simulator.traces import RequestTrace
from textnlp_fast.gpu.scaling.simulator.traffic import ReplicaSpeed


class Scripted:
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


def requests_of(rows: list[tuple[float, int, int]]) -> RequestTrace:
    times, prompts, outputs = zip(*sorted(rows), strict=True)
    return RequestTrace(name="x", arrivals_s=times, prompt_tokens=prompts, output_tokens=outputs)


def poisson(
    rate: float, seconds: float, seed: int, draw: Callable[[random.Random], tuple[int, int]]
) -> RequestTrace:
    dice, now, rows = random.Random(seed), 0.0, []
    while (now := now + dice.expovariate(rate)) < seconds:
        rows.append((now, *draw(dice)))
    return requests_of(rows)


def still(trace: RequestTrace, count: int, *, engine: Engine, patience_s: float = 1e9) -> EventRun:
    return simulate_requests(
        Scripted(lambda _: count),
        trace,
        engine=engine,
        cold_start_s=0.0,
        patience_s=patience_s,
        initial=count,
    )


def step_by_step(trace: RequestTrace, engine: Engine) -> list[float]:
    """When each request's prefill begins on one replica that takes one step after another and looks at all of it."""
    waiting = list(zip(trace.arrivals_s, trace.prompt_tokens, trace.output_tokens, strict=True))
    begins: list[float] = []
    now, running = 0.0, []  # of each sequence: tokens that are left, KV cache that it holds
    while waiting:
        arrival, prompt, output = waiting[0]
        fits = len(running) < engine.max_batch
        fits = fits and sum(held for _, held in running) + prompt + output <= engine.kv_tokens
        if arrival <= now and fits:
            waiting.pop(0)
            begins.append(now)
            now += prompt / engine.prefill_tokens_per_s
            if output > 1:
                running.append((output - 1, prompt + output))
        elif running:
            now += engine.step_s + engine.step_s_a_sequence * len(running)
            running = [(left - 1, held) for left, held in running if left > 1]
        else:
            now = arrival
    return begins


@given(
    st.integers(0, 10_000),
    st.sampled_from([0.3, 1.0, 3.0, 8.0]),
    st.builds(
        Engine,
        prefill_tokens_per_s=st.sampled_from([500.0, 5000.0]),
        step_s=st.sampled_from([0.01, 0.033]),
        step_s_a_sequence=st.sampled_from([0.0, 0.002]),
        max_batch=st.integers(1, 8),
        kv_tokens=st.sampled_from([250, 400, 5000]),
    ),
)
@settings(deadline=None, max_examples=60)
def test_one_replica_is_as_one_that_goes_step_by_step(seed: int, rate: float, engine: Engine) -> None:
    trace = poisson(rate, 40.0, seed, lambda dice: (dice.randint(1, 200), dice.randint(0, 50)))
    run = still(trace, 1, engine=engine)
    begins = step_by_step(trace, engine)
    waits = [begin - arrival for begin, arrival in zip(begins, trace.arrivals_s, strict=True)]
    served = [wait for wait in run.waits_s if wait < math.inf]
    # Those that wait at the trace's end yet are waited for as long as patience lasts: all are served here.
    assert served == pytest.approx(waits, abs=1e-6)


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9])
def test_waits_are_those_of_m_d_1(load: float) -> None:
    """Prompts of one length, answers of one token: mean wait = load S / 2 (1 - load)."""
    trace = poisson(load / 0.1, 10_000.0, 7, lambda _: (100, 1))
    waits = still(trace, 1, engine=Engine(prefill_tokens_per_s=1000.0)).waits_s
    assert math.fsum(waits) / len(waits) == pytest.approx(load * 0.1 / (2 * (1 - load)), rel=0.12)


def test_waits_are_those_of_m_m_c() -> None:
    """Erlang's C: exponential prompts, three replicas that are busy four fifths of their time."""
    trace = poisson(24.0, 3000.0, 3, lambda dice: (round(dice.expovariate(1 / 1000.0)), 1))
    waits = still(
        trace, 3, engine=Engine(prefill_tokens_per_s=10_000.0, step_s=1e-4, step_s_a_sequence=0.0)
    ).waits_s
    offered, count = 2.4, 3
    last = offered**count / math.factorial(count) / (1 - offered / count)
    queues = last / (sum(offered**k / math.factorial(k) for k in range(count)) + last)
    assert math.fsum(waits) / len(waits) == pytest.approx(queues * 0.1 / (count - offered), rel=0.12)


def test_a_request_that_no_replica_can_hold_is_missed_and_stops_nobody() -> None:
    trace = requests_of([(0.5, 10_000, 1), (1.0, 10, 10)])
    run = still(trace, 1, engine=Engine(kv_tokens=1000))
    assert run.waits_s[0] == math.inf
    assert run.waits_s[1] < 0.1
    assert run.missed == 1


def test_who_has_waited_for_a_minute_leaves() -> None:
    trace = requests_of([(float(k), 10, 5) for k in range(200)])
    policy = Scripted(lambda step: int(step >= 10))
    run = simulate_requests(policy, trace, cold_start_s=5.0, patience_s=60.0, initial=0)
    assert run.ready[:12] == [0] * 12, "ordered after step 10, ready in the middle of the next"
    ready_at = 115.0
    for arrival, wait in zip(trace.arrivals_s, run.waits_s, strict=True):
        if arrival < ready_at - 60.0:
            assert wait == math.inf
        elif arrival < ready_at:
            assert ready_at - arrival - 1e-9 <= wait < ready_at - arrival + 2.0
        else:
            assert wait < 2.0
    assert policy.seen[8].waiting_requests == pytest.approx(60, abs=1)


def test_replicas_finish_what_they_stream_before_they_go_and_are_paid_until_then() -> None:
    engine = Engine(step_s=0.1, step_s_a_sequence=0.0)
    trace = requests_of([(0.0, 10, 300), (99.0, 1, 1)])
    run = simulate_requests(Scripted(lambda _: 0), trace, engine=engine, cold_start_s=0.0, initial=2)
    assert run.replica_hours * 3600 == pytest.approx(10.0 + 29.9, abs=0.2)
    assert run.waits_s[1] == math.inf


def test_what_a_policy_sees() -> None:
    trace = requests_of([(0.2 * k, 100, 100) for k in range(300)])
    policy = Scripted(lambda _: 2)
    simulate_requests(policy, trace, engine=Engine(), cold_start_s=0.0, initial=2)
    one = policy.seen[3]
    assert one.request_rate == pytest.approx(5.0, abs=0.11)
    assert one.prompt_tokens_rate == pytest.approx(500.0, abs=11)
    assert one.output_tokens_rate == pytest.approx(500.0, rel=0.1)
    assert one.running_requests is not None
    assert one.decode_tokens == pytest.approx(200 * one.running_requests)
    assert one.kv_cache_use == pytest.approx((one.decode_tokens or 0) / 400_000)
    assert one.slo_attainment == 1.0
    assert one.ttft_s is not None
    assert 0.01 < one.ttft_s < 0.1
    assert one.inter_token_s is not None
    assert 0.02 < one.inter_token_s < 0.03


@pytest.mark.parametrize("replicas", [4, 5, 7, 8])
def test_the_fluid_simulator_says_much_the_same(replicas: int) -> None:
    """Ten minutes at the load of six replicas. Just there they differ: batches that fill take in what a queue would."""
    speed = ReplicaSpeed()
    trace = poisson(
        16.0,
        600.0,
        5,
        lambda dice: (1 + round(dice.expovariate(1 / 1000)), 1 + round(dice.expovariate(1 / 240))),
    )
    single = simulate_requests(
        Scripted(lambda _: replicas), trace, engine=Engine.of_speed(speed), cold_start_s=0.0, initial=replicas
    )
    fluid = simulate(
        Scripted(lambda _: replicas), trace.traffic(speed=speed), cold_start_s=0.0, initial=replicas
    )
    assert single.replica_hours == pytest.approx(fluid.replica_hours)
    assert single.attainment == pytest.approx(fluid.attainment, abs=0.08)


def test_engines_without_speed_are_refused() -> None:
    for bad in ({"max_batch": 0}, {"kv_tokens": 0}, {"step_s": 0.0}, {"prefill_tokens_per_s": math.nan}):
        with pytest.raises(InvalidInputError):
            Engine(**bad)  # type: ignore[arg-type]
