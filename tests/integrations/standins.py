"""A policy that follows what it sees, and an observer whose fleet a test holds in its hands."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.scaling.decision import Decision, Reason
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ScalingPolicy


class Following:
    """As many replicas as requests wait or run, by the capacity's concurrency; holds when it sees nothing."""

    name = "following"

    def __init__(self, settings: ScalingPolicy) -> None:
        self.settings = settings
        self.target = settings.min_instances
        self.seen = 0

    def decide(self, observation: Observation) -> Decision:
        self.seen += 1
        if observation.waiting_requests is not None:
            inside = observation.waiting_requests + (observation.running_requests or 0.0)
            need = -(-inside // (self.settings.capacity.concurrency or 1.0))
            self.target = int(min(max(need, self.settings.min_instances), self.settings.max_instances))
        return Decision(observation.time_s, self.target, (Reason("reactive", float(self.target)),))

    def snapshot(self) -> Mapping[str, Any]:
        return {"target": self.target, "seen": self.seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        try:
            self.target, self.seen = int(state["target"]), int(state["seen"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptDataError(f"no state of this policy: {error}") from error


class HeldFleet:
    """An observer: what a test sets is what is seen. `failing` makes it raise; `looks` counts."""

    def __init__(self, *, requests: float = 0.0, ready: int | None = 1) -> None:
        self.requests, self.ready = requests, ready
        self.failing: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.looked = threading.Condition()
        self.looks = 0

    def __call__(self) -> Observation:
        self.gate.wait(30)
        with self.looked:
            self.looks += 1
            self.looked.notify_all()
        if self.failing is not None:
            raise self.failing
        return Observation(time_s=float(self.looks), ready=self.ready, waiting_requests=self.requests)

    def wait_looks(self, more: int = 2) -> None:
        """Until as many looks more have begun: what was set before the call has been decided upon after two."""
        with self.looked:
            goal = self.looks + more
            assert self.looked.wait_for(lambda: self.looks >= goal, 20)
