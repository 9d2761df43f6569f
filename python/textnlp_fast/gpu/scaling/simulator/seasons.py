"""Traces that are made: days and weeks, growth, and the days on which something is launched."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.simulator.traces import MAX_DAYS, RateTrace

__all__ = ["Seasons", "made_trace"]

_READING_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Seasons:
    """Requests per second as a product of what each part does. Two humps a working day, at ten and at three."""

    mean: float = 25.0
    """Of a working day in the first week."""
    night: float = 0.15
    """The least of a working day, as a share of its most."""
    weekend: float = 0.45
    """Of a working day."""
    growth_a_week: float = 0.08
    launches_a_week: float = 1.0
    launch_factor: float = 2.5
    """What traffic is at a launch's peak, half an hour after its begin, of what it would be."""
    launch_hours: float = 5.0
    """In which a launch's excess falls to a third."""


def made_trace(
    *, days: float = 14.0, seed: int = 0, seasons: Seasons | None = None, name: str = "made"
) -> RateTrace:
    """A trace that begins on a Monday at midnight. Equal seeds give equal launches. Raises InvalidInputError."""
    seasons = seasons or Seasons()
    if not 0 < days <= MAX_DAYS:
        raise InvalidInputError(f"a trace may last up to {MAX_DAYS} days, not {days:g}")
    dice = random.Random(seed)
    launches = []
    for week in range(math.ceil(days / 7)):
        count = int(seasons.launches_a_week) + (dice.random() < seasons.launches_a_week % 1)
        for _ in range(count):
            # On a working day, by day: that is when people launch things.
            launches.append((week * 7 + dice.randrange(5)) * 86400.0 + dice.uniform(8.0, 18.0) * 3600.0)
    times = [_READING_S * k for k in range(int(days * 86400 / _READING_S) + 1)]
    shape = [_day(time) for time in times]
    middle = sum(_day(60.0 * k) for k in range(1440)) / 1440
    least = seasons.night
    rates = []
    for time, hump in zip(times, shape, strict=True):
        rate = seasons.mean * (least + (1 - least) * hump) / (least + (1 - least) * middle)
        rate *= seasons.weekend if time // 86400 % 7 >= 5 else 1.0
        rate *= (1 + seasons.growth_a_week) ** (time / (7 * 86400))
        for begin in launches:
            rate *= 1 + (seasons.launch_factor - 1) * _launch(time - begin, seasons.launch_hours * 3600)
        rates.append(rate)
    return RateTrace(name=name, times_s=times, rates=rates)


def _day(time_s: float) -> float:
    """0 to about 1 over a day."""
    hour = time_s / 3600 % 24
    return min(1.0, math.exp(-(((hour - 10) / 2.4) ** 2)) + 0.9 * math.exp(-(((hour - 15.5) / 3.0) ** 2)))


def _launch(since_s: float, fall_s: float) -> float:
    if since_s < 0:
        return 0.0
    return min(1.0, since_s / 1800.0) * math.exp(-max(0.0, since_s - 1800.0) / (fall_s / 1.0986))
