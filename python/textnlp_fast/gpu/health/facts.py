"""What collectors hand to the rules: readings of a GPU at a moment, and events. Facts only; rules judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Action", "Event", "Finding", "Reading", "Severity"]


class Severity(str, Enum):
    """How bad it is for the work on that GPU."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    def __str__(self) -> str:
        return self.value


class Action(str, Enum):
    """What to do, the mildest first."""

    NONE = "none"
    CHECK = "check"
    """Look after the machine and what reads it: whether it is well is not known."""
    RESTART_APP = "restart-app"
    RESET_GPU = "reset-gpu"
    REBOOT = "reboot"
    DRAIN = "drain"
    REPLACE = "replace"
    CONTACT_VENDOR = "contact-vendor"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One GPU at one moment. None: the GPU, its driver or the collector does not say."""

    machine: str
    gpu: str
    """UUID (`GPU-...`), or `index:N` while none is known."""
    index: int
    at_s: float
    """Unix time."""
    name: str | None = None
    pci_bus_id: str | None = None
    utilisation_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_c: float | None = None
    temperature_margin_c: float | None = None
    """Degrees left before the driver slows the GPU down."""
    memory_temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle_reasons: int | None = None
    """NVML's bits (nvmlClocksEventReasons)."""
    ecc_corrected: int | None = None
    """Since the driver was loaded (volatile)."""
    ecc_uncorrected: int | None = None
    remapped_rows_corrected: int | None = None
    remapped_rows_uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retired_pages_pending: bool | None = None
    nvlink_links_up: int | None = None
    nvlink_links: int | None = None
    nvlink_errors: int | None = None
    """CRC, replay and recovery errors of all links since the driver was loaded."""
    pcie_replays: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    recovery_action: int | None = None
    """NVML's nvmlDeviceGpuRecoveryAction: 0 none, 1 reset, 2 reboot, 3 drain peer to peer, 4 drain and reset."""
    fabric_state: str | None = None
    """Of NVSwitch machines: `not-started`, `in-progress`, `completed`, `failed`, `unhealthy`, `limited-capacity`."""
    lost: bool = False
    """NVML says that the GPU is lost, or it is gone from the bus."""
    error: str | None = None
    """What the driver answered where it answered with an error; fields that failed are None."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened, with its moment: an XID, a spot notice, a change in the number of GPUs."""

    machine: str
    kind: str
    """`xid`, `sxid`, `gpu-count`, `driver-hung`, `driver-answers`, `driver-error`,
    `driver-loaded` (all that is volatile began anew),
    `spot-interruption`, `rebalance`, `maintenance`, `preempted`, `status-check`, `agent-unreachable`,
    `agent-reachable`, `telemetry-unusable`."""
    at_s: float
    gpu: str | None = None
    code: int | None = None
    """The XID's or SXID's number; for `gpu-count` how many are there, for `driver-error` NVML's code."""
    text: str = ""
    source: str = ""
    """`nvml`, `kmsg`, `dcgm`, `agent`, `aws`, `gcp`, `azure`."""
    details: Mapping[str, str] = field(default_factory=dict)
    """`over` is `true`: what the kind tells of has ended. `id`: which of several planned things it is. `check` of a
    `status-check`: `system`, `instance`, `ebs`, `state`, `missing`. `before` of a `gpu-count`: how many there were."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule makes of facts: one open problem of one GPU or machine."""

    machine: str
    gpu: str | None
    rule: str
    """The rule's identifier: `xid-79`, `temperature-margin`, `remap-failed`."""
    severity: Severity
    action: Action
    summary: str
    """One sentence: what is wrong and what to do."""
    evidence: str
    """The numbers behind it."""
    provenance: str
    """Where the rule comes from."""
    first_at_s: float
    last_at_s: float
    count: int = 1
    resolved: bool = False
