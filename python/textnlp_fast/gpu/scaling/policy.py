"""What every policy is, ours and its rivals, and what a user sets of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.numbers import is_number
from textnlp_fast.gpu.scaling.observation import Observation

__all__ = ["ColdStart", "Policy", "ReplicaCapacity", "ScalingPolicy", "ScheduledFloor"]


class Policy(Protocol):
    """A policy has no clock, no network and no randomness: the same observations give the same decisions.

    Its state is an object of its own that `snapshot` turns into JSON and `restore` takes back: a restarted autoscaler
    goes on where the other stopped.
    """

    @property
    def name(self) -> str:
        """As it is called in tables: ours, knative, ..."""

    def decide(self, observation: Observation) -> Decision:
        """The decision for this period. Never raises for what an observation says."""

    def snapshot(self) -> Mapping[str, Any]:
        """The state as JSON's types."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a snapshot's state. Raises CorruptDataError for one that it cannot read, and keeps its own."""


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """From the order of a replica to its first answer, in seconds."""

    provisioning_s: float = 90.0
    weights_s: float = 60.0
    """Moving the weights there and into memory: the storage half's plan knows it."""
    warm_up_s: float = 30.0

    @property
    def total_s(self) -> float:
        return self.provisioning_s + self.weights_s + self.warm_up_s

    def __post_init__(self) -> None:
        for name in ("provisioning_s", "weights_s", "warm_up_s"):
            _finite(name, getattr(self, name), least=0.0)


@dataclass(frozen=True, kw_only=True)
class ReplicaCapacity:
    """What one replica can carry at its SLO; None: learned from what is observed. At least one should be known."""

    requests_per_s: float | None = None
    """Requests per second of this workload, with its queue stable."""
    tokens_in_flight: float | None = None
    """Prefill and decode tokens in flight at which latency still meets the SLO."""
    concurrency: float | None = None
    """Requests in flight at which latency still meets the SLO."""

    def __post_init__(self) -> None:
        for name in ("requests_per_s", "tokens_in_flight", "concurrency"):
            value = getattr(self, name)
            if value is not None:
                _finite(name, value, above=0.0)


@dataclass(frozen=True, kw_only=True)
class ScheduledFloor:
    """At least so many replicas at certain hours of certain days, in UTC."""

    instances: int
    begin_hour: float
    end_hour: float
    """Before `begin_hour` where the floor lasts over midnight."""
    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    """0: Monday. Of the day on which the floor begins."""

    def __post_init__(self) -> None:
        _whole("instances", self.instances, least=0)
        for name in ("begin_hour", "end_hour"):
            _finite(name, getattr(self, name), least=0.0, most=24.0)
        if not self.weekdays or any(day not in range(7) for day in self.weekdays):
            raise InvalidInputError("weekdays must be among 0 (Monday) to 6 (Sunday), and at least one")


@dataclass(frozen=True, kw_only=True)
class ScalingPolicy:
    """What a user sets. One default serves all traffic: nothing here needs tuning to a trace.

    Raises InvalidInputError for settings that contradict each other.
    """

    min_instances: int = 1
    """0 lets the fleet go away when nobody asks."""
    max_instances: int = 10
    slo_attainment: float = 0.999
    """Share of requests that must be within the SLO: decides how much room is left above the expected demand."""
    queue_wait_s: float = 1.0
    """The SLO: how long a request may wait before a replica begins it."""
    ttft_s: float | None = None
    inter_token_s: float | None = None
    capacity: ReplicaCapacity = field(default_factory=ReplicaCapacity)
    cold_start: ColdStart = field(default_factory=ColdStart)
    period_s: float = 10.0
    """How often a decision is made."""
    target_utilisation: float | None = None
    """None: as high as `slo_attainment` allows, from the demand's own measured scatter. A number: at most that."""
    scale_down_delay_s: float | None = None
    """How long a lower demand must last before replicas go; None: as long as the price of a change says."""
    idle_to_zero_s: float = 900.0
    """With `min_instances` 0: how long nobody must have asked before the last replica goes."""
    schedule: tuple[ScheduledFloor, ...] = ()
    usd_per_hour: float | None = None
    """What one replica costs on demand; None: not known, and budgets cannot be kept."""
    spot_usd_per_hour: float | None = None
    """What one costs on spot. Budgets count with `usd_per_hour` all the same: spot may be gone when it is needed."""
    budget_usd_per_hour: float | None = None

    def __post_init__(self) -> None:
        _whole("min_instances", self.min_instances, least=0)
        _whole("max_instances", self.max_instances, least=1)
        if self.min_instances > self.max_instances:
            raise InvalidInputError(
                f"min_instances {self.min_instances} is more than max_instances {self.max_instances}",
                hint="Raise max_instances, or lower min_instances.",
            )
        for name, kind in (("capacity", ReplicaCapacity), ("cold_start", ColdStart)):
            if not isinstance(getattr(self, name), kind):
                raise InvalidInputError(
                    f"{name} must be a {kind.__name__}, not {getattr(self, name)!r}",
                    hint=f"Pass {name}={kind.__name__}(...).",
                )
        if not isinstance(self.schedule, tuple) or not all(
            isinstance(one, ScheduledFloor) for one in self.schedule
        ):
            raise InvalidInputError("schedule must be a tuple of ScheduledFloor")
        _finite("slo_attainment", self.slo_attainment, above=0.0, below=1.0)
        for name in ("queue_wait_s", "period_s"):
            _finite(name, getattr(self, name), above=0.0)
        _finite("idle_to_zero_s", self.idle_to_zero_s, least=0.0)
        for name in ("ttft_s", "inter_token_s", "usd_per_hour", "spot_usd_per_hour", "budget_usd_per_hour"):
            if getattr(self, name) is not None:
                _finite(name, getattr(self, name), above=0.0)
        if self.scale_down_delay_s is not None:
            _finite("scale_down_delay_s", self.scale_down_delay_s, least=0.0)
        if self.target_utilisation is not None:
            _finite("target_utilisation", self.target_utilisation, above=0.0, most=1.0)
        if self.budget_usd_per_hour is not None and self.usd_per_hour is None:
            raise InvalidInputError(
                "budget_usd_per_hour needs usd_per_hour, what one replica costs",
                hint="Give usd_per_hour; `textnlp-fast gpu catalog show` lists prices.",
            )


def _whole(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInputError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _finite(
    name: str,
    value: object,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    if not is_number(value) or not (least <= value <= most and above < value < below):
        bounds = [f"at least {least}"] * (least > -math.inf) + [f"more than {above}"] * (above > -math.inf)
        bounds += [f"below {below}"] * (below < math.inf) + [f"at most {most}"] * (most < math.inf)
        raise InvalidInputError(f"{name} must be a number {' and '.join(bounds)}, not {value!r}")
