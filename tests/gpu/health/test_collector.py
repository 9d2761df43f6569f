"""What the collector reads and reports, on a mock of the driver."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.nvml.mock import (
    NVML_ERROR_GPU_IS_LOST,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    NVML_ERROR_NO_PERMISSION,
    NVML_ERROR_NOT_SUPPORTED,
    NVML_ERROR_UNKNOWN,
    MockNvml,
)
from textnlp_fast.errors import DeviceError, InvalidInputError
from textnlp_fast.gpu.health.collector import Collector
from textnlp_fast.gpu.health.facts import Event

Collect = Callable[..., Collector]


def wait_for(collector: Collector, kind: str, *, timeout_s: float = 30) -> Event:
    """The first event of a kind; others before it are forgotten."""
    end = time.monotonic() + timeout_s
    seen = []
    while time.monotonic() < end:
        for event in collector.events(timeout_s=0.5):
            if event.kind == kind:
                return event
            seen.append(event)
    raise AssertionError(f"no event {kind}, only {seen}")


def test_a_gpu_at_rest(nvml: MockNvml, collect: Collect) -> None:
    readings = collect().sample()
    assert [reading.index for reading in readings] == list(range(8))
    one = readings[3]
    assert (one.machine, one.gpu) == ("here", nvml[3].uuid.decode())
    assert (one.name, one.pci_bus_id) == ("NVIDIA H100 80GB HBM3", "00000000:40:00.0")
    assert (one.temperature_c, one.temperature_margin_c, one.memory_temperature_c) == (34, 53, 41)
    assert (one.power_w, one.power_limit_w) == (pytest.approx(71.2), 700)
    assert (one.nvlink_links, one.nvlink_links_up, one.nvlink_errors) == (18, 18, 0)
    assert one.memory_used_bytes == 1 << 30
    assert one.retired_pages_pending is None
    assert one.fabric_state == "completed"
    assert not one.lost
    assert one.error is None
    assert abs(one.at_s - time.time()) < 60


def test_what_one_gpu_refuses_the_others_still_tell(nvml: MockNvml, collect: Collect) -> None:
    nvml[2].fail("nvmlDeviceGetPowerUsage", NVML_ERROR_UNKNOWN)
    nvml[5].lost = 1
    nvml[6].fail("nvmlDeviceGetTemperatureV", NVML_ERROR_NO_PERMISSION)
    readings = collect().sample()
    assert readings[2].power_w is None
    assert readings[2].temperature_c == 34
    assert readings[2].error == "nvmlDeviceGetPowerUsage: unknown error (999)"
    assert readings[6].error is not None
    assert "no permission" in readings[6].error
    assert [reading.lost for reading in readings] == [index == 5 for index in range(8)]
    assert readings[5].error is not None
    assert "lost" in readings[5].error
    assert readings[5].nvlink_links is None
    assert [reading.error is None for reading in readings] == [index not in (2, 5, 6) for index in range(8)]


def test_not_supported_is_no_error(nvml: MockNvml, collect: Collect) -> None:
    for function in ("nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetUtilizationRates"):
        nvml[0].fail(function, NVML_ERROR_NOT_SUPPORTED)
    one = collect().sample()[0]
    assert (one.ecc_corrected, one.utilisation_percent, one.error) == (None, None, None)


def test_xids_come_at_once(nvml: MockNvml, collect: Collect) -> None:
    collector = collect()
    collector.sample()
    nvml.xid(4, 79)
    event = wait_for(collector, "xid")
    assert (event.machine, event.gpu, event.code) == ("here", nvml[4].uuid.decode(), 79)
    assert (event.source, event.details["pci"]) == ("nvml", "00000000:50:00.0")
    nvml.xid(1, 94, gpu_instance=2, compute_instance=0)
    event = wait_for(collector, "xid")
    assert (event.code, event.details["gpu_instance"], event.details["compute_instance"]) == (94, "2", "0")


def test_a_gpu_that_goes_is_missed_and_its_return_noticed(nvml: MockNvml, collect: Collect) -> None:
    collector = collect()
    collector.sample()
    nvml[0].present = 0
    readings = collector.sample()
    event = wait_for(collector, "gpu-count")
    assert (event.code, event.details) == (7, {"before": "8", "gone": nvml[0].uuid.decode()})
    gone = [reading for reading in readings if reading.lost]
    assert [reading.gpu for reading in gone] == [nvml[0].uuid.decode()]
    assert gone[0].temperature_c is None
    assert len(readings) == 8
    nvml[0].present = 1
    readings = collector.sample()
    assert wait_for(collector, "gpu-count").code == 8
    assert [(reading.index, reading.lost) for reading in readings] == [(index, False) for index in range(8)]


def test_a_driver_that_refuses_everything(nvml: MockNvml, collect: Collect) -> None:
    nvml.fail("nvmlInit", NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    collector = collect()
    assert collector.sample() == []
    event = wait_for(collector, "driver-error")
    assert event.code == NVML_ERROR_LIB_RM_VERSION_MISMATCH
    assert "differ in version" in collector.state().error
    nvml.fail("nvmlInit", 0)
    assert len(collector.sample()) == 8
    wait_for(collector, "driver-answers")
    assert collector.state().error == ""


def test_a_handle_that_is_refused_is_a_reading(nvml: MockNvml, collect: Collect) -> None:
    nvml[1].fail("nvmlDeviceGetHandleByIndex", NVML_ERROR_NO_PERMISSION)
    nvml[2].fail("nvmlDeviceGetHandleByIndex", NVML_ERROR_GPU_IS_LOST)
    collector = collect()
    readings = collector.sample()
    assert [reading.gpu for reading in readings[1:3]] == ["index:1", "index:2"]
    assert [reading.lost for reading in readings[1:3]] == [False, True]
    nvml[1].fail("nvmlDeviceGetHandleByIndex", 0)
    assert collector.sample()[1].gpu == nvml[1].uuid.decode()
    assert len(collector.sample()) == 8


def test_a_hung_gpu_holds_up_neither_caller_nor_other_gpus(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(deadline_s=0.3)
    collector.sample()
    nvml[3].hang("nvmlDeviceGetTotalEccErrors")
    nvml[5].temperature = 77
    readings = collector.sample()
    assert readings[5].temperature_c == 77
    assert readings[3].temperature_c is None
    assert readings[3].error is not None
    assert "nvmlDeviceGetTotalEccErrors has not returned" in readings[3].error
    event = wait_for(collector, "driver-hung")
    assert (event.gpu, event.details["call"]) == (nvml[3].uuid.decode(), "nvmlDeviceGetTotalEccErrors")
    assert collector.state().hung
    nvml[3].answer("nvmlDeviceGetTotalEccErrors")
    assert wait_for(collector, "driver-answers").gpu == nvml[3].uuid.decode()
    assert [reading.error for reading in collector.sample()] == [None] * 8
    assert not collector.state().hung


def test_there_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be opened") as raised:
        Collector(library=tmp_path / "missing.so", kernel_log=None)
    assert "TEXTNLP_FAST_NVML" in raised.value.hint
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(DeviceError, match="cannot be opened"):
        Collector(library=tmp_path / "text.so", kernel_log=None)


@pytest.mark.parametrize(
    "options",
    [{"period_s": -1}, {"period_s": float("nan")}, {"deadline_s": 0}, {"slow_period_s": float("inf")}],
)
def test_periods_that_make_no_sense(collect: Collect, options: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="out of range"):
        collect(**options)
