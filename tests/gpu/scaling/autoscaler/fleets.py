"""A fleet in a file, a policy that can be followed by eye, and traffic that a test sets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.scaling.actuators.contract import Actuator, FleetState
from textnlp_fast.gpu.scaling.decision import Decision, Reason
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ScalingPolicy

__all__ = ["FileFleet", "RatePolicy", "Traffic"]


class FileFleet(Actuator):
    """Its size and all that it was told are in a file, as a cloud would keep them. What is told serves at once."""

    kind = "file"

    def __init__(self, path: Path, *, step: Callable[[str], None] = lambda name: None) -> None:
        self.path = path
        self._step = step
        self.fail: Exception | None = None
        self.bounds: tuple[int | None, int | None] = (None, None)
        if not path.exists():
            path.write_text(json.dumps({"count": 1, "told": []}))

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    @property
    def count(self) -> int:
        return int(self.content["count"])

    def read(self) -> FleetState:
        self._step("read")
        if self.fail is not None:
            raise self.fail
        count = self.count
        return FleetState(desired=count, ready=count, min_size=self.bounds[0], max_size=self.bounds[1])

    def scale_to(self, count: int, *, decision_id: str) -> FleetState:
        self._step("tell")
        if self.fail is not None:
            raise self.fail
        content = self.content
        content["count"] = count
        content["told"].append([decision_id, count])
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(content))
        new.replace(self.path)
        self._step("told")
        return FleetState(desired=count, ready=count)


class RatePolicy:
    """A replica for each 10 requests a second; its state counts how often it was asked."""

    name = "rate"

    def __init__(self, settings: ScalingPolicy) -> None:
        self.settings = settings
        self.asked = 0
        self.last = 0

    def decide(self, observation: Observation) -> Decision:
        self.asked += 1
        if observation.request_rate is None:
            return Decision(observation.time_s, self.last, (Reason("hold", self.last),))
        demand = observation.request_rate / 10
        self.last = math.ceil(demand)
        reason = Reason(
            "reactive",
            demand,
            "{rate:.1f} requests/s need {replicas:.2f} replicas",
            (("rate", observation.request_rate),),
        )
        return Decision(observation.time_s, self.last, (reason,), forecast=demand * 2, demand=demand)

    def snapshot(self) -> Mapping[str, Any]:
        return {"asked": self.asked, "last": self.last}

    def restore(self, state: Mapping[str, Any]) -> None:
        try:
            self.asked, self.last = int(state["asked"]), int(state["last"])
        except (KeyError, TypeError, ValueError):
            raise CorruptDataError("no state of this policy") from None


class Traffic:
    """What is observed: `rate` requests a second, or what `fail` says."""

    def __init__(self, rate: float = 35.0) -> None:
        self.rate: float | None = rate
        self.fail: Exception | None = None
        self.trouble: tuple[str, ...] = ()

    async def observe(self, fleet: FleetState | None, *, time_s: float) -> Observation:
        if self.fail is not None:
            raise self.fail
        return Observation(
            time_s,
            fleet.ready if fleet else None,
            fleet.starting if fleet else 0,
            request_rate=self.rate,
        )
