"""Spot availability over time: recorded traces, and made-up ones for where none are at hand.

A recorded trace is a JSON file a zone, as github.com/skypilot-org/spot-traces has them (Wu et al., "Can't Be Late",
NSDI 2024): `{"metadata": {"gap_seconds": 195}, "data": [0, 1, ...]}`, where each reading is how many of the probe's
machines could be had. The probe of the traces used here is one machine: a reading is 0 or 1, and says nothing of a
second machine. What it is taken to say of several is `Traces.limited`'s matter.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from textnlp_fast.errors import CorruptDataError, InvalidInputError

__all__ = ["UNLIMITED", "Traces", "ZoneTrace", "read_traces", "synthetic"]

#: A capacity that no fleet here reaches.
UNLIMITED = 1_000_000

_MOST_BYTES = 64 << 20
_MOST_READINGS = 10_000_000
_MOST_ZONES = 1000


class ZoneTrace(NamedTuple):
    """One zone: how many machines it could give at each reading."""

    zone: str
    region: str
    capacity: tuple[int, ...]


class Traces(NamedTuple):
    """Zones that were read at the same times, every `gap_s` seconds."""

    gap_s: float
    zones: tuple[ZoneTrace, ...]

    @property
    def ticks(self) -> int:
        return len(self.zones[0].capacity)

    def limited(self, machines: int | None) -> Traces:
        """A zone that is up gives any number of machines (None), or at most so many."""
        most = UNLIMITED if machines is None else machines
        return self._replace(
            zones=tuple(
                one._replace(capacity=tuple(most if reading else 0 for reading in one.capacity))
                for one in self.zones
            )
        )

    def between(self, begin: int, end: int | None = None) -> Traces:
        """The readings from `begin` to before `end`."""
        cut = tuple(one._replace(capacity=one.capacity[begin:end]) for one in self.zones)
        if not cut[0].capacity:
            raise InvalidInputError(f"no reading lies between {begin} and {end}: there are {self.ticks}")
        return self._replace(zones=cut)


def read_traces(folder: str | os.PathLike[str]) -> Traces:
    """All `*.json` of a folder, each a zone, named as its file up to the first underscore.

    Zones are cut to the shortest. Raises InvalidInputError where there is none, CorruptDataError for a file that is no
    trace, or whose gap is another.
    """
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        raise InvalidInputError(f"{folder} has no traces", hint="It should hold a JSON file for each zone.")
    if len(files) > _MOST_ZONES:
        raise InvalidInputError(f"{folder} has {len(files)} files; at most {_MOST_ZONES} zones are read")
    gaps, zones = set(), []
    for file in files:
        gap_s, capacity = _readings(file)
        gaps.add(gap_s)
        zone = file.stem.split("_", 1)[0]
        zones.append(ZoneTrace(zone, region_of(zone), capacity))
    if len(gaps) != 1:
        raise CorruptDataError(f"the traces of {folder} have several gaps: {sorted(gaps)}", hint=_HINT)
    if len({one.zone for one in zones}) != len(zones):
        raise CorruptDataError(f"{folder} has two traces of one zone", hint="Keep one GPU type in a folder.")
    least = min(len(one.capacity) for one in zones)
    return Traces(gaps.pop(), tuple(one._replace(capacity=one.capacity[:least]) for one in zones))


_HINT = "A trace is {'metadata': {'gap_seconds': number}, 'data': [whole numbers]}."


def region_of(zone: str) -> str:
    """AWS's and Google's zones are a region and a letter, with and without a dash."""
    return zone[:-2] if zone[-2:-1] == "-" else zone[:-1] if zone[-1:].isalpha() else zone


def _readings(file: Path) -> tuple[float, tuple[int, ...]]:
    if file.stat().st_size > _MOST_BYTES:
        raise CorruptDataError(f"{file.name} is larger than {_MOST_BYTES >> 20} MiB", hint=_HINT)
    try:
        document = json.loads(file.read_bytes())
        gap_s, data = document["metadata"]["gap_seconds"], document["data"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptDataError(
            f"{file.name} is no trace: {type(error).__name__}: {error}", hint=_HINT
        ) from None
    if isinstance(gap_s, bool) or not isinstance(gap_s, int | float) or not 0 < gap_s < 1e6:
        raise CorruptDataError(f"{file.name} has a gap of {gap_s!r} seconds", hint=_HINT)
    if not isinstance(data, list) or not 0 < len(data) <= _MOST_READINGS:
        raise CorruptDataError(f"{file.name} has no readings, or more than {_MOST_READINGS}", hint=_HINT)
    for at, reading in enumerate(data):
        if type(reading) is not int or not 0 <= reading <= UNLIMITED:
            raise CorruptDataError(f"{file.name}: reading {at} is {str(reading)[:40]}", hint=_HINT)
    return float(gap_s), tuple(data)


def synthetic(
    *,
    seed: int,
    ticks: int = 4000,
    gap_s: float = 195.0,
    regions: Sequence[int] = (4, 2, 3),
    up_share: Sequence[float] = (0.45, 0.7, 0.9),
    shocks_per_day: float = 0.5,
) -> Traces:
    """Made-up zones: `regions[i]` of them in region i, up about `up_share[i]` of the time.

    A zone goes up and down with spells of Pareto's law (index 0.9, cut at four days): most are short, and one that has
    lasted will last, which is what recorded zones do. A region's shocks take all its zones down at once, for an hour
    in the mean. The same seed gives the same traces.
    """
    if len(regions) != len(up_share):
        raise InvalidInputError(f"{len(regions)} regions have {len(up_share)} shares of time")
    rng = random.Random(seed)
    zones = []
    for at, (count, share) in enumerate(zip(regions, up_share, strict=True)):
        shocked = bytearray(ticks)
        for tick in range(ticks):
            if rng.random() < shocks_per_day * gap_s / 86400:
                end = tick + 1 + int(rng.expovariate(1.0) * 3600 / gap_s)
                shocked[tick:end] = b"\1" * (min(end, ticks) - tick)
        for letter in range(count):
            readings: list[int] = []
            up = rng.random() < share
            while len(readings) < ticks:
                scale_s = 1800.0 * (share if up else 1 - share) * 2
                spell_s = min(scale_s * (rng.random() ** (-1 / 0.9) - 1) + gap_s, 4 * 86400.0)
                readings += [int(up)] * max(1, math.ceil(spell_s / gap_s))
                up = not up
            zone = f"made-up-{at + 1}{chr(ord('a') + letter)}"
            capacity = tuple(0 if hit else one for one, hit in zip(readings[:ticks], shocked, strict=True))
            zones.append(ZoneTrace(zone, region_of(zone), capacity))
    return Traces(gap_s, tuple(zones))
