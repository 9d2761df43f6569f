"""Readings as Prometheus text: under names of our own, and under those of NVIDIA's dcgm-exporter for its dashboards.

Fields, units and labels of the latter: github.com/NVIDIA/dcgm-exporter, etc/default-counters.csv, and the field list of
DCGM (dcgm_fields.h). What a GPU does not tell is left out, as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from textnlp_fast.gpu.health.facts import Reading

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Value = Callable[[Reading], float | None]
_MIB: Final = 1 << 20
#: dcgmFabricManagerStatus_t.
_FABRIC: Final = {
    "not-started": 1,
    "in-progress": 2,
    "completed": 3,
    "failed": 4,
    "unhealthy": 3,
    "limited-capacity": 3,
}


def _field(name: str) -> _Value:
    def value(reading: Reading) -> float | None:
        found = getattr(reading, name)
        return None if found is None else float(found)

    return value


def _free(reading: Reading) -> float | None:
    if reading.memory_total_bytes is None or reading.memory_used_bytes is None:
        return None
    return (reading.memory_total_bytes - reading.memory_used_bytes) / _MIB


def _used(reading: Reading) -> float | None:
    return None if reading.memory_used_bytes is None else reading.memory_used_bytes / _MIB


def _fabric(reading: Reading) -> float | None:
    return None if reading.fabric_state is None else float(_FABRIC.get(reading.fabric_state, 5))


# Name, type, help, value.
_OWN: Final[Sequence[tuple[str, str, str, _Value]]] = (
    ("up", "gauge", "1 if the driver answers for this GPU", lambda r: float(r.error is None and not r.lost)),
    ("lost", "gauge", "1 if the GPU fell off the bus or is gone", lambda r: float(r.lost)),
    ("utilisation_percent", "gauge", "Time in which a kernel ran", _field("utilisation_percent")),
    ("memory_used_bytes", "gauge", "Memory in use", _field("memory_used_bytes")),
    ("memory_total_bytes", "gauge", "Memory there is", _field("memory_total_bytes")),
    ("temperature_celsius", "gauge", "Temperature of the GPU", _field("temperature_c")),
    (
        "temperature_margin_celsius",
        "gauge",
        "Degrees left before it is slowed down",
        _field("temperature_margin_c"),
    ),
    ("memory_temperature_celsius", "gauge", "Temperature of the memory", _field("memory_temperature_c")),
    ("power_watts", "gauge", "Power drawn", _field("power_w")),
    ("power_limit_watts", "gauge", "Power that it may draw", _field("power_limit_w")),
    ("sm_clock_megahertz", "gauge", "Clock of the multiprocessors", _field("sm_clock_mhz")),
    ("memory_clock_megahertz", "gauge", "Clock of the memory", _field("memory_clock_mhz")),
    ("throttle_reasons", "gauge", "Why clocks are low: bits of NVML", _field("throttle_reasons")),
    (
        "ecc_corrected_total",
        "counter",
        "ECC errors corrected since the driver was loaded",
        _field("ecc_corrected"),
    ),
    ("ecc_uncorrected_total", "counter", "ECC errors that could not be corrected", _field("ecc_uncorrected")),
    (
        "remapped_rows_corrected_total",
        "counter",
        "Rows replaced after corrected errors",
        _field("remapped_rows_corrected"),
    ),
    (
        "remapped_rows_uncorrected_total",
        "counter",
        "Rows replaced after uncorrected ones",
        _field("remapped_rows_uncorrected"),
    ),
    ("remap_pending", "gauge", "1 if rows are replaced at the next reset", _field("remap_pending")),
    ("remap_failed", "gauge", "1 if a row could not be replaced", _field("remap_failed")),
    (
        "retired_pages_pending",
        "gauge",
        "1 if pages are retired at the next reboot",
        _field("retired_pages_pending"),
    ),
    ("nvlink_links", "gauge", "NVLinks there are", _field("nvlink_links")),
    ("nvlink_links_up", "gauge", "NVLinks that are up", _field("nvlink_links_up")),
    (
        "nvlink_errors_total",
        "counter",
        "CRC, replay and recovery errors of all links",
        _field("nvlink_errors"),
    ),
    ("pcie_replays_total", "counter", "PCIe packets sent again", _field("pcie_replays")),
    ("pcie_width", "gauge", "PCIe lanes in use", _field("pcie_width")),
    ("pcie_width_max", "gauge", "PCIe lanes there are", _field("pcie_width_max")),
    ("pcie_generation", "gauge", "PCIe generation in use", _field("pcie_generation")),
    ("pcie_generation_max", "gauge", "PCIe generation that it could use", _field("pcie_generation_max")),
    (
        "recovery_action",
        "gauge",
        "What the driver asks for: nvmlDeviceGpuRecoveryAction_t",
        _field("recovery_action"),
    ),
)

_DCGM: Final[Sequence[tuple[str, str, str, _Value]]] = (
    ("SM_CLOCK", "gauge", "SM clock frequency (in MHz).", _field("sm_clock_mhz")),
    ("MEM_CLOCK", "gauge", "Memory clock frequency (in MHz).", _field("memory_clock_mhz")),
    ("MEMORY_TEMP", "gauge", "Memory temperature (in C).", _field("memory_temperature_c")),
    ("GPU_TEMP", "gauge", "GPU temperature (in C).", _field("temperature_c")),
    ("GPU_TEMP_LIMIT", "gauge", "Thermal margin (in C).", _field("temperature_margin_c")),
    ("POWER_USAGE", "gauge", "Power draw (in W).", _field("power_w")),
    ("POWER_MGMT_LIMIT", "gauge", "Power limit (in W).", _field("power_limit_w")),
    ("GPU_UTIL", "gauge", "GPU utilization (in %).", _field("utilisation_percent")),
    ("FB_FREE", "gauge", "Framebuffer memory free (in MiB).", _free),
    ("FB_USED", "gauge", "Framebuffer memory used (in MiB).", _used),
    ("CLOCK_THROTTLE_REASONS", "gauge", "Reasons for low clocks, as bits.", _field("throttle_reasons")),
    ("PCIE_REPLAY_COUNTER", "counter", "Total number of PCIe retries.", _field("pcie_replays")),
    ("PCIE_LINK_GEN", "gauge", "PCIe generation.", _field("pcie_generation")),
    ("PCIE_MAX_LINK_GEN", "gauge", "PCIe generation, at most.", _field("pcie_generation_max")),
    ("PCIE_LINK_WIDTH", "gauge", "PCIe lanes.", _field("pcie_width")),
    ("PCIE_MAX_LINK_WIDTH", "gauge", "PCIe lanes, at most.", _field("pcie_width_max")),
    ("ECC_SBE_VOL_TOTAL", "counter", "Single-bit volatile ECC errors.", _field("ecc_corrected")),
    ("ECC_DBE_VOL_TOTAL", "counter", "Double-bit volatile ECC errors.", _field("ecc_uncorrected")),
    (
        "CORRECTABLE_REMAPPED_ROWS",
        "counter",
        "Rows remapped for correctable errors.",
        _field("remapped_rows_corrected"),
    ),
    (
        "UNCORRECTABLE_REMAPPED_ROWS",
        "counter",
        "Rows remapped for uncorrectable errors.",
        _field("remapped_rows_uncorrected"),
    ),
    ("ROW_REMAP_FAILURE", "gauge", "Whether remapping of rows has failed.", _field("remap_failed")),
    ("ROW_REMAP_PENDING", "gauge", "Whether remapping of rows is pending.", _field("remap_pending")),
    ("RETIRED_PENDING", "gauge", "Pages pending retirement.", _field("retired_pages_pending")),
    ("FABRIC_MANAGER_STATUS", "gauge", "Status of the fabric manager.", _fabric),
)


def exposition(
    readings: Sequence[Reading],
    *,
    driver_version: str = "",
    ready: bool = True,
    hung: bool = False,
    rounds: int = 0,
    xids: Mapping[tuple[str, int], int] | None = None,
    last_xids: Mapping[str, int] | None = None,
    events: Mapping[str, int] | None = None,
) -> str:
    """A scrape. ``xids`` counts them by GPU and number, ``last_xids`` has the last of each GPU, ``events`` counts all
    events by kind.
    """
    lines: list[str] = []

    def family(name: str, kind: str, what: str, samples: Iterable[tuple[str, float]]) -> None:
        rows = [f"{name}{labels} {_number(value)}" for labels, value in samples]
        if rows:
            lines.extend((f"# HELP {name} {what}", f"# TYPE {name} {kind}", *rows))

    own = [(reading, _labels(_own_labels(reading))) for reading in readings]
    for name, kind, what, value in _OWN:
        family(f"textnlp_fast_gpu_{name}", kind, what, _samples(own, value))
    state = [
        (_labels({**_own_labels(reading), "state": reading.fabric_state}), 1.0)
        for reading in readings
        if reading.fabric_state is not None
    ]
    family(
        "textnlp_fast_gpu_fabric_state", "gauge", "1 for the state of the GPU in the NVSwitch fabric", state
    )
    family(
        "textnlp_fast_gpu_xids_total",
        "counter",
        "XIDs since the agent was started",
        ((_labels({"uuid": gpu, "xid": str(code)}), n) for (gpu, code), n in sorted((xids or {}).items())),
    )
    family(
        "textnlp_fast_gpu_events_total",
        "counter",
        "Events since the agent was started",
        ((_labels({"kind": kind}), n) for kind, n in sorted((events or {}).items())),
    )
    version = _labels({"driver_version": driver_version})
    family("textnlp_fast_gpu_driver_ready", "gauge", "1 if the driver can be read", [(version, float(ready))])
    family("textnlp_fast_gpu_driver_hung", "gauge", "1 if a call into the driver hangs", [("", float(hung))])
    family("textnlp_fast_gpu_rounds_total", "counter", "Times that the GPUs were read", [("", float(rounds))])

    dcgm = [(reading, _labels(_dcgm_labels(reading, driver_version))) for reading in readings]
    for name, kind, what, value in _DCGM:
        family(f"DCGM_FI_DEV_{name}", kind, what, _samples(dcgm, value))
    last = last_xids or {}
    family(
        "DCGM_FI_DEV_XID_ERRORS",
        "gauge",
        "Value of the last XID error encountered.",
        ((labels, float(last.get(reading.gpu, 0))) for reading, labels in dcgm),
    )
    return "\n".join(lines) + "\n"


def _samples(labelled: Iterable[tuple[Reading, str]], value: _Value) -> Iterable[tuple[str, float]]:
    for reading, labels in labelled:
        number = value(reading)
        if number is not None and math.isfinite(number):
            yield labels, number


def _own_labels(reading: Reading) -> dict[str, str]:
    return {
        "machine": reading.machine,
        "gpu": str(reading.index),
        "uuid": reading.gpu,
        "name": reading.name or "",
        "pci_bus_id": reading.pci_bus_id or "",
    }


def _dcgm_labels(reading: Reading, driver_version: str) -> dict[str, str]:
    return {
        "gpu": str(reading.index),
        "UUID": reading.gpu,
        "pci_bus_id": reading.pci_bus_id or "",
        "device": f"nvidia{reading.index}",
        "modelName": reading.name or "",
        "Hostname": reading.machine,
        "DCGM_FI_DRIVER_VERSION": driver_version,
    }


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1 << 53 else repr(float(value))
