"""Plans against a search that tries everything, and against what must hold of any of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError, MissingPackageError, NoPlanError
from textnlp_fast.gpu.catalog import Catalog
from textnlp_fast.gpu.recommender import Accelerators, Workload, cheapest, mixed_fleet, recommend
from textnlp_fast.gpu.recommender.layout import Layout, memory_of, sequences_that_fit
from textnlp_fast.gpu.recommender.plans import layouts_for, replicas_for
from textnlp_fast.gpu.recommender.precision import weight_format
from textnlp_fast.gpu.recommender.serving import best_point
from textnlp_fast.gpu.types import GPUSpec, GPUType, Market, Offer

from .conftest import MEMORY_GIB, NIGHTLY, model, offer

SPEC_OF: Callable[[GPUType], GPUSpec] = Catalog.load().spec
LLAMA_8B = model("Meta-Llama-3.1-8B")
QWEN_MOE = model("Qwen3-30B-A3B")
GPUS = (GPUType.NVIDIA_H100, GPUType.NVIDIA_A100_80GB, GPUType.NVIDIA_L40S)
QUICK = settings(
    max_examples=100 if NIGHTLY else 8, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def workload(**change: Any) -> Workload:
    return Workload(**{"shape": LLAMA_8B, "requests_per_s": 20.0, **change})


OFFERS = [
    offer(GPUType.NVIDIA_H100, 8, 60.0),
    offer(GPUType.NVIDIA_H100, 1, 9.0),
    offer(GPUType.NVIDIA_A100_80GB, 8, 30.0),
    offer(GPUType.NVIDIA_A100_80GB, 8, 12.0, market=Market.SPOT),
    offer(GPUType.NVIDIA_L40S, 4, 8.0),
    offer(GPUType.NVIDIA_L40S, 1, 2.0, region="r2"),
]


def brute_force(asked: Workload, offers: list[Offer]) -> float:
    """The least that any offer, any layout and any number of machines of one type costs."""
    least = math.inf
    for one, tensor, copies in itertools.product(offers, range(1, 9), range(1, 9)):
        its = one.instance_type
        per_replica = tensor * copies
        if (
            one.market is Market.SPOT
            or per_replica > its.gpu_count
            or tensor not in (1, 2, 4, 8)
            or copies not in (1, 2, 4, 8)
            or (copies > 1 and not asked.shape.experts)
        ):
            continue
        point = best_point(
            asked.shape,
            SPEC_OF(its.gpu_type),
            asked.traffic,
            weights=asked.format,
            kv_bytes=asked.kv_bytes,
            layout=Layout(tensor, data=copies),
            gpu_memory_gib=its.gpu_memory_gib,
        )
        if isinstance(point, str):
            continue
        for machines in itertools.count(1):
            served = machines * (int(its.gpu_count) // per_replica) * point.requests_per_s
            if served >= asked.capacity_per_s * (1 - 1e-9):
                least = min(least, machines * one.usd_per_hour)
                break
    return least


@pytest.mark.parametrize("shape", [LLAMA_8B, QWEN_MOE], ids=["dense", "experts"])
@pytest.mark.parametrize("rate", [0.5, 20.0, 333.0])
def test_no_plan_of_one_type_is_cheaper(shape: Any, rate: float) -> None:
    asked = workload(shape=shape, requests_per_s=rate)
    assert recommend(asked, OFFERS, SPEC_OF).best.usd_per_hour == pytest.approx(brute_force(asked, OFFERS))


def test_plans_are_sorted_serve_the_rate_and_fit() -> None:
    asked = workload(requests_per_s=77.0, headroom=0.25)
    plans = recommend(asked, OFFERS, SPEC_OF).plans
    assert [plan.usd_per_hour for plan in plans] == sorted(plan.usd_per_hour for plan in plans)
    for plan in plans:
        assert plan.capacity_per_s >= 77.0 * 1.25 * (1 - 1e-9)
        assert plan.ttft_s <= asked.ttft_s
        assert plan.tpot_s <= asked.tpot_s
        assert plan.usd_per_million_tokens == pytest.approx(plan.usd_per_hour / (77 * 1250 * 3600) * 1e6)
        for one in plan.purchases:
            assert one.point.memory.used_gib <= one.point.memory.limit_gib
            assert one.gpus <= one.machines * one.offer.instance_type.gpu_count


@given(
    st.floats(0.1, 500),
    st.floats(1, 4),
    st.sampled_from([(500, 100), (2000, 300), (6000, 200)]),
    st.booleans(),
)
@QUICK
def test_more_requests_never_take_fewer_gpus(rate: float, times: float, lengths: Any, experts: bool) -> None:
    shape = QWEN_MOE if experts else LLAMA_8B
    asked = workload(shape=shape, requests_per_s=rate, prompt=lengths[0], output=lengths[1], ttft_s=3.0)
    more = replace(asked, requests_per_s=rate * times)
    for gpu in GPUS:
        few, many = (recommend(one, OFFERS, SPEC_OF, gpu_types=[gpu]).best for one in (asked, more))
        assert many.usd_per_hour >= few.usd_per_hour
        assert few.usd_per_hour < many.usd_per_hour or many.gpus >= few.gpus or many.machines >= few.machines


@given(st.floats(0.15, 3), st.floats(0.01, 0.2), st.floats(0.3, 1), st.floats(0.3, 1))
@QUICK
def test_tighter_targets_are_never_cheaper(ttft: float, tpot: float, less: float, shorter: float) -> None:
    def least(asked: Workload) -> float:
        try:
            return recommend(asked, OFFERS, SPEC_OF).best.usd_per_hour
        except NoPlanError:
            return math.inf

    loose = workload(ttft_s=ttft, tpot_s=tpot, requests_per_s=60.0)
    assert least(replace(loose, ttft_s=ttft * less, tpot_s=tpot * shorter)) >= least(loose)


@given(st.floats(1e-3, 1e3))
@QUICK
def test_prices_in_another_currency_change_no_choice(scale: float) -> None:
    asked = workload()
    scaled = [replace(one, usd_per_hour=one.usd_per_hour * scale) for one in OFFERS]
    before, after = recommend(asked, OFFERS, SPEC_OF), recommend(asked, scaled, SPEC_OF)
    assert [plan.gpu_types for plan in before.plans] == [plan.gpu_types for plan in after.plans]
    assert after.best.usd_per_hour == pytest.approx(before.best.usd_per_hour * scale)


@given(st.integers(0, 200), st.integers(0, 100), st.integers(1, 30000), st.sampled_from([1, 2, 4, 8]))
@QUICK
def test_memory_grows_with_sequences_and_shrinks_with_ranks(
    few: int, more: int, positions: int, tensor: int
) -> None:
    def used(sequences: int, layout: Layout) -> float:
        return memory_of(
            LLAMA_8B,
            weights=weight_format("bf16"),
            kv_bytes=2,
            layout=layout,
            gpu_memory_gib=80,
            sequences=sequences,
            positions=positions,
        ).used_gib

    assert used(few + more, Layout(tensor)) >= used(few, Layout(tensor))
    if 1 < tensor < 8:
        assert used(few, Layout(2 * tensor)) <= used(few, Layout(tensor))
    most = sequences_that_fit(
        LLAMA_8B,
        weights=weight_format("bf16"),
        kv_bytes=2,
        layout=Layout(tensor),
        gpu_memory_gib=80,
        positions=positions,
    )
    limit = 80 * 0.92
    assert used(most, Layout(tensor)) <= limit * (1 + 1e-9)
    assert most == 8192 or used(most + 1, Layout(tensor)) > limit * (1 - 1e-9)


def test_each_rejected_type_has_its_reason() -> None:
    asked = workload(shape=model("Meta-Llama-3.1-70B"), ttft_s=0.1)
    offers = [
        offer(GPUType.NVIDIA_L4, 1, 1.0),
        offer(GPUType.NVIDIA_P100, 4, 1.0),
        offer(GPUType.NVIDIA_T4, 0.5, 1.0),
        offer(GPUType.NVIDIA_L40S, 8, 10.0),
    ]
    with pytest.raises(NoPlanError) as caught:
        recommend(asked, offers, SPEC_OF, gpu_types=[*(one.instance_type.gpu_type for one in offers), *GPUS])
    reasons = dict(caught.value.rejected)
    assert "do not fit" in reasons["nvidia-l4"]
    assert "compute capability 6.0" in reasons["nvidia-p100"]
    assert "a part of a GPU" in reasons["nvidia-t4"]
    assert "first token after" in reasons["nvidia-l40s"]
    assert reasons["nvidia-h100"] == "no machine with it is on offer there"
    assert "nvidia-l4: " in str(caught.value)


def test_budget_and_formats_bound_plans() -> None:
    with pytest.raises(NoPlanError) as caught:
        recommend(workload(), OFFERS, SPEC_OF, max_usd_per_hour=0.5)
    assert all("over the budget" in text for _, text in caught.value.rejected)
    found = recommend(workload(), OFFERS, SPEC_OF, max_usd_per_hour=10.0)
    assert all(plan.usd_per_hour <= 10 for plan in found.plans)
    assert dict(found.rejected).keys() == {"nvidia-a100-80gb"}
    kept = recommend(workload(kv_cache="fp8"), OFFERS, SPEC_OF)
    assert "fp8 KV cache" in dict(kept.rejected)["nvidia-a100-80gb"]


def test_of_one_machine_in_two_regions_the_cheaper_is_taken() -> None:
    twice = [
        offer(GPUType.NVIDIA_H100, 8, usd, region=region) for usd, region in ((60.0, "r1"), (50.0, "r2"))
    ]
    for listed in (twice, twice[::-1]):
        bought = recommend(workload(), listed, SPEC_OF).best.purchases[0]
        assert (bought.offer.region, bought.offer.usd_per_hour) == ("r2", 50.0)


def test_spot_takes_the_share_that_is_allowed() -> None:
    asked = workload(requests_per_s=900.0)
    only = [GPUType.NVIDIA_A100_80GB]
    half = recommend(asked, OFFERS, SPEC_OF, gpu_types=only, spot_share=0.5).best
    counts = {one.offer.market: one.replicas for one in half.purchases}
    assert counts[Market.SPOT] == half.replicas // 2
    assert counts[Market.ON_DEMAND] == half.replicas - half.replicas // 2
    whole = recommend(asked, OFFERS, SPEC_OF, gpu_types=only, spot_share=1.0).best
    assert {one.offer.market for one in whole.purchases} == {Market.SPOT}
    spot_only = [one for one in OFFERS if one.market is Market.SPOT]
    with pytest.raises(NoPlanError, match="spot only"):
        recommend(asked, spot_only, SPEC_OF, spot_share=0.5)


def test_a_model_larger_than_a_machine_spans_machines() -> None:
    asked = workload(shape=model("DeepSeek-V3"), weights="fp8", ttft_s=20.0, tpot_s=1.0, requests_per_s=0.5)
    plan = recommend(asked, [offer(GPUType.NVIDIA_H100, 8, 60.0)], SPEC_OF).best
    assert plan.purchases[0].point.layout.pipeline == 2
    assert plan.machines == 2 * plan.replicas


@pytest.mark.parametrize(
    "change",
    [
        {"requests_per_s": 0},
        {"requests_per_s": -1},
        {"requests_per_s": float("nan")},
        {"requests_per_s": float("inf")},
        {"requests_per_s": True},
        {"prompt": 0},
        {"prompt": 1.5},
        {"output": -5},
        {"ttft_s": 0},
        {"tpot_s": -0.1},
        {"headroom": -0.1},
        {"weights": "fp3"},
        {"kv_cache": "int4"},
        {"context": 100},
        {"prompt": 200_000},
        {"shape": None},
        {"weights": 5},
        {"kv_cache": None},
        {"requests_per_s": "20"},
    ],
)
def test_workloads_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        workload(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"spot_share": 1.5},
        {"limit": 0},
        {"limit": "x"},
        {"max_usd_per_hour": -1},
        {"gpu_types": 5},
        {"gpu_types": ["h1000"]},
    ],
)
def test_limits_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        recommend(workload(), OFFERS, SPEC_OF, **change)


def test_what_is_no_workload_and_no_offer() -> None:
    for plan in (recommend, mixed_fleet):
        with pytest.raises(InvalidInputError, match="workload cannot be None"):
            plan(None, OFFERS, SPEC_OF)  # type: ignore[arg-type]
        for offers in (None, 5, [5], "offers"):
            with pytest.raises(InvalidInputError, match="offer"):
                plan(workload(), offers, SPEC_OF)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="offers cannot be None"):
        cheapest(None, [Accelerators(GPUType.NVIDIA_H100)])  # type: ignore[arg-type]


def test_types_may_be_named() -> None:
    found = recommend(workload(), OFFERS, SPEC_OF, gpu_types=["h100"])  # type: ignore[list-item]
    assert found == recommend(workload(), OFFERS, SPEC_OF, gpu_types=[GPUType.NVIDIA_H100])


def test_a_price_that_is_none() -> None:
    with pytest.raises(InvalidInputError, match="nan"):
        recommend(workload(), [offer(GPUType.NVIDIA_H100, 8, float("nan"))], SPEC_OF)


# --- fleets of several types -------------------------------------------------------------------------------


def exhaustive(asked: Workload, offers: list[Offer], spot_share: float, limits: dict[str, int]) -> float:
    """The least that any numbers of machines cost, by trying all of them."""
    best: dict[tuple[str, Market], tuple[float, Offer]] = {}
    for one in offers:
        its = one.instance_type
        for layout in layouts_for(asked.shape, int(its.gpu_count)):
            point = best_point(
                asked.shape,
                SPEC_OF(its.gpu_type),
                asked.traffic,
                weights=asked.format,
                kv_bytes=asked.kv_bytes,
                layout=layout,
                gpu_memory_gib=MEMORY_GIB[its.gpu_type],
            )
            if not isinstance(point, str):
                capacity = (int(its.gpu_count) // layout.gpus) * point.requests_per_s
                key = its.name, one.market
                if key not in best or capacity > best[key][0]:
                    best[key] = capacity, one
    columns = [column for column in best.values() if spot_share > 0 or column[1].market is Market.ON_DEMAND]
    most = [
        min(limits.get(one.instance_type.name, 99), math.ceil(asked.capacity_per_s / capacity))
        for capacity, one in columns
    ]
    least = math.inf
    for counts in itertools.product(*(range(count + 1) for count in most)):
        total = sum(count * capacity for count, (capacity, _) in zip(counts, columns, strict=True))
        spot = sum(
            count * capacity
            for count, (capacity, one) in zip(counts, columns, strict=True)
            if one.market is Market.SPOT
        )
        if total >= asked.capacity_per_s * (1 - 1e-9) and spot <= spot_share * total + 1e-9:
            usd = sum(count * one.usd_per_hour for count, (_, one) in zip(counts, columns, strict=True))
            least = min(least, usd)
    return least


@given(
    st.floats(5, 250),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.lists(st.floats(0.5, 60), min_size=5, max_size=5),
    st.dictionaries(st.sampled_from(["big", "small"]), st.integers(0, 3), max_size=2),
)
@settings(max_examples=100 if NIGHTLY else 8, deadline=None)
def test_no_mixed_fleet_is_cheaper(
    rate: float, spot_share: float, prices: list[float], limits: dict[str, int]
) -> None:
    pytest.importorskip("scipy")
    asked = workload(requests_per_s=rate, prompt=2000, output=300)
    offers = [
        offer(GPUType.NVIDIA_H100, 4, prices[0], name="big"),
        offer(GPUType.NVIDIA_H100, 4, prices[1], name="big", market=Market.SPOT),
        offer(GPUType.NVIDIA_A100_80GB, 2, prices[2], name="middle"),
        offer(GPUType.NVIDIA_L40S, 4, prices[3], name="small"),
    ]
    # Limits hold for both markets together; the search here counts them apart, so it gets none on `big`.
    limits.pop("big", None)
    found = mixed_fleet(asked, offers, SPEC_OF, spot_share=spot_share, machine_limits=limits).best
    assert found.capacity_per_s >= rate * (1 - 1e-6)
    assert found.usd_per_hour == pytest.approx(exhaustive(asked, offers, spot_share, limits), rel=1e-6)


def test_mixed_fleets_are_never_dearer_than_one_type_and_keep_their_limits() -> None:
    pytest.importorskip("scipy")
    asked = workload(requests_per_s=300.0)
    single = recommend(asked, OFFERS, SPEC_OF).best
    assert mixed_fleet(asked, OFFERS, SPEC_OF).best.usd_per_hour <= single.usd_per_hour * (1 + 1e-9)
    limited = mixed_fleet(asked, OFFERS, SPEC_OF, machine_limits={"nvidia-l40s-x1": 2}, max_share=0.6).best
    bought = {one.offer.instance_type.name: one for one in limited.purchases}
    assert bought.get("nvidia-l40s-x1") is None or bought["nvidia-l40s-x1"].machines <= 2
    assert len(bought) > 1
    with pytest.raises(InvalidInputError, match="no nvidia-l40s-x2 is on offer"):
        mixed_fleet(asked, OFFERS, SPEC_OF, machine_limits={"nvidia-l40s-x2": 2})
    with pytest.raises(NoPlanError, match="limits of machines"):
        mixed_fleet(asked, OFFERS[1:2], SPEC_OF, machine_limits={"nvidia-h100-x1": 1})


def test_without_scipy_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    assert recommend(workload(), OFFERS, SPEC_OF).plans
    with pytest.raises(MissingPackageError, match=r"textnlp-fast\[gpu\]"):
        mixed_fleet(workload(), OFFERS, SPEC_OF)


def test_replicas_are_not_one_more_for_a_rounding_error() -> None:
    assert replicas_for(0.1 + 0.2, 0.1) == 3
    assert replicas_for(0.3001, 0.1) == 4


# --- the cheapest machine ----------------------------------------------------------------------------------


def test_the_cheapest_machine_with_so_many_gpus() -> None:
    h100, l40s = Accelerators(GPUType.NVIDIA_H100), Accelerators(GPUType.NVIDIA_L40S, 2)
    assert cheapest(OFFERS, [h100]).usd_per_hour == 9.0
    assert cheapest(OFFERS, [h100, l40s]).instance_type.name == "nvidia-l40s-x4"
    assert cheapest(OFFERS, [Accelerators(GPUType.NVIDIA_A100_80GB)], spot=True).usd_per_hour == 12.0
    with pytest.raises(NoPlanError) as caught:
        cheapest(OFFERS, [h100, l40s], spot=True)
    assert dict(caught.value.rejected) == {
        "nvidia-h100:1": "not offered on spot there",
        "nvidia-l40s:2": "not offered on spot there",
    }
    with pytest.raises(InvalidInputError):
        cheapest(OFFERS, [])
