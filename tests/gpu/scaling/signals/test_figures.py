"""Figures of replicas as observations: resets, gaps, new replicas, names of three engines."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu.scaling.signals.metrics_server import vllm_text
from textnlp_fast.gpu.health.prometheus_text import samples
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.gpu.scaling.signals.engines import Figures, figures_of
from textnlp_fast.gpu.scaling.signals.figures import FleetFigures

SLO = ScalingPolicy(period_s=10.0, slo_attainment=0.9, ttft_s=0.5)


def vllm(time_s: float, **said: object) -> Figures:
    return figures_of(samples(vllm_text(**said)), time_s=time_s)  # type: ignore[arg-type]


def test_vllm_as_an_observation() -> None:
    fleet = FleetFigures(SLO)
    fleet.observed({"a": vllm(0.0, finished=100, running=2)}, asked=["a"], time_s=0.0, ready=1)
    ttft = {"0.1": 40.0, "0.5": 45.0, "1.0": 50.0, "+Inf": 50.0}
    fleet.observed(
        {"a": vllm(5.0, finished=100, running=2, ttft=dict.fromkeys(ttft, 0))}, asked=["a"], time_s=5.0
    )
    said = {
        "finished": 150,
        "running": 5,
        "waiting": 7,
        "prompt_tokens": 5000,
        "output_tokens": 900,
        "kv": 0.5,
    }
    seen = fleet.observed({"a": vllm(10.0, ttft=ttft, **said)}, asked=["a"], time_s=10.0, ready=1, starting=2)
    assert (seen.ready, seen.starting) == (1, 2)
    assert seen.request_rate == pytest.approx((50 + 10) / 5)
    assert seen.prompt_tokens_rate == pytest.approx(1000)
    assert seen.output_tokens_rate == pytest.approx(180)
    assert (seen.waiting_requests, seen.running_requests) == (7, 5)
    assert seen.kv_cache_use == 0.5  # the current name wins over the one it replaced
    assert seen.decode_tokens == 0.5 * 16_000
    assert seen.prefill_tokens == pytest.approx(7 * 100)
    assert seen.ttft_s == pytest.approx(0.5)
    assert seen.slo_attainment == pytest.approx(0.9)
    assert seen.inter_token_s is None


def test_sglang_counts_one_of_the_ranks_that_tell_the_same() -> None:
    text = """
sglang:num_running_reqs{model_name="m",tp_rank="0",dp_rank="0"} 3
sglang:num_running_reqs{model_name="m",tp_rank="1",dp_rank="0"} 3
sglang:num_running_reqs{model_name="m",tp_rank="0",dp_rank="1"} 4
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 2
sglang:token_usage{model_name="m"} 0.28
sglang:num_used_tokens{model_name="m"} 123
sglang:num_requests_total{model_name="m"} 7
sglang:num_running_reqs{model_name="other"} 50
"""
    figures = figures_of(samples(text), time_s=0.0, model="m")
    assert figures.gauges == {"running": 7, "waiting": 2, "kv_use": 0.28, "kv_tokens": 123}
    assert figures.counters == {"finished": 7}


def test_tgi_counts_arrivals_itself() -> None:
    text = """
tgi_queue_size 4
tgi_batch_current_size 16
tgi_request_count {count}
tgi_request_success{{method="batch"}} {count}
tgi_request_mean_time_per_token_duration_bucket{{le="0.05"}} {count}
tgi_request_mean_time_per_token_duration_bucket{{le="+Inf"}} {count}
"""
    fleet = FleetFigures(SLO)
    for time_s, count in ((0.0, 10), (10.0, 60)):
        figures = figures_of(samples(text.format(count=count)), time_s=time_s)
        seen = fleet.observed({"a": figures}, asked=["a"], time_s=time_s)
    assert seen.request_rate == 5.0
    assert (seen.waiting_requests, seen.running_requests) == (4, 16)
    assert seen.inter_token_s == pytest.approx(0.05 * 0.9)


@given(
    st.lists(st.tuples(st.floats(0.5, 30.0), st.integers(0, 50), st.booleans(), st.booleans()), max_size=25)
)
def test_rates_never_go_below_nothing_and_add_up_to_what_was_counted(
    steps: list[tuple[float, int, bool, bool]],
) -> None:
    """An oracle that knows every request: what the observer tells, times the time, is what came since a baseline."""
    fleet = FleetFigures(SLO, hold_s=1e9)
    time_s, counter, known, told, due = 0.0, 1000, None, 0.0, 0.0
    since_s = 0.0
    for step_s, more, reset, missed in steps:
        time_s += step_s
        counter = more if reset else counter + more
        heard = {} if missed else {"a": Figures(time_s=time_s, counters={"arrived": float(counter)})}
        seen = fleet.observed(heard, asked=["a"], time_s=time_s)
        if missed:
            continue
        if known is not None:
            assert seen.request_rate is not None
            assert seen.request_rate >= 0
            told += seen.request_rate * (time_s - since_s)
            due += counter - known if counter >= known else counter
        known, since_s = counter, time_s
    assert told == pytest.approx(due)


def test_a_replica_that_is_not_heard_stands_for_a_while_and_is_then_forgotten() -> None:
    fleet = FleetFigures(SLO, hold_s=30.0)
    names = ["a", "b", "c"]
    fleet.observed({one: vllm(0.0, waiting=2) for one in names}, asked=names, time_s=0.0)
    seen = fleet.observed({"a": vllm(10.0, waiting=2)}, asked=names, time_s=10.0)
    assert seen.waiting_requests == 6
    seen = fleet.observed({"a": vllm(60.0, waiting=2)}, asked=names, time_s=60.0, ready=3)
    assert seen.waiting_requests is None  # one of three says nothing of the queue
    assert seen.ready == 3
    assert fleet.observed({}, asked=[], time_s=70.0).waiting_requests is None


def test_a_new_replica_is_a_beginning_whatever_it_counts() -> None:
    fleet = FleetFigures(SLO)
    fleet.observed({"a": vllm(0.0, finished=10)}, asked=["a"], time_s=0.0)
    seen = fleet.observed(
        {"a": vllm(10.0, finished=20), "b": vllm(10.0, finished=10**9)}, asked=["a", "b"], time_s=10.0
    )
    assert seen.request_rate == 1.0


def test_figures_that_are_no_numbers_are_left_out() -> None:
    figures = vllm(0.0, running=math.nan, waiting=-3, finished=math.inf, kv=0.3)
    assert "running" not in figures.gauges
    assert "waiting" not in figures.gauges
    assert "finished" not in figures.counters
    assert figures.gauges["kv_use"] == 0.3


def test_the_same_scrape_twice_and_a_clock_that_goes_back() -> None:
    fleet = FleetFigures(SLO)
    fleet.observed({"a": vllm(0.0, finished=10)}, asked=["a"], time_s=0.0)
    fleet.observed({"a": vllm(10.0, finished=20)}, asked=["a"], time_s=10.0)
    assert fleet.observed({"a": vllm(10.0, finished=20)}, asked=["a"], time_s=12.0).request_rate == 1.0
    assert fleet.observed({"a": vllm(5.0, finished=30)}, asked=["a"], time_s=13.0).request_rate is None
