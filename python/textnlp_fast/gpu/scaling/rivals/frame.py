"""What all rivals have in common: bounds, ticks, what they read of an observation, and their state as JSON.

The rivals run within a simulation. What would be an error or a missed scrape where the real one runs is here an
observation without a figure: the rival then stays at what it said last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.gpu.scaling.decision import Decision, Reason
from textnlp_fast.gpu.scaling.numbers import is_number
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals.windows import MaxWindow, MeanWindow, SumWindow

__all__ = ["Rival", "Signal", "concurrency_of", "count_of", "gauge_of", "rate_of", "target_load"]

_MOST = 1e12
"""No gauge of a fleet is larger: what claims to be was not measured."""


def gauge_of(value: float | None) -> float | None:
    """The figure, or None where it is missing, not a number, negative or absurd."""
    return value if value is not None and 0.0 <= value < _MOST else None


def count_of(value: float | None) -> int | None:
    """The number of replicas, or None where it cannot be one."""
    return int(value) if value is not None and 0 <= value < _MOST else None


def concurrency_of(observation: Observation) -> float | None:
    """Requests in flight, waiting and running: both must be known, as the sum of two missing series is missing."""
    running, waiting = observation.running_requests, observation.waiting_requests
    if running is None or waiting is None:
        return None
    return gauge_of(running + waiting)


def rate_of(observation: Observation) -> float | None:
    """Requests a second."""
    return gauge_of(observation.request_rate)


Signal = Callable[[Observation], "float | None"]


def target_load(target_utilisation: float, capacity: ReplicaCapacity) -> tuple[Signal, float]:
    """The signal that a rival goes by which can use either, and how much of it a replica should get.

    Requests in flight where the capacity says how many a replica bears: a queue shows in them, and not in the rate.
    """
    if capacity.concurrency is not None:
        return concurrency_of, target_utilisation * capacity.concurrency
    if capacity.requests_per_s is not None:
        return rate_of, target_utilisation * capacity.requests_per_s
    raise InvalidInputError(
        "a rival needs to know what a replica carries: capacity has neither concurrency nor requests_per_s",
        hint="Give ReplicaCapacity(concurrency=...) or ReplicaCapacity(requests_per_s=...).",
    )


class Rival:
    """A rival's frame. A subclass gives `name`, what it keeps, and `_wanted`.

    Observations whose time is not later than the last one's change nothing.
    """

    name: ClassVar[str]
    part: ClassVar[str] = "reactive"
    _numbers: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold a number or None, and belong to the state."""
    _windows: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold a window of windows.py."""

    def __init__(
        self, *, target_utilisation: float, min_instances: int, max_instances: int, period_s: float
    ) -> None:
        if not 0.0 < target_utilisation <= 1.0:
            raise InvalidInputError(
                f"target_utilisation must be above 0 and at most 1, not {target_utilisation!r}"
            )
        if not 0 <= min_instances <= max_instances or max_instances < 1:
            raise InvalidInputError(
                f"min_instances {min_instances} and max_instances {max_instances} are no bounds",
                hint="Give 0 <= min_instances <= max_instances, and max_instances of at least 1.",
            )
        if not 0.0 < period_s < math.inf:
            raise InvalidInputError(f"period_s must be a number above 0, not {period_s!r}")
        self.target_utilisation = target_utilisation
        self.min_instances = min_instances
        self.max_instances = max_instances
        self.period_s = period_s
        self._time_s: float | None = None
        self._target: int | None = None
        self._began_s: float | None = None
        self._ticks = 0

    def decide(self, observation: Observation) -> Decision:
        """The decision for this period; the one before where the rival would not look, or could not."""
        now_s, last_s = observation.time_s, self._time_s
        if not -math.inf < now_s < math.inf or (last_s is not None and now_s <= last_s):
            return self._hold(observation)
        self._time_s = now_s
        wanted = self._wanted(observation, now_s, now_s - self.period_s if last_s is None else last_s)
        if wanted is None:
            return self._hold(observation)
        replicas, demand = wanted
        target = self._bounded(replicas)
        self._target = target
        return Decision(now_s, target, (Reason(self.part, replicas),), (), None, demand)

    def _wanted(
        self, observation: Observation, now_s: float, last_s: float
    ) -> tuple[int, float | None] | None:
        """How many replicas, and the demand in replicas; None where the one before stands."""
        raise NotImplementedError

    def _hold(self, observation: Observation) -> Decision:
        target = self._target
        if target is None:
            target = self._bounded(self._present(observation) or 0)
        return Decision(observation.time_s, target, (Reason("hold", target),))

    def _bounded(self, replicas: int) -> int:
        return max(self.min_instances, min(self.max_instances, replicas))

    @staticmethod
    def _present(observation: Observation) -> int | None:
        """Replicas that exist, whether they serve yet or not."""
        ready, starting = count_of(observation.ready), count_of(observation.starting)
        return None if ready is None else ready + (starting or 0)

    def _due(self, now_s: float, tick_s: float) -> int:
        """How many of the rival's own ticks have come since the last call. The first call is one.

        Ticks keep their phase: with one every 15 s and an observation every 10 s they fall on the observations at 0,
        20, 30, 50, 60 s, so that their rate is right on average.
        """
        if self._began_s is None:
            self._began_s = now_s
        ticks = int((now_s - self._began_s) / tick_s + 1e-9) + 1
        due, self._ticks = ticks - self._ticks, ticks
        return due

    def _tick_time_s(self, tick_s: float) -> float:
        """When the last tick was due: its age is what the rival's own clock would show."""
        return (self._began_s or 0.0) + (self._ticks - 1) * tick_s

    def snapshot(self) -> Mapping[str, Any]:
        """The state as JSON's types."""
        state: dict[str, Any] = {"policy": self.name}
        for attribute in ("_time_s", "_target", "_began_s", "_ticks", *self._numbers):
            state[attribute.lstrip("_")] = getattr(self, attribute)
        for attribute in self._windows:
            state[attribute.lstrip("_")] = getattr(self, attribute).dump()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a snapshot's state. Raises CorruptDataError for one that it cannot read, and keeps its own."""
        if not isinstance(state, Mapping) or state.get("policy") != self.name:
            raise CorruptDataError(f"not a snapshot of {self.name}", hint="Begin with an empty state.")
        numbers: dict[str, float | None] = {}
        for attribute in ("_time_s", "_target", "_began_s", "_ticks", *self._numbers):
            numbers[attribute] = _number(state, attribute.lstrip("_"))
        if not isinstance(numbers["_ticks"], int) or not isinstance(numbers["_target"], int | None):
            raise CorruptDataError(
                f"a snapshot of {self.name} counts in fractions", hint="Begin with an empty state."
            )
        windows: dict[str, MaxWindow | MeanWindow | SumWindow] = {}
        for attribute in self._windows:
            own: MaxWindow | MeanWindow | SumWindow = getattr(self, attribute)
            windows[attribute] = type(own)(own.window_s)
            windows[attribute].load(state.get(attribute.lstrip("_")))
        for attribute, value in (numbers | windows).items():
            setattr(self, attribute, value)


def _number(state: Mapping[str, Any], key: str) -> float | None:
    value = state.get(key, "")
    if value is None:
        return None
    if is_number(value):
        return value
    raise CorruptDataError(
        f"{key} of a snapshot is {value!r}, not a number", hint="Begin with an empty state."
    )
