"""A machine's GPUs as dcgm-exporter tells of them at `/metrics`.

Fields and labels: github.com/NVIDIA/dcgm-exporter, etc/default-counters.csv and its templates (`gpu`, `UUID`,
`pci_bus_id`, `device`, `modelName`, `Hostname`); values that DCGM does not have are left out, or are its "blank"
numbers.

**XIDs**: `DCGM_FI_DEV_XID_ERRORS` is a gauge, the number of the last XID; 0: none. It stays until another comes. So a
change of it is an XID, at the moment of the scrape; the same XID twice in a row is not seen, and neither are all but
the last of several between two scrapes. Where the exporter counts XIDs (`DCGM_EXP_XID_ERRORS_COUNT`, label `xid`)
those are found too.

**Values that make no sense** (a GPU of -40 degrees, XID -1), and a GPU of which no value says anything, are
an event `telemetry-unusable`, until that is mended: silence is no health.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from textnlp_fast.errors import ProviderUnavailableError
from textnlp_fast.gpu.health.engine import Fact
from textnlp_fast.gpu.health.facts import Event, Reading
from textnlp_fast.gpu.health.http import checked_url, request
from textnlp_fast.gpu.health.prometheus_text import Sample, samples

__all__ = ["DcgmSource", "DcgmXids", "facts_of"]

_MIB: Final = 1 << 20
_MOST_GPUS: Final = 256
#: DCGM's blank values begin here (dcgm_structs.h: DCGM_INT32_BLANK, DCGM_INT64_BLANK, DCGM_FP64_BLANK).
_BLANK_INT32: Final = range(0x7FFFFFF0, 0x80000000)
_BLANK: Final = 140737488355328.0

# Field -> where it goes, and how.
_WHOLE: Final[Mapping[str, str]] = {
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": "throttle_reasons",
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": "throttle_reasons",
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": "ecc_corrected",
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": "ecc_uncorrected",
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": "remapped_rows_corrected",
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": "remapped_rows_uncorrected",
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": "pcie_replays",
    "DCGM_FI_DEV_PCIE_LINK_WIDTH": "pcie_width",
    "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH": "pcie_width_max",
    "DCGM_FI_DEV_PCIE_LINK_GEN": "pcie_generation",
    "DCGM_FI_DEV_PCIE_MAX_LINK_GEN": "pcie_generation_max",
}
_FLAG: Final[Mapping[str, str]] = {
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": "remap_failed",
    "DCGM_FI_DEV_ROW_REMAP_PENDING": "remap_pending",
    "DCGM_FI_DEV_RETIRED_PENDING": "retired_pages_pending",
}
_NUMBER: Final[Mapping[str, str]] = {
    "DCGM_FI_DEV_GPU_UTIL": "utilisation_percent",
    "DCGM_FI_DEV_GPU_TEMP": "temperature_c",
    "DCGM_FI_DEV_GPU_TEMP_LIMIT": "temperature_margin_c",
    "DCGM_FI_DEV_MEMORY_TEMP": "memory_temperature_c",
    "DCGM_FI_DEV_POWER_USAGE": "power_w",
    "DCGM_FI_DEV_POWER_MGMT_LIMIT": "power_limit_w",
    "DCGM_FI_DEV_SM_CLOCK": "sm_clock_mhz",
    "DCGM_FI_DEV_MEM_CLOCK": "memory_clock_mhz",
}
#: What no GPU can have; counts, flags and XIDs are not below 0.
_SENSE: Final[Mapping[str, tuple[float, float]]] = {
    "utilisation_percent": (0, 100),
    "temperature_c": (-30, 200),
    "temperature_margin_c": (-200, 200),
    "memory_temperature_c": (-30, 200),
    "power_w": (0, 100_000),
    "power_limit_w": (0, 100_000),
    "sm_clock_mhz": (0, 100_000),
    "memory_clock_mhz": (0, 100_000),
}
_MOST_SENSELESS: Final = 4
_NVLINK_ERRORS: Final = tuple(
    f"DCGM_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL" for kind in ("CRC_FLIT", "CRC_DATA", "REPLAY", "RECOVERY")
)


class DcgmXids:
    """What was last told of XIDs, so that each is told once. Its document goes with the monitor's state."""

    def __init__(self, document: Mapping[str, Any] | None = None) -> None:
        document = document or {}
        self.last: dict[str, int] = {str(k): int(v) for k, v in dict(document.get("last", {})).items()}
        self.counts: dict[str, float] = {
            str(k): float(v) for k, v in dict(document.get("counts", {})).items()
        }
        self.gpus: int | None = document.get("gpus")
        """How many there should be: the most that were seen."""
        self.seen: int | None = document.get("seen")
        self.unusable: set[str] = {str(name) for name in document.get("unusable", ())}
        """GPUs of which nothing usable was told the last time."""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "last": self.last,
            "counts": self.counts,
            "gpus": self.gpus,
            "seen": self.seen,
            "unusable": sorted(self.unusable),
        }


class DcgmSource:
    """Scrapes one dcgm-exporter."""

    reads_gpus = True

    def __init__(
        self,
        machine: str,
        url: str,
        *,
        interval_s: float = 15.0,
        timeout_s: float = 10.0,
        headers: Mapping[str, str] | None = None,
        xids: DcgmXids | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        parts = checked_url(url)
        self.url = url if parts.path not in ("", "/") else f"{url.rstrip('/')}/metrics"
        self.name = f"dcgm {self.url}"
        self.machines: tuple[str, ...] = (machine,)
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self.xids = xids or DcgmXids()
        self._headers = dict(headers or {})
        self._clock = clock

    async def read(self) -> Sequence[Fact]:
        answer = await request("GET", self.url, headers=self._headers, timeout_s=self.timeout_s)
        if answer.status != 200:
            raise ProviderUnavailableError(f"{self.url} answered {answer.status}")
        text = answer.body.decode("utf-8", "replace")
        return facts_of(text, machine=self.machines[0], at_s=self._clock(), xids=self.xids)

    async def close(self) -> None:
        """Nothing is held."""


def facts_of(text: str, *, machine: str, at_s: float, xids: DcgmXids) -> list[Fact]:
    """Readings and events in what an exporter answered. `xids` is what was told before, and is brought up to date.

    Raises CorruptDataError for what is not of the format, ProviderUnavailableError where no GPU is in it.
    """
    gpus: dict[str, dict[str, Any]] = {}
    for sample in samples(text):
        if not sample.name.startswith(("DCGM_FI_", "DCGM_EXP_")):
            continue
        name = sample.labels.get("UUID") or sample.labels.get("uuid")
        if not name or sample.labels.get("GPU_I_ID"):  # a MIG slice: its GPU tells too
            continue
        if name not in gpus and len(gpus) >= _MOST_GPUS:
            continue
        gpu = gpus.setdefault(name, {"index": len(gpus), "xid_counts": {}, "fields": {}, "senseless": []})
        _take(gpu, sample)
    if not gpus:
        raise ProviderUnavailableError(
            "no GPU is in what was scraped", hint="Is it a dcgm-exporter, and does it see GPUs?"
        )
    facts: list[Fact] = []
    for name, gpu in gpus.items():
        fields = gpu["fields"]
        used, free = gpu.get("used"), gpu.get("free")
        if used is not None:
            fields["memory_used_bytes"] = used
            fields["memory_total_bytes"] = used + free if free is not None else None
        facts.append(Reading(machine=machine, gpu=name, index=gpu["index"], at_s=at_s, **fields))
        facts += _xids(machine, name, gpu, at_s, xids)
        facts += _unusable(machine, name, gpu, at_s, xids)
    xids.unusable &= gpus.keys()
    if xids.seen is not None and xids.seen != len(gpus):
        facts.append(
            Event(
                machine=machine,
                kind="gpu-count",
                at_s=at_s,
                code=len(gpus),
                source="dcgm",
                details={"before": str(xids.gpus)},
            )
        )
    xids.gpus, xids.seen = max(xids.gpus or 0, len(gpus)), len(gpus)
    while len(xids.last) > 4 * _MOST_GPUS:
        xids.last.pop(next(iter(xids.last)))
    while len(xids.counts) > 16 * _MOST_GPUS:
        xids.counts.pop(next(iter(xids.counts)))
    return facts


def _take(gpu: dict[str, Any], sample: Sample) -> None:
    labels, value, fields = sample.labels, sample.value, gpu["fields"]
    index = labels.get("gpu", "")
    if index.isdecimal() and len(index) < 4:
        gpu["index"] = int(index)
    fields.setdefault("name", labels.get("modelName"))
    fields.setdefault("pci_bus_id", labels.get("pci_bus_id"))
    if sample.name == "DCGM_EXP_XID_ERRORS_COUNT":
        code = labels.get("xid", "")
        if code.isdecimal() and len(code) < 6 and 0 <= value < _BLANK:
            gpu["xid_counts"][int(code)] = gpu["xid_counts"].get(int(code), 0.0) + value
        return
    if not abs(value) < _BLANK or int(value) in _BLANK_INT32:  # NaN, too
        return
    if not _makes_sense(sample.name, value):
        gpu["senseless"].append(f"{sample.name} is {value:g}")
    elif sample.name in _NUMBER:
        fields[_NUMBER[sample.name]] = value
    elif sample.name in _WHOLE:
        fields[_WHOLE[sample.name]] = int(value)
    elif sample.name in _FLAG:
        fields[_FLAG[sample.name]] = value > 0
    elif sample.name in _NVLINK_ERRORS:
        fields["nvlink_errors"] = (fields.get("nvlink_errors") or 0) + int(value)
    elif sample.name == "DCGM_FI_DEV_FB_USED":
        gpu["used"] = int(value) * _MIB
    elif sample.name == "DCGM_FI_DEV_FB_FREE":
        gpu["free"] = int(value) * _MIB
    elif sample.name == "DCGM_FI_DEV_XID_ERRORS":
        gpu["xid"] = int(value)


def _makes_sense(name: str, value: float) -> bool:
    if name in _NUMBER:
        least, most = _SENSE[_NUMBER[name]]
        return least <= value <= most
    counted = name in _WHOLE or name in _FLAG or name in _NVLINK_ERRORS
    return value >= 0 or not (counted or name.startswith(("DCGM_FI_DEV_FB_", "DCGM_FI_DEV_XID_")))


def _unusable(machine: str, name: str, gpu: dict[str, Any], at_s: float, xids: DcgmXids) -> list[Event]:
    """Says once that a GPU's values are not to be used, and once that they are again."""
    senseless = gpu["senseless"]
    told = [value for field, value in gpu["fields"].items() if field not in ("name", "pci_bus_id")]
    text = ", ".join(senseless[:_MOST_SENSELESS])
    if (
        not senseless
        and "xid" not in gpu
        and not gpu["xid_counts"]
        and not any(one is not None for one in told)
    ):
        text = "the exporter has no usable value of it"
    if not text and name not in xids.unusable:
        return []
    (xids.unusable.add if text else xids.unusable.discard)(name)
    return [
        Event(
            machine=machine,
            kind="telemetry-unusable",
            at_s=at_s,
            gpu=name,
            text=text,
            source="dcgm",
            # With an `id`, what is told again and again with other numbers is one finding that was found once.
            details={"id": "values"} if text else {"over": "true"},
        )
    ]


def _xids(machine: str, name: str, gpu: dict[str, Any], at_s: float, xids: DcgmXids) -> list[Event]:
    def event(code: int, text: str) -> Event:
        return Event(machine=machine, kind="xid", at_s=at_s, gpu=name, code=code, text=text, source="dcgm")

    events: dict[int, Event] = {}
    for code, count in gpu["xid_counts"].items():
        key = f"{name} {code}"
        before = xids.counts.get(key)
        xids.counts[key] = count
        # It counts within a window and may fall; a first look tells of what happened shortly before.
        if count > (before or 0.0):
            events[code] = event(code, f"{count:g} within the exporter's window")
    code = gpu.get("xid")
    if code is not None:
        known = name in xids.last
        before_code = xids.last.get(name, 0)
        xids.last[name] = code
        if code > 0 and code != before_code and code not in events:
            events[code] = event(code, "" if known else "the last one before the first scrape")
    return list(events.values())
