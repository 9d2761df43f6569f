"""Signals: one number a rule looks at, out of one reading. None: the reading does not say.

Names ending in `_growth` are counters: the engine takes how much they grew within the rule's window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from textnlp_fast.gpu.health.facts import Reading

__all__ = ["SIGNALS", "VOLATILE_COUNTERS"]

# NVML's nvmlClocksEventReasons. Idle (1), application clocks (2), software power cap (4) and display clocks (0x100) are
# how a healthy GPU runs: no rule looks at them.
_HW_SLOWDOWN: Final = 0x8
_SYNC_BOOST: Final = 0x10
_SW_THERMAL: Final = 0x20
_HW_THERMAL: Final = 0x40
_HW_POWER_BRAKE: Final = 0x80

#: Counters that begin at zero when the driver is loaded or the GPU is reset.
VOLATILE_COUNTERS: Final = ("ecc_corrected", "ecc_uncorrected", "nvlink_errors", "pcie_replays")


def _flag(value: bool | None) -> float | None:
    return None if value is None else float(value)


def _bit(bits: int) -> Callable[[Reading], float | None]:
    def read(reading: Reading) -> float | None:
        return None if reading.throttle_reasons is None else float(bool(reading.throttle_reasons & bits))

    return read


def _hw_otherwise(reading: Reading) -> float | None:
    reasons = reading.throttle_reasons
    if reasons is None:
        return None
    return float(bool(reasons & _HW_SLOWDOWN) and not reasons & (_HW_THERMAL | _HW_POWER_BRAKE))


def _missing(most: int | None, now: int | None) -> float | None:
    return None if most is None or now is None else float(max(0, most - now))


def _fabric(reading: Reading) -> float | None:
    if reading.fabric_state is None:
        return None
    state = reading.fabric_state.lower().replace("_", "-")
    return float(state in ("not-started", "in-progress", "failed", "unhealthy"))


def _number(value: float | None) -> float | None:
    # A NaN compares to nothing and would neither open nor close a finding.
    return None if value is None or math.isnan(value) else float(value)


SIGNALS: Final[Mapping[str, Callable[[Reading], float | None]]] = {
    "lost": lambda reading: float(reading.lost),
    "ecc_uncorrected": lambda reading: _number(reading.ecc_uncorrected),
    "ecc_corrected_growth": lambda reading: _number(reading.ecc_corrected),
    "remap_pending": lambda reading: _flag(reading.remap_pending),
    "remap_failed": lambda reading: _flag(reading.remap_failed),
    "retired_pages_pending": lambda reading: _flag(reading.retired_pages_pending),
    "recovery_action": lambda reading: _number(reading.recovery_action),
    "temperature_margin_c": lambda reading: _number(reading.temperature_margin_c),
    "temperature_without_margin_c": lambda reading: (
        _number(reading.temperature_c) if reading.temperature_margin_c is None else None
    ),
    "memory_temperature_c": lambda reading: _number(reading.memory_temperature_c),
    "throttled_hw_thermal": _bit(_HW_THERMAL),
    "throttled_power_brake": _bit(_HW_POWER_BRAKE),
    "throttled_hw_otherwise": _hw_otherwise,
    "throttled_sw_thermal": _bit(_SW_THERMAL),
    "throttled_sync_boost": _bit(_SYNC_BOOST),
    "nvlink_links_down": lambda reading: _missing(reading.nvlink_links, reading.nvlink_links_up),
    "nvlink_errors_growth": lambda reading: _number(reading.nvlink_errors),
    "pcie_replays_growth": lambda reading: _number(reading.pcie_replays),
    "pcie_width_missing": lambda reading: _missing(reading.pcie_width_max, reading.pcie_width),
    "pcie_generation_missing": lambda reading: _missing(reading.pcie_generation_max, reading.pcie_generation),
    "fabric_not_ready": _fabric,
    "driver_error": lambda reading: float(reading.error is not None and not reading.lost),
}
