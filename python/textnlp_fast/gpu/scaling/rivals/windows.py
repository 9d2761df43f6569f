"""Means, maxima and sums over a stretch of time, whatever the spacing of what fills it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.scaling.numbers import is_number

__all__ = ["MaxWindow", "MeanWindow", "SumWindow"]

_UNITS = 1e6
"""Integrals are kept as whole millionths: the running sum is exact, so that days of steps do not make it drift."""

_LEAST_S = 1e-3
"""A stretch shorter than this has no mean worth the name."""


class MeanWindow:
    """The mean of a gauge over the last `window_s` seconds.

    Each sample stands for the stretch of time that ends when it was taken: with a sample a second this is the mean of
    the samples, and with one every ten seconds a window of six seconds holds the last one alone. Seconds within the
    window that no sample covers count as zero once a later sample has come; before the first sample and after the last
    one the window is shorter. So does Knative's TimedFloat64Buckets, whose buckets last a second.
    """

    __slots__ = ("_first_s", "_samples", "_total", "_until_s", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._samples: deque[tuple[float, float, int]] = deque()
        self._total = 0
        self._first_s = self._until_s = 0.0

    def add(self, begin_s: float, end_s: float, value: float) -> None:
        """`value` from `begin_s` to `end_s`, which is later than that and than the end of the sample before."""
        if not self._samples:
            self._first_s = begin_s
        amount = round(value * (end_s - begin_s) * _UNITS)
        self._samples.append((begin_s, end_s, amount))
        self._total += amount
        self._until_s = end_s

    def until(self, otherwise_s: float) -> float:
        """The end of the last sample, or `otherwise_s` where there is none."""
        return self._until_s if self._samples else otherwise_s

    def integral(self, now_s: float) -> float | None:
        """The area below the gauge within the window; None where no sample reaches into it."""
        cut_s, samples = now_s - self.window_s, self._samples
        while samples and samples[0][1] <= cut_s:
            self._total -= samples.popleft()[2]
        if not samples:
            return None
        begin_s, end_s, amount = samples[0]
        if begin_s >= cut_s:
            return self._total / _UNITS
        return (self._total - amount * (cut_s - begin_s) / (end_s - begin_s)) / _UNITS

    def mean(self, now_s: float) -> float | None:
        """The mean over the window up to the last sample; None where no sample reaches into it."""
        area = self.integral(now_s)
        if area is None:
            return None
        cut_s = now_s - self.window_s
        covered_s = self._until_s - (self._first_s if self._first_s > cut_s else cut_s)
        return area / covered_s if covered_s >= _LEAST_S else None

    def dump(self) -> list[list[float]]:
        """The window as JSON's types."""
        return [[self._first_s, self._until_s, 0], *(list(sample) for sample in self._samples)]

    def load(self, dumped: object) -> None:
        """Takes what `dump` gave. Raises CorruptDataError for anything else, and keeps what it has."""
        (first_s, until_s, _), *rows = _rows(dumped, 3, least=1)
        samples = [(begin_s, end_s, int(amount)) for begin_s, end_s, amount in rows]
        if any(begin_s >= end_s for begin_s, end_s, _ in samples):
            raise CorruptDataError("a sample of a snapshot ends before it begins")
        self._samples, self._total = deque(samples), sum(amount for _, _, amount in samples)
        self._first_s, self._until_s = first_s, until_s


class MaxWindow:
    """The largest of the values that are less than `window_s` old."""

    __slots__ = ("_falling", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._falling: deque[tuple[float, float]] = deque()

    def add(self, now_s: float, value: float) -> None:
        falling = self._falling
        while falling and falling[-1][1] <= value:
            falling.pop()
        falling.append((now_s, value))

    def largest(self, now_s: float, otherwise: float) -> float:
        """The largest, and `otherwise` where there is none."""
        cut_s, falling = now_s - self.window_s, self._falling
        while falling and falling[0][0] <= cut_s:
            falling.popleft()
        return falling[0][1] if falling else otherwise

    def dump(self) -> list[list[float]]:
        return [list(pair) for pair in self._falling]

    def load(self, dumped: object) -> None:
        self._falling = deque((time_s, value) for time_s, value in _rows(dumped, 2))


class SumWindow:
    """The sum of the values that are less than `window_s` old."""

    __slots__ = ("_events", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._events: deque[tuple[float, float]] = deque()

    def add(self, now_s: float, value: float) -> None:
        self._events.append((now_s, value))

    def total(self, now_s: float) -> float:
        cut_s, events = now_s - self.window_s, self._events
        while events and events[0][0] <= cut_s:
            events.popleft()
        return sum(value for _, value in events) if events else 0.0

    def dump(self) -> list[list[float]]:
        return [list(pair) for pair in self._events]

    def load(self, dumped: object) -> None:
        self._events = deque((time_s, value) for time_s, value in _rows(dumped, 2))


def _rows(dumped: object, width: int, *, least: int = 0) -> list[list[float]]:
    good = isinstance(dumped, Sequence) and not isinstance(dumped, str) and len(dumped) >= least
    if not good or not all(_is_row(row, width) for row in dumped):  # type: ignore[attr-defined]
        raise CorruptDataError(f"a window of a snapshot is not a list of rows of {width} numbers")
    return [list(row) for row in dumped]  # type: ignore[attr-defined]


def _is_row(row: object, width: int) -> bool:
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != width:
        return False
    return all(map(is_number, row))
