"""NVIDIA's own Python binding reads the same mock: every value must come out the same, in random states."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.nvml.mock import NVML_ERROR_NOT_SUPPORTED, Gpu, MockNvml, reset
from textnlp_fast.gpu.health.collector import Collector
from textnlp_fast.gpu.health.facts import Reading

Collect = Callable[..., Collector]
GPUS = 2
# What a GPU may refuse without the whole reading being another.
FUNCTIONS = (
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetNvLinkErrorCounter",
)
FIELDS = (
    "MEMORY_TEMP",
    "NVLINK_LINK_COUNT",
    "NVLINK_ERROR_DL_REPLAY",
    "NVLINK_ERROR_DL_RECOVERY",
    "NVLINK_ERROR_DL_CRC",
    "NVLINK_COUNT_LINK_RECOVERY_EVENTS",
    "GET_GPU_RECOVERY_ACTION",
)
CODES = (0, 0, 0, NVML_ERROR_NOT_SUPPORTED, 4, 13, 16, 999)

count32 = st.integers(0, (1 << 32) - 2)
count53 = st.integers(0, 1 << 40)
numbers = st.fixed_dictionaries(
    {
        "utilization": st.integers(0, 100),
        "memory_total": st.integers(1 << 39, 1 << 40),
        "memory_used": st.integers(0, 1 << 38),
        "memory_reserved": st.integers(0, 1 << 32),
        "temperature": st.integers(0, 120),
        "margin": st.integers(-40, 90),
        "threshold_slowdown": st.integers(-1, 110),
        "threshold_gpu_max": st.integers(-1, 110),
        "power_mw": st.integers(0, 2_000_000),
        "enforced_limit_mw": st.integers(0, 2_000_000),
        "management_limit_mw": st.integers(0, 2_000_000),
        "sm_clock": st.integers(0, 5000),
        "memory_clock": st.integers(0, 20000),
        "reasons": st.integers(0, (1 << 63) - 1),
        "ecc_corrected": st.integers(0, (1 << 64) - 2),
        "ecc_uncorrected": st.integers(0, (1 << 64) - 2),
        "rows_corrected": count32,
        "rows_uncorrected": count32,
        "rows_pending": st.integers(0, 1),
        "rows_failed": st.integers(0, 1),
        "retired_pending": st.integers(0, 1),
        "pcie_replays": count32,
        "pcie_width": st.sampled_from([1, 2, 4, 8, 16, 32]),
        "pcie_width_max": st.sampled_from([1, 2, 4, 8, 16, 32]),
        "pcie_generation": st.integers(1, 7),
        "pcie_generation_max": st.integers(1, 7),
        "fabric_state": st.integers(0, 3),
        "fabric_status": st.sampled_from([0, 0, 999]),
        "fabric_health": st.integers(0, 3),
        "links": st.integers(0, 36),
        "memory_temperature": st.integers(0, 120),
        "recovery_action": st.integers(0, 7),
    }
)
links = st.fixed_dictionaries(
    {
        "link_active": st.lists(st.integers(0, 1), min_size=36, max_size=36),
        **{
            name: st.lists(count53, min_size=36, max_size=36)
            for name in (
                "link_replays",
                "link_recoveries",
                "link_crc",
                "link_crc_data",
                "link_recovery_events",
            )
        },
    }
)
states = st.fixed_dictionaries(
    {
        "numbers": numbers,
        "links": links,
        "functions": st.dictionaries(st.sampled_from(FUNCTIONS), st.sampled_from(CODES), max_size=4),
        "fields": st.dictionaries(st.sampled_from(FIELDS), st.sampled_from([0, 0, 3, 999]), max_size=4),
    }
)


@pytest.fixture
def pynvml(nvml: MockNvml) -> Iterator[ModuleType]:
    """nvidia-ml-py, with the mock in place of the library that it would look for."""
    module = pytest.importorskip("pynvml")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "nvmlLib", ctypes.CDLL(str(nvml.library)))
        patched.setattr(module, "_nvmlGetFunctionPointer_cache", {})
        module.nvmlInit()
        yield module
        module.nvmlShutdown()


def apply(gpu: Gpu, index: int, state: dict[str, Any]) -> None:
    reset(gpu, index)
    gpu.present = 1
    for name, value in {**state["numbers"], **state["links"]}.items():
        setattr(gpu, name, value)
    for name, code in state["functions"].items():
        gpu.fail(name, code)
    for name, code in state["fields"].items():
        gpu.fail_field(name, code)


def read(pynvml: ModuleType, index: int) -> dict[str, Any]:
    """The fields of a Reading, as a plain user of nvidia-ml-py would get them, in the order of the documentation."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)

    def ask(name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(pynvml, name)(handle, *arguments, **options)
        except pynvml.NVMLError:
            return None

    def field(number: int, scope: int = 0) -> Any:
        values = ask("nvmlDeviceGetFieldValues", [(number, scope)])
        if values is None or values[0].nvmlReturn != 0:
            return None
        return getattr(
            values[0].value,
            ["dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal"][values[0].valueType],
        )

    def scaled(value: int | None) -> float | None:
        return None if value is None else value / 1000

    memory = ask("nvmlDeviceGetMemoryInfo", version=pynvml.nvmlMemory_v2) or ask("nvmlDeviceGetMemoryInfo")
    load = ask("nvmlDeviceGetUtilizationRates")
    temperature = ask("nvmlDeviceGetTemperatureV", pynvml.NVML_TEMPERATURE_GPU)
    if temperature is None:
        temperature = ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU)
    margin = ask("nvmlDeviceGetMarginTemperature")
    if margin is None and temperature is not None:
        for threshold in (
            pynvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
            pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
        ):
            limit = ask("nvmlDeviceGetTemperatureThreshold", threshold)
            if limit is not None:
                margin = limit - temperature
                break
    limit = ask("nvmlDeviceGetEnforcedPowerLimit")
    if limit is None:
        limit = ask("nvmlDeviceGetPowerManagementLimit")
    rows = ask("nvmlDeviceGetRemappedRows") or (None, None, None, None)
    pending = ask("nvmlDeviceGetRetiredPagesPendingStatus")
    return {
        "gpu": ask("nvmlDeviceGetUUID"),
        "name": ask("nvmlDeviceGetName"),
        "pci_bus_id": ask("nvmlDeviceGetPciInfo").busId,
        "utilisation_percent": None if load is None else load.gpu,
        "memory_used_bytes": None if memory is None else memory.used,
        "memory_total_bytes": None if memory is None else memory.total,
        "temperature_c": temperature,
        "temperature_margin_c": margin,
        "memory_temperature_c": field(pynvml.NVML_FI_DEV_MEMORY_TEMP),
        "power_w": scaled(ask("nvmlDeviceGetPowerUsage")),
        "power_limit_w": scaled(limit),
        "sm_clock_mhz": ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),
        "throttle_reasons": ask("nvmlDeviceGetCurrentClocksEventReasons"),
        "ecc_corrected": ask("nvmlDeviceGetTotalEccErrors", 0, pynvml.NVML_VOLATILE_ECC),
        "ecc_uncorrected": ask("nvmlDeviceGetTotalEccErrors", 1, pynvml.NVML_VOLATILE_ECC),
        "remapped_rows_corrected": rows[0],
        "remapped_rows_uncorrected": rows[1],
        "remap_pending": None if rows[2] is None else bool(rows[2]),
        "remap_failed": None if rows[3] is None else bool(rows[3]),
        "retired_pages_pending": None if pending is None else bool(pending),
        "pcie_replays": ask("nvmlDeviceGetPcieReplayCounter"),
        "pcie_width": ask("nvmlDeviceGetCurrPcieLinkWidth"),
        "pcie_width_max": ask("nvmlDeviceGetMaxPcieLinkWidth"),
        "pcie_generation": ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        "pcie_generation_max": ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        "recovery_action": field(pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
        "fabric_state": read_fabric(pynvml, handle),
        **read_links(pynvml, ask, field),
    }  # fmt: skip


def read_links(pynvml: ModuleType, ask: Callable[..., Any], field: Callable[..., Any]) -> dict[str, Any]:
    count = field(pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT)
    states = [ask("nvmlDeviceGetNvLinkState", link) for link in range(36)]
    if count is None:
        # Without the field, the links are those that have a state.
        count = next((link for link, state in enumerate(states) if state is None), 36)
        if count == 0:
            return {"nvlink_links": None, "nvlink_links_up": None, "nvlink_errors": None}
    told = [state for state in states[:count] if state is not None]
    up = sum(told) if told or count == 0 else None
    errors: list[int] = []
    for link in range(count):
        counts = [
            field(pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY, link),
            field(pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_CRC, link),
        ]
        recoveries = field(pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY, link)
        if recoveries is None:
            recoveries = field(pynvml.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS, link)
        errors += [each for each in (*counts, recoveries) if each is not None]
    if not errors:
        for link in range(count):
            counts = [ask("nvmlDeviceGetNvLinkErrorCounter", link, kind) for kind in range(4)]
            errors += [each for each in counts if each is not None]
    return {"nvlink_links": count, "nvlink_links_up": up, "nvlink_errors": sum(errors) if errors else None}  # fmt: skip


def read_fabric(pynvml: ModuleType, handle: Any) -> str | None:
    info = pynvml.c_nvmlGpuFabricInfo_v3_t()
    try:
        pynvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
    except pynvml.NVMLError:
        info = pynvml.c_nvmlGpuFabricInfo_v2_t()
        try:
            pynvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
        except pynvml.NVMLError:
            info = pynvml.c_nvmlGpuFabricInfo_t()
            try:
                pynvml.nvmlDeviceGetGpuFabricInfo(handle, ctypes.byref(info))
            except pynvml.NVMLError:
                return None
    if info.state == 3:
        if info.status != 0:
            return "failed"
        return {2: "unhealthy", 3: "limited-capacity"}.get(getattr(info, "healthSummary", 0), "completed")
    return {1: "not-started", 2: "in-progress"}.get(info.state)


def shown(reading: Reading) -> dict[str, Any]:
    return {
        name: getattr(reading, name)
        for name in Reading.__dataclass_fields__
        if name not in ("machine", "index", "at_s", "error", "lost")
    }


# The mock and the collector are made once for all states: what one state leaves behind must not show in the next.
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=200 if os.environ.get("TEXTNLP_FAST_NIGHTLY") else 25,
)
@given(st.lists(states, min_size=GPUS, max_size=GPUS), st.sampled_from([2, 3]))
def check(nvml: MockNvml, pynvml: ModuleType, collector: Collector, drawn: list[Any], fabric: int) -> None:
    nvml.fabric_version = fabric
    for index, state in enumerate(drawn):
        apply(nvml[index], index, state)
    readings = collector.sample()
    assert len(readings) == GPUS
    for index, reading in enumerate(readings):
        expected = read(pynvml, index)
        found = shown(reading)
        assert set(expected) == set(found)
        for name, value in expected.items():
            assert found[name] == (
                pytest.approx(value) if name in ("power_w", "power_limit_w") and value is not None else value
            ), name
        refused = {**drawn[index]["functions"], **drawn[index]["fields"]}
        if all(code in (0, NVML_ERROR_NOT_SUPPORTED, 13) for code in refused.values()):
            assert reading.error is None


def test_every_value_is_nvidias(nvml: MockNvml, pynvml: ModuleType, collect: Collect) -> None:
    for index in range(GPUS, 8):
        nvml[index].present = 0
    collector = collect()
    check(nvml, pynvml, collector)


# An older driver lacks functions altogether; nvidia-ml-py then says that they are not found.
OLD = (
    ["MarginTemperature", "TemperatureV", "GpuFabricInfoV", "MemoryInfo_v2"],
    ["FieldValues", "RemappedRows", "GpuFabricInfoV", "GpuFabricInfo"],
    ["Temperature", "EnforcedPowerLimit", "NvLinkState", "NvLinkErrorCounter"],
    ["PcieReplayCounter"],
)


@pytest.mark.parametrize("without", OLD)
def test_functions_that_a_driver_lacks(tmp_path: Any, without: list[str]) -> None:
    module = pytest.importorskip("pynvml")
    nvml = MockNvml(tmp_path / "old", gpus=1, without=[f"nvmlDeviceGet{name}" for name in without])
    nvml[0].pcie_replays = 4
    nvml[0].link_crc = [3] * 18
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "nvmlLib", ctypes.CDLL(str(nvml.library)))
        patched.setattr(module, "_nvmlGetFunctionPointer_cache", {})
        module.nvmlInit()
        expected = read(module, 0)
        module.nvmlShutdown()
    if "PcieReplayCounter" in without:
        expected["pcie_replays"] = 4  # from the field that says the same
    with Collector(library=nvml.library, kernel_log=None, period_s=0) as collector:
        reading = collector.sample()[0]
    assert shown(reading) == expected
    assert reading.error is None


def test_the_functions_of_the_first_versions(tmp_path: Any) -> None:
    newer = [
        "nvmlInitWithFlags",
        "nvmlInit_v2",
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetPciInfo_v2",
        "nvmlEventSetWait_v2",
        "nvmlDeviceGetCurrentClocksEventReasons",
    ]
    nvml = MockNvml(tmp_path / "old", gpus=2, without=newer)
    nvml.pci_bus_id = 0
    nvml[1].reasons = 0x48
    with Collector(library=nvml.library, kernel_log=None, period_s=0) as collector:
        reading = collector.sample()[1]
        assert (reading.pci_bus_id, reading.throttle_reasons) == ("00000000:20:00.0", 0x48)
        nvml.xid(1, 31)
        assert [event.code for event in collector.events(timeout_s=30)] == [31]


def test_remapped_rows_from_fields(tmp_path: Any) -> None:
    nvml = MockNvml(tmp_path / "other", gpus=1, without=["nvmlDeviceGetRemappedRows"])
    nvml[0].rows_corrected, nvml[0].rows_uncorrected, nvml[0].rows_pending, nvml[0].rows_failed = 5, 6, 1, 0
    with Collector(library=nvml.library, kernel_log=None, period_s=0) as collector:
        reading = collector.sample()[0]
    assert (reading.remapped_rows_corrected, reading.remapped_rows_uncorrected) == (5, 6)
    assert (reading.remap_pending, reading.remap_failed) == (True, False)


@pytest.mark.parametrize(
    ("member", "garbage", "field"),
    [
        ("utilization", 4294967295, "utilisation_percent"),
        ("temperature", 100000, "temperature_c"),
        ("margin", -100000, "temperature_margin_c"),
        ("power_mw", 4294967295, "power_w"),
        ("enforced_limit_mw", 4294967295, "power_limit_w"),
        ("sm_clock", 4294967295, "sm_clock_mhz"),
        ("memory_clock", 4294967295, "memory_clock_mhz"),
        ("reasons", (1 << 64) - 1, "throttle_reasons"),
        ("ecc_corrected", (1 << 64) - 1, "ecc_corrected"),
        ("rows_corrected", 4294967295, "remapped_rows_corrected"),
        ("pcie_replays", 4294967295, "pcie_replays"),
        ("pcie_width", 65535, "pcie_width"),
        ("pcie_generation", 255, "pcie_generation"),
        ("links", 4294967295, "nvlink_links"),
        ("memory_temperature", 4294967295, "memory_temperature_c"),
        ("recovery_action", 4294967295, "recovery_action"),
        ("fabric_state", 77, "fabric_state"),
        ("memory_used", 1 << 60, "memory_used_bytes"),
    ],
)
def test_nonsense_is_no_value(
    nvml: MockNvml, collect: Collect, member: str, garbage: int, field: str
) -> None:
    if member == "links":
        nvml[0].fail("nvmlDeviceGetNvLinkState", NVML_ERROR_NOT_SUPPORTED)
    setattr(nvml[0], member, garbage)
    reading = collect().sample()[0]
    assert getattr(reading, field) is None
    assert reading.error is not None
    assert "makes no sense" in reading.error or "make no sense" in reading.error


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300])
def test_fields_of_other_types(nvml: MockNvml, collect: Collect, value: float) -> None:
    collector = collect()
    for value_type, expected in (
        (1, 41),
        (2, 41),
        (3, 41),
        (4, 41),
        (5, 41),
        (6, 41),
        (0, None),
        (7, None),
        (2147483647, None),
    ):
        nvml[0].field_double = value
        nvml[0].type_field("MEMORY_TEMP", value_type)
        reading = collector.sample()[0]
        assert reading.memory_temperature_c == expected
        assert (reading.error is None) == (expected is not None)
    nvml[0].field_double = 41.5
    nvml[0].type_field("MEMORY_TEMP", 0)
    assert collector.sample()[0].memory_temperature_c == 41.5


@pytest.mark.parametrize("name", [b"\xff" * 96, b"A" * 96, b"\x01\n\x1b[31m", b""])
def test_names_are_printable(nvml: MockNvml, collect: Collect, name: bytes) -> None:
    nvml[0].name = name
    nvml[0].uuid = name
    reading = collect().sample()[0]
    for text in (reading.name or "", reading.gpu):
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 96
