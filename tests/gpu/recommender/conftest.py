"""Models and small catalogues for the recommender's tests."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from textnlp_fast.gpu.catalog import Catalog
from textnlp_fast.gpu.recommender import ModelShape, read_model
from textnlp_fast.gpu.types import GPUSpec, GPUType, InstanceType, Market, Offer

NIGHTLY = "TEXTNLP_FAST_NIGHTLY" in os.environ
"""Then properties are tried on many more examples."""
CONFIGS = Path(__file__).parent / "configs"
MEMORY_GIB = {
    GPUType.NVIDIA_H100: 80,
    GPUType.NVIDIA_A100_80GB: 80,
    GPUType.NVIDIA_L40S: 44.7,
    GPUType.NVIDIA_L4: 22,
}


def model(name: str) -> ModelShape:
    return read_model(CONFIGS / f"{name}.json").shape


def offer(
    gpu: GPUType,
    count: float,
    usd: float,
    *,
    market: Market = Market.ON_DEMAND,
    name: str | None = None,
    region: str = "r1",
    provider: str = "aws",
) -> Offer:
    its = InstanceType(
        provider=provider,
        name=name or f"{gpu.value}-x{count:g}",
        gpu_type=gpu,
        gpu_count=count,
        gpu_memory_gib=MEMORY_GIB.get(gpu, 16),
        vcpus=16,
        memory_gib=128,
        network_gbps=100,
        local_nvme_gib=0,
    )
    day = datetime.date(2026, 7, 1)
    return Offer(
        instance_type=its,
        region=region,
        zone=None,
        market=market,
        usd_per_hour=usd,
        as_of=day,
        source="a test",
    )


@pytest.fixture(scope="session")
def spec_of() -> Callable[[GPUType], GPUSpec]:
    return Catalog.load().spec
