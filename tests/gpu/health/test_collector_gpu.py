"""The collector beside nvidia-smi, where there is a GPU."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from textnlp_fast.gpu.health.collector import Collector

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no nvidia-smi here"),
]
# What does not change between two looks, and what may a little: field, column, how far apart they may be.
SAME = {
    "gpu": "uuid",
    "name": "name",
    "pci_bus_id": "pci.bus_id",
}
NEAR = {
    "memory_total_bytes": ("memory.total", 1 << 20, 1 << 20),
    "temperature_c": ("temperature.gpu", 1, 5),
    "power_w": ("power.draw", 1, 100),
    "power_limit_w": ("enforced.power.limit", 1, 1),
    "memory_clock_mhz": ("clocks.mem", 1, 3000),
    "ecc_corrected": ("ecc.errors.corrected.volatile.total", 1, 0),
    "ecc_uncorrected": ("ecc.errors.uncorrected.volatile.total", 1, 0),
    "pcie_width_max": ("pcie.link.width.max", 1, 0),
    "pcie_generation_max": ("pcie.link.gen.max", 1, 0),
}


def test_readings_are_nvidia_smis() -> None:
    columns = [*SAME.values(), *(column for column, _, _ in NEAR.values())]
    told = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(columns)}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    rows = [dict(zip(columns, line.split(", "), strict=True)) for line in told.splitlines()]
    with Collector(kernel_log=None, period_s=0, deadline_s=30) as collector:
        readings = collector.sample()
    assert len(readings) == len(rows)
    for reading, row in zip(readings, rows, strict=True):
        for field, column in SAME.items():
            assert getattr(reading, field) == row[column]
        for field, (column, unit, apart) in NEAR.items():
            value = getattr(reading, field)
            if row[column].startswith("["):  # [N/A], [Not Supported]
                assert value is None, field
            else:
                assert value == pytest.approx(float(row[column]) * unit, abs=apart), field
