"""What the hour of the day and of the week usually brings: profiles of the log level, averaged over days and weeks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.gpu.scaling.numbers import number, number_or_none, whole

__all__ = ["Season"]

_BIN_S: Final = 1800.0
_SHARE: Final = 0.3
"""How much of a profile's bin the newest day, or week, makes."""


class Season:
    """One profile of so many seconds; `change` is what it says of the time between two instants, 0 where it knows
    none."""

    __slots__ = ("_bin", "_bins", "_count", "_profile", "_sum")

    def __init__(self, cycle_s: float) -> None:
        self._bins = round(cycle_s / _BIN_S)
        self._profile: list[float | None] = [None] * self._bins
        self._bin, self._sum, self._count = -1, 0.0, 0

    def learn(self, time_s: float, log_level: float) -> None:
        """Takes in the level; a bin enters the profile when it is over."""
        now = int(time_s // _BIN_S) % self._bins
        if now != self._bin:
            if self._count:
                mean, old = self._sum / self._count, self._profile[self._bin]
                self._profile[self._bin] = mean if old is None else old + _SHARE * (mean - old)
            self._bin, self._sum, self._count = now, 0.0, 0
        self._sum += log_level
        self._count += 1

    def change(self, time_s: float, lead_s: float) -> float:
        """By how much the log level usually changes from `time_s` to `lead_s` later."""
        before, after = self._at(time_s), self._at(time_s + lead_s)
        return 0.0 if before is None or after is None else after - before

    def _at(self, time_s: float) -> float | None:
        place = time_s / _BIN_S - 0.5
        low = int(place // 1)
        first, second = self._profile[low % self._bins], self._profile[(low + 1) % self._bins]
        if first is None or second is None:
            return None
        return first + (second - first) * (place - low)

    def snapshot(self) -> Mapping[str, Any]:
        return {"profile": list(self._profile), "bin": self._bin, "sum": self._sum, "count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        profile = [number_or_none(one) for one in state["profile"]]
        place = whole(state["bin"], least=-1)
        if len(profile) != self._bins or place >= self._bins:
            raise ValueError("a profile of another length")
        self._profile = profile
        self._bin, self._sum, self._count = place, number(state["sum"]), whole(state["count"])
