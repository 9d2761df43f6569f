"""Faults that a driver shows, injected into a mock of its library: each is found, with the right action.

The whole way is real: the library is loaded as the driver's would be, the collector reads it, the engine judges.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fakes.nvml.mock import NVML_ERROR_GPU_IS_LOST, NVML_ERROR_UNKNOWN, MockNvml
from textnlp_fast.gpu.health.collector import Collector
from textnlp_fast.gpu.health.engine import Fact, HealthEngine
from textnlp_fast.gpu.health.facts import Action, Event, Finding, Severity

Inject = Callable[[MockNvml], object]


@dataclass
class Fault:
    """What is done to GPU 3 of eight, and what has to be found."""

    name: str
    inject: Inject
    rule: str
    action: Action
    severity: Severity = Severity.CRITICAL
    hold_s: float = 0.0
    each_poll: Inject = field(default=lambda nvml: None)


def gpu(**fields: Any) -> Inject:
    def inject(nvml: MockNvml) -> None:
        for name, value in fields.items():
            setattr(nvml[3], name, value)

    return inject


def links(down: int) -> Inject:
    def inject(nvml: MockNvml) -> None:
        nvml[3].link_active = [0] * down + [1] * (18 - down)

    return inject


def grow(name: str, by: int) -> Inject:
    def inject(nvml: MockNvml) -> None:
        if name.startswith("link"):
            before = list(getattr(nvml[3], name))
            setattr(nvml[3], name, [before[0] + by, *before[1:]])
        else:
            setattr(nvml[3], name, getattr(nvml[3], name) + by)

    return inject


def failing(code: int) -> Inject:
    def inject(nvml: MockNvml) -> None:
        for name in ("nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetUtilizationRates",
                     "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"):  # fmt: skip
            if name in nvml._functions:
                nvml[3].fail(name, code)

    return inject


def quiet(nvml: MockNvml) -> None:
    """Nothing at once: it is what comes with each poll."""


W, C = Severity.WARNING, Severity.CRITICAL
BUSY = {"utilization": 95}
POLLED = [
    Fault("a GPU falls off the bus", gpu(lost=1), "gpu-lost", Action.REBOOT),
    Fault("an uncorrectable error", gpu(ecc_uncorrected=1), "ecc-uncorrected", Action.RESET_GPU),
    Fault("many uncorrectable errors", gpu(ecc_uncorrected=12), "ecc-uncorrected", Action.RESET_GPU),
    Fault("a row waits to be remapped", gpu(rows_pending=1), "remap-pending", Action.RESET_GPU, W),
    Fault("a row cannot be remapped", gpu(rows_failed=1), "remap-failed", Action.REPLACE),
    Fault("one NVLink is down", links(1), "nvlink-down", Action.RESET_GPU),
    Fault("all NVLinks are down", links(18), "nvlink-down", Action.RESET_GPU),
    Fault("the driver asks for a reset", gpu(recovery_action=1), "recovery-action", Action.RESET_GPU),
    Fault("the driver asks for a reboot", gpu(recovery_action=2), "recovery-action", Action.REBOOT),
    Fault("the driver asks to drain peers", gpu(recovery_action=3), "recovery-action", Action.DRAIN),
    Fault("the driver asks to drain and reset", gpu(recovery_action=4), "recovery-action", Action.DRAIN),
    Fault("little margin", gpu(margin=2, temperature=85), "temperature-margin", Action.NONE, W, 20.0),
    Fault("no margin", gpu(margin=0, temperature=89), "temperature-margin", Action.DRAIN, C, 20.0),
    Fault("hot memory", gpu(memory_temperature=101), "memory-temperature", Action.NONE, W, 60.0),
    Fault("very hot memory", gpu(memory_temperature=106), "memory-temperature", Action.DRAIN, C, 60.0),
    Fault("hardware slowdown by heat", gpu(reasons=0x48), "hw-thermal-slowdown", Action.DRAIN, C, 10.0),
    Fault("power brake", gpu(reasons=0x88), "hw-power-brake", Action.DRAIN, C, 10.0),
    Fault("hardware slowdown", gpu(reasons=0x8), "hw-slowdown", Action.CONTACT_VENDOR, W, 60.0),
    Fault("software slowdown by heat", gpu(reasons=0x20), "sw-thermal-slowdown", Action.NONE, W, 120.0),
    Fault("sync boost", gpu(reasons=0x10), "sync-boost", Action.NONE, Severity.INFO, 300.0),
    Fault("half the lanes", gpu(pcie_width=8, **BUSY), "pcie-width", Action.CONTACT_VENDOR, W, 30.0),
    Fault("a slow link", gpu(pcie_generation=3, **BUSY), "pcie-generation", Action.CONTACT_VENDOR, W, 30.0),
    Fault("replays on PCIe", quiet, "pcie-replays", Action.CONTACT_VENDOR, W, 0.0, grow("pcie_replays", 5)),
    Fault("CRC errors on NVLink", quiet, "nvlink-errors", Action.RESET_GPU, W, 0.0, grow("link_crc", 4000)),
    Fault("corrected errors", quiet, "ecc-corrected-rate", Action.NONE, W, 0.0, grow("ecc_corrected", 400)),
    Fault("the driver answers with errors", failing(NVML_ERROR_UNKNOWN), "driver-error", Action.RESET_GPU, W, 30.0),
    Fault("the driver says lost", failing(NVML_ERROR_GPU_IS_LOST), "gpu-lost", Action.REBOOT),
]  # fmt: skip
XIDS = [
    (8, W, Action.RESTART_APP), (13, W, Action.RESTART_APP), (31, W, Action.RESTART_APP), (32, W, Action.RESTART_APP),
    (43, Severity.INFO, Action.NONE), (45, Severity.INFO, Action.NONE), (46, C, Action.RESET_GPU),
    (48, C, Action.RESET_GPU), (54, C, Action.CONTACT_VENDOR), (62, C, Action.RESET_GPU),
    (63, Severity.INFO, Action.NONE),
    (64, C, Action.RESET_GPU), (69, W, Action.RESTART_APP), (74, C, Action.RESET_GPU), (79, C, Action.REBOOT),
    (92, Severity.INFO, Action.NONE), (94, W, Action.RESTART_APP), (95, C, Action.RESET_GPU),
    (109, C, Action.RESET_GPU), (119, C, Action.RESET_GPU),
    (120, C, Action.RESET_GPU), (140, C, Action.RESET_GPU), (143, C, Action.RESET_GPU),
    (149, C, Action.RESET_GPU), (158, C, Action.RESET_GPU), (167, C, Action.REBOOT), (999, W, Action.CONTACT_VENDOR),
]  # fmt: skip


def uuid(nvml: MockNvml, index: int = 3) -> str:
    found: bytes = nvml[index].uuid
    return found.decode()


class Watch:
    """Polls the mock as often as a monitor would, on a clock that runs as fast as the test wants."""

    def __init__(self, nvml: MockNvml, collector: Collector) -> None:
        self.nvml = nvml
        self.collector = collector
        self.engine = HealthEngine()
        self.now_s = time.time()

    def poll(self, step_s: float = 5.0) -> list[Finding]:
        self.now_s += step_s
        facts: list[Fact] = [*self.collector.events()]
        facts += [replace(one, at_s=self.now_s) for one in self.collector.sample()]
        return self.engine.observe(facts, now_s=self.now_s)


@pytest.fixture
def watch(nvml: MockNvml, collect: Callable[..., Collector]) -> Watch:
    watch = Watch(nvml, collect(reinit_s=3600.0))
    for _ in range(3):
        assert watch.poll() == []
    return watch


def test_there_are_enough_faults() -> None:
    assert len(POLLED) + len(XIDS) >= 50


@pytest.mark.parametrize("fault", POLLED, ids=lambda fault: fault.name)
def test_a_polled_fault_is_found_at_the_next_poll(fault: Fault, watch: Watch) -> None:
    fault.inject(watch.nvml)
    begun_s = watch.now_s
    told: list[Finding] = []
    while not told:
        fault.each_poll(watch.nvml)
        told = watch.poll()
        # At the first poll, or the first after the time that the rule asks for. Rates take a few polls to be one.
        late_s = watch.now_s - begun_s - fault.hold_s
        assert late_s <= (15.0 if fault.rule.endswith(("replays", "errors", "rate")) else 10.0), "not found"
    (found,) = told
    assert (found.rule, found.gpu, found.severity, found.action) == (
        fault.rule,
        uuid(watch.nvml),
        fault.severity,
        fault.action,
    )
    assert found.provenance and found.evidence


@pytest.mark.parametrize(("code", "severity", "action"), XIDS)
def test_an_xid_of_the_driver_is_found(
    code: int, severity: Severity, action: Action, nvml: MockNvml, collect: Callable[..., Collector]
) -> None:
    collector = collect(period_s=0.2)
    collector.sample()
    engine = HealthEngine()
    engine.observe([*collector.events(timeout_s=0.2)], now_s=time.time())
    before_s = time.time()
    nvml.xid(3, code)
    events: list[Event] = []
    deadline = time.monotonic() + 30
    while not any(one.kind == "xid" for one in events) and time.monotonic() < deadline:
        events += collector.events(timeout_s=1.0)
    (found,) = [one for one in engine.observe(events, now_s=time.time()) if one.rule == f"xid-{code}"]
    assert (found.gpu, found.severity, found.action) == (uuid(nvml), severity, action)
    # By the collector's own clock; the strict figure is the bench's, on a machine that is idle.
    assert -0.01 <= found.first_at_s - before_s < 2.0


def test_what_was_mended_is_over(watch: Watch) -> None:
    watch.nvml[3].rows_pending = 1
    links(3)(watch.nvml)
    assert {one.rule for one in watch.poll()} == {"remap-pending", "nvlink-down"}
    watch.nvml[3].rows_pending = 0
    links(0)(watch.nvml)
    told = watch.poll()
    assert {one.rule for one in told} == {"remap-pending", "nvlink-down"} and all(
        one.resolved for one in told
    )
    assert watch.engine.findings() == []


def test_a_lost_gpu_its_xid_and_the_count_are_one_finding(
    nvml: MockNvml, collect: Callable[..., Collector]
) -> None:
    collector = collect(period_s=0.2, reinit_s=3600.0)
    collector.sample()
    engine = HealthEngine()
    engine.observe([*collector.events(timeout_s=0.2), *collector.readings()], now_s=time.time())
    nvml.xid(3, 79)
    nvml[3].lost = 1
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        engine.observe([*collector.events(timeout_s=0.2), *collector.sample()], now_s=time.time())
        findings = engine.findings()
        if findings and "lost" in findings[0].evidence:
            break
    (finding,) = engine.findings()
    assert (finding.gpu, finding.action) == (uuid(nvml), Action.REBOOT)


def test_a_driver_that_hangs_is_found_and_is_over_when_it_answers(
    nvml: MockNvml, collect: Callable[..., Collector]
) -> None:
    collector = collect(period_s=0.1, deadline_s=0.5)
    collector.sample()
    engine = HealthEngine()

    def until(wanted: set[str]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            engine.observe([*collector.events(timeout_s=0.2)], now_s=time.time())
            if {one.rule for one in engine.findings()} == wanted:
                return
        pytest.fail(f"{engine.findings()} is not {wanted}")

    nvml[3].hang("nvmlDeviceGetTemperature")
    nvml[3].hang("nvmlDeviceGetUtilizationRates")
    until({"driver-hung"})
    (finding,) = engine.findings()
    assert (finding.severity, finding.action) == (Severity.CRITICAL, Action.REBOOT)
    nvml[3].answer("nvmlDeviceGetTemperature")
    nvml[3].answer("nvmlDeviceGetUtilizationRates")
    until(set())
