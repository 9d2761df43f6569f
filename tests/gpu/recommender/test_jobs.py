"""Batch jobs and fine-tuning: by hand, and by what must hold of any of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError, NoPlanError
from textnlp_fast.gpu.catalog import Catalog
from textnlp_fast.gpu.recommender import BatchJob, FineTune, plan_batch, plan_fine_tune, training_memory
from textnlp_fast.gpu.recommender.fine_tune import MFU, adapter_parameters
from textnlp_fast.gpu.types import GPUType, Market

from .conftest import NIGHTLY, model, offer

SPEC_OF = Catalog.load().spec
LLAMA = model("Meta-Llama-3.1-8B")
GIB = 1 << 30
OFFERS = [
    offer(GPUType.NVIDIA_H100, 8, 60.0),
    offer(GPUType.NVIDIA_A100_80GB, 8, 30.0),
    offer(GPUType.NVIDIA_A100_80GB, 8, 12.0, market=Market.SPOT),
    offer(GPUType.NVIDIA_L40S, 4, 8.0),
    offer(GPUType.NVIDIA_L4, 1, 0.8),
]


# --- fine-tuning -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zero", "bytes_a_parameter"), [(0, 16.0), (1, 4 + 12 / 8), (2, 2 + 14 / 8), (3, 16 / 8)]
)
def test_states_take_what_the_zero_paper_counts(zero: int, bytes_a_parameter: float) -> None:
    run = FineTune(shape=LLAMA, tokens=1e9, zero=zero)
    memory = training_memory(run, gpus=8, gpu_memory_gib=80)
    states = memory.weights_gib + memory.gradients_gib + memory.optimizer_gib
    assert states * GIB == pytest.approx(LLAMA.parameters * bytes_a_parameter)


def test_adapters_are_counted_as_peft_counts_them() -> None:
    # Llama-3.1-8B, rank 16, all linear layers: 41,943,040, the figure that PEFT prints.
    assert adapter_parameters(LLAMA, 16) == 41_943_040


def test_the_run_takes_six_flops_a_parameter_and_token() -> None:
    plain = FineTune(shape=LLAMA, tokens=1e9, checkpointing=False, sequence=1)
    assert plain.flops == pytest.approx(6 * LLAMA.active_parameters * 1e9, rel=0.01)
    again = FineTune(shape=LLAMA, tokens=1e9, sequence=1)
    assert again.flops == pytest.approx(8 * LLAMA.active_parameters * 1e9, rel=0.01)
    adapters = FineTune(shape=LLAMA, tokens=1e9, sequence=1, method="lora", checkpointing=False)
    assert adapters.flops == pytest.approx(4 * LLAMA.active_parameters * 1e9, rel=0.01)
    whole = FineTune(shape=LLAMA, tokens=1e9)
    one = plan_fine_tune(whole, OFFERS[:1], SPEC_OF)[0]
    hours = whole.flops / (8 * 989.5e12 * MFU) / 3600
    assert one.machines == 1
    assert one.bound_by == "compute"
    assert one.hours == pytest.approx(hours)
    assert one.usd == pytest.approx(hours * 60)


@given(st.integers(128, 8192), st.booleans(), st.integers(0, 3), st.sampled_from(["full", "lora"]))
@settings(max_examples=30, deadline=None)
def test_training_memory_is_monotone(sequence: int, checkpointing: bool, zero: int, method: Any) -> None:
    def used(gpus: int = 8, **change: Any) -> float:
        sizes: dict[str, Any] = {
            "sequence": sequence,
            "checkpointing": checkpointing,
            "zero": zero,
            "method": method,
            **change,
        }
        return training_memory(
            FineTune(shape=LLAMA, tokens=1e9, **sizes), gpus=gpus, gpu_memory_gib=80
        ).used_gib

    assert used(sequence=2 * sequence) > used()
    assert used(checkpointing=True) <= used(checkpointing=False)
    assert used(gpus=16) <= used()
    assert used(method="lora") <= used(method="full")
    assert used(method="lora", weights="int4") < used(method="lora")


def test_deadlines_take_more_machines_and_budgets_fewer_choices() -> None:
    run = FineTune(shape=LLAMA, tokens=5e9)
    slow = plan_fine_tune(run, OFFERS, SPEC_OF)
    assert [plan.usd for plan in slow] == sorted(plan.usd for plan in slow)
    assert all(plan.memory.used_gib <= plan.memory.limit_gib for plan in slow)
    hours = min(plan.hours for plan in slow)
    soon = plan_fine_tune(FineTune(shape=LLAMA, tokens=5e9, deadline_h=hours / 3), OFFERS, SPEC_OF)
    assert all(plan.hours <= hours / 3 for plan in soon)
    assert soon[0].machines > 1
    with pytest.raises(NoPlanError) as caught:
        plan_fine_tune(run, OFFERS, SPEC_OF, max_usd=1.0)
    assert "over $1" in dict(caught.value.rejected)["nvidia-h100"]
    with pytest.raises(NoPlanError, match="do not fit"):
        plan_fine_tune(FineTune(shape=model("DeepSeek-V3"), tokens=1e9), OFFERS[-1:], SPEC_OF)
    spot = plan_fine_tune(run, OFFERS, SPEC_OF, spot=True)
    assert spot[0].offer.market is Market.SPOT


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": 0},
        {"tokens": math.nan},
        {"sequence": 0},
        {"sequence": 10**6},
        {"method": "magic"},
        {"optimizer": "lion"},
        {"zero": 4},
        {"weights": "int4"},
        {"rank": 0},
        {"deadline_h": -1},
        {"shape": None},
    ],
)
def test_runs_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        FineTune(**{"shape": LLAMA, "tokens": 1e9, **change})


# --- batch jobs --------------------------------------------------------------------------------------------


def test_batches_are_done_in_time_and_no_count_of_machines_is_cheaper() -> None:
    job = BatchJob(shape=LLAMA, requests=2_000_000, deadline_h=5.0)
    plans = plan_batch(job, OFFERS, SPEC_OF)
    assert [plan.usd for plan in plans] == sorted(plan.usd for plan in plans)
    for plan in plans:
        assert plan.hours <= job.deadline_h * (1 + 1e-9)
    rate = {}
    for plan in plans:  # by hand: every layout of a type and every count of machines
        each = plan.sized.replicas_a_machine * plan.sized.point.requests_per_s * 3600
        key = plan.offer.instance_type.name
        rate[key] = max(rate.get(key, 0.0), each)
    least = min(
        count * one.usd_per_hour * (job.startup_h + job.requests / (count * rate[one.instance_type.name]))
        for one in OFFERS
        if one.market is Market.ON_DEMAND and one.instance_type.name in rate
        for count in range(1, 200)
        if job.startup_h + job.requests / (count * rate[one.instance_type.name]) <= job.deadline_h
    )
    assert plans[0].usd == pytest.approx(least)
    assert plan_batch(job, OFFERS, SPEC_OF, spot=True)[0].usd <= plans[0].usd


@given(st.integers(1, 10**8), st.floats(0.5, 100), st.floats(1, 5))
@settings(max_examples=60 if NIGHTLY else 5, deadline=None)
def test_more_time_is_never_dearer_and_more_requests_never_cheaper(
    requests: int, hours: float, times: float
) -> None:
    def least(count: int, deadline: float) -> float:
        return plan_batch(BatchJob(shape=LLAMA, requests=count, deadline_h=deadline), OFFERS, SPEC_OF)[0].usd

    assert least(requests, hours * times) <= least(requests, hours) * (1 + 1e-9)
    assert least(int(requests * times), hours) >= least(requests, hours) * (1 - 1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"requests": 0},
        {"requests": 1.5},
        {"deadline_h": 0},
        {"deadline_h": 0.05},
        {"startup_h": -1},
        {"shape": None},
    ],
)
def test_batches_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        BatchJob(**{"shape": LLAMA, "requests": 100, "deadline_h": 1.0, **change})


def test_what_is_no_job_and_no_offer() -> None:
    batch = BatchJob(shape=LLAMA, requests=100, deadline_h=1.0)
    for plan, job in ((plan_batch, batch), (plan_fine_tune, FineTune(shape=LLAMA, tokens=1e9))):
        with pytest.raises(InvalidInputError, match="cannot be None"):
            plan(None, OFFERS, SPEC_OF)  # type: ignore[operator]
        with pytest.raises(InvalidInputError, match="offers cannot be None"):
            plan(job, None, SPEC_OF)  # type: ignore[operator]


def test_a_batch_over_budget() -> None:
    with pytest.raises(NoPlanError, match="the cheapest costs"):
        plan_batch(BatchJob(shape=LLAMA, requests=10**9, deadline_h=10), OFFERS, SPEC_OF, max_usd=5)
