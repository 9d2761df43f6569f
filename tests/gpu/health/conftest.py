"""A driver without a GPU, and collectors on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.nvml.mock import MockNvml
from textnlp_fast.gpu.health.collector import Collector


@pytest.fixture
def nvml(tmp_path: Path) -> MockNvml:
    """A mock of the driver with eight GPUs, well and at rest."""
    return MockNvml(tmp_path / "nvml", gpus=8)


@pytest.fixture
def collect(nvml: MockNvml) -> Iterator[Callable[..., Collector]]:
    """Makes collectors on the mock, which read only when asked unless told otherwise; closes them."""
    made: list[Collector] = []

    def make(**options: object) -> Collector:
        settings = {"library": nvml.library, "kernel_log": None, "period_s": 0, "machine": "here", **options}
        made.append(Collector(**settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for collector in made:
        collector.close()
