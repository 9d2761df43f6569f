"""What the harnesses of groups on fake control planes have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fakes.control_plane import ControlPlaneFault
from gpu.scaling.actuators.harness import GroupHarness

__all__ = ["PlaneGroupHarness"]

_ALWAYS = 10**9


class PlaneGroupHarness(GroupHarness):
    fake: Any
    paths: ClassVar[Mapping[str, tuple[str, str]]]
    """Verb -> method and path of its request."""
    throttled: ClassVar[tuple[int, str]]

    def options(self) -> dict[str, Any]:
        return {"first_pause_s": 0.01, "timeout_s": 20.0, "endpoint_url": self.fake.endpoint_url}

    def heal(self) -> None:
        self.fake.heal()
        self.fake.tokens = {"good"}

    def throttle(self, times: int) -> None:
        code, reason = self.throttled
        self.fake.inject(ControlPlaneFault("status", code=code, reason=reason, times=times))

    def lose_answer(self, verb: str) -> None:
        method, path = self.paths[verb]
        self.fake.inject(ControlPlaneFault("lose_answer", method=method, path=path))

    def crash_after(self, requests: int, *, heard: bool) -> None:
        if heard:
            self.fake.inject(ControlPlaneFault("lose_answer", after=requests))
        self.fake.inject(ControlPlaneFault("lose_request", after=requests, times=_ALWAYS))

    def expire_credentials(self) -> None:
        self.fake.tokens = {"another"}

    def requests(self) -> int:
        return len(self.fake.exchanges)
