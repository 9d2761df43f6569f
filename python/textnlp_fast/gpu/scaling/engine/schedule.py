"""Floors that a user has scheduled, in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from textnlp_fast.gpu.scaling.policy import ScheduledFloor

__all__ = ["floor_at"]

_DAY_S: Final = 86400.0
_THURSDAY: Final = 3
"""The epoch began on one."""


def floor_at(schedule: Sequence[ScheduledFloor], time_s: float) -> int:
    """The highest floor that holds at `time_s`, seconds since the epoch; 0 where none does."""
    if not schedule:
        return 0
    day, second = divmod(time_s, _DAY_S)
    today = int(day + _THURSDAY) % 7
    hour = second / 3600.0
    floor = 0
    for one in schedule:
        if one.begin_hour <= one.end_hour:
            holds = today in one.weekdays and one.begin_hour <= hour < one.end_hour
        else:
            # Over midnight: the evening of its day, or the morning after.
            holds = (today in one.weekdays and hour >= one.begin_hour) or (
                (today - 1) % 7 in one.weekdays and hour < one.end_hour
            )
        if holds:
            floor = max(floor, one.instances)
    return floor
