"""The facts that ship: each has its date and source, and none is absurd."""

from __future__ import annotations

import datetime
import json
from collections import Counter, defaultdict
from importlib import resources
from typing import Any

import pytest

from textnlp_fast.gpu import Catalog, GPUType, Market
from textnlp_fast.gpu.catalog.catalog import packaged
from textnlp_fast.gpu.catalog.document import parse, render

LATEST = datetime.date(2026, 11, 29)


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    """The file as JSON has it: what the loader makes of it is not believed here."""
    data = resources.files("textnlp_fast.gpu.catalog").joinpath("data/catalog.json").read_bytes()
    document: dict[str, Any] = json.loads(data)
    return document


def test_every_type_of_gpu_has_one_specification(raw: dict[str, Any]) -> None:
    assert sorted(row["gpu_type"] for row in raw["gpus"]) == sorted(one.value for one in GPUType)


@pytest.mark.parametrize(
    ("gpu_type", "fp16", "fp8", "bandwidth", "capability", "bf16"),
    [
        (GPUType.NVIDIA_T4, 65, None, 320, (7, 5), False),
        (GPUType.NVIDIA_V100, 125, None, 900, (7, 0), False),
        (GPUType.NVIDIA_A10G, 70, None, 600, (8, 6), True),
        (GPUType.NVIDIA_L4, 121, 242.5, 300, (8, 9), True),
        (GPUType.NVIDIA_A100_80GB, 312, None, 2039, (8, 0), True),
        (GPUType.NVIDIA_H100, 989.5, 1979, 3350, (9, 0), True),
        (GPUType.NVIDIA_H200, 989.5, 1979, 4800, (9, 0), True),
        (GPUType.NVIDIA_B200, 2250, 4500, 8000, (10, 0), True),
    ],
)
def test_figures_of_the_datasheets(
    gpu_type: GPUType,
    fp16: float,
    fp8: float | None,
    bandwidth: float,
    capability: tuple[int, int],
    bf16: bool,
) -> None:
    spec = Catalog.load("/nonexistent").spec(gpu_type)
    assert (spec.fp16_dense_tflops, spec.fp8_dense_tflops, spec.memory_bandwidth_gb_s) == (
        fp16,
        fp8,
        bandwidth,
    )
    assert (spec.compute_capability, spec.bf16) == (capability, bf16)


def test_specifications_hang_together() -> None:
    for spec in Catalog.load("/nonexistent").gpus.values():
        assert spec.source and "recalled" not in spec.source  # unverified figures are named as such
        # The hardware's own rules: bf16 from Ampere on, fp8 from Ada on, at twice the rate of 16 bits.
        assert spec.bf16 == (spec.compute_capability >= (8, 0)), spec.gpu_type
        if spec.fp8_dense_tflops is not None:
            assert spec.compute_capability >= (8, 9)
            assert spec.fp16_dense_tflops is not None
            assert spec.fp8_dense_tflops == pytest.approx(2 * spec.fp16_dense_tflops, rel=0.02)


def test_every_row_has_provenance(raw: dict[str, Any]) -> None:
    assert all(raw["sources"])
    for row in raw["instance_types"]:
        assert row["source"]
        assert datetime.date(2024, 1, 1) < datetime.date.fromisoformat(row["as_of"]) <= LATEST
    for row in raw["prices"]:
        assert raw["sources"][row[7]]
        assert datetime.date(2024, 1, 1) < datetime.date.fromisoformat(row[6]) <= LATEST
    assert {row[7] for row in raw["prices"]} == set(range(len(raw["sources"]))), "a source that no row has"


def test_no_price_is_absurd(raw: dict[str, Any]) -> None:
    kinds = {(row["provider"], row["name"]): row for row in raw["instance_types"]}
    on_demand: dict[tuple[str, str, str], float] = {}
    for provider, name, region, _, market, usd, *_ in raw["prices"]:
        # Per GPU: the least is a P4 on spot, the most a GB200 on demand.
        per_gpu = usd / kinds[provider, name]["gpu_count"]
        assert 0.06 < per_gpu < 40, (name, region, market, usd)
        if market == "on-demand":
            on_demand[provider, name, region] = usd
    for provider, name, region, _, market, usd, *_ in raw["prices"]:
        if market == "spot" and (provider, name, region) in on_demand:
            assert usd < on_demand[provider, name, region]
    spread: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for (provider, name, _), usd in on_demand.items():
        spread[provider, name].append(usd)
    for kind, prices in spread.items():
        assert max(prices) < 2 * min(prices), kind


def test_spot_of_years_ago_is_no_fact(raw: dict[str, Any]) -> None:
    assert min(row[6] for row in raw["prices"] if row[4] == "spot") >= "2026-01-01"


def test_types_that_are_not_sold_on_demand_have_no_such_price() -> None:
    catalog = Catalog.load("/nonexistent")
    for name in ("a3-highgpu-1g", "a3-highgpu-4g", "a3-ultragpu-8g", "a4-highgpu-8g"):
        markets = {offer.market for offer in catalog.offers(providers="gcp", instance_types=name)}
        assert markets == {Market.SPOT}


def test_machines_hang_together(raw: dict[str, Any]) -> None:
    specs = {row["gpu_type"]: row for row in raw["gpus"]}
    names = Counter((row["provider"], row["name"]) for row in raw["instance_types"])
    assert max(names.values()) == 1
    priced = {(row[0], row[1]) for row in raw["prices"]}
    assert set(names) == priced
    for row in raw["instance_types"]:
        assert row["gpu_count"] in {1 / 8, 0.166667, 1 / 4, 0.333333, 1 / 2, 1, 2, 4, 8, 16}, row["name"]
        spec = specs[row["gpu_type"]]["memory_gib"]
        assert 0.9 * spec <= row["gpu_memory_gib"] <= spec, row["name"]
        assert row["memory_gib"] >= row["vcpus"] and row["vcpus"] >= 2
    keys = Counter(tuple(row[:5]) for row in raw["prices"])
    assert max(keys.values()) == 1


def test_prices_of_one_family_go_with_its_gpus() -> None:
    """N machines with one GPU each do not cost a tenth of one with N: a slip of a digit would."""
    catalog = Catalog.load("/nonexistent")
    on_demand = catalog.offers(markets="on-demand")
    by_place: defaultdict[tuple[str, GPUType, str], list[float]] = defaultdict(list)
    for offer in on_demand:
        kind = offer.instance_type
        by_place[kind.provider, kind.gpu_type, offer.region].append(offer.usd_per_hour / kind.gpu_count)
    for place, prices in by_place.items():
        assert max(prices) < 10 * min(prices), (place, sorted(prices))


def test_the_file_is_what_the_writer_writes_of_it(raw: dict[str, Any]) -> None:
    document = packaged()
    assert parse(render(document), "again") == document
    assert len(document.offers) == len(raw["prices"])
