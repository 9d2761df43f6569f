"""What the harnesses of fake control planes have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fakes.control_plane import ControlPlaneFault
from gpu.providers.harness import Harness

__all__ = ["PLENTY", "PlaneHarness"]

PLENTY = 1000
_ALWAYS = 10**9


class PlaneHarness(Harness):
    """A cloud whose fake is a `ControlPlane` with tokens, pages and a state that hides what is new."""

    verbs: ClassVar[Mapping[str, tuple[str, str]]]
    """Method and path of the requests that the cases break."""
    throttled: ClassVar[tuple[int, str]]
    """Status and reason of a request that is throttled."""

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        fake.tokens = {"good"}
        fake.page_size = 50

    def options(self) -> dict[str, Any]:
        """Of a provider that asks the fake, and is quick about it."""
        return {
            "endpoint_url": self.fake.endpoint_url,
            "first_pause_s": 0.01,
            "deadline_s": 60.0,
            "timeout_s": 20.0,
        }

    def heal(self) -> None:
        self.fake.heal()
        self.fake.tokens = {"good"}
        self.fake.state.hide_for = 0

    def no_capacity(self) -> None:
        self.capacity(0)

    def throttle(self, times: int) -> None:
        code, reason = self.throttled
        self.fake.inject(ControlPlaneFault("status", code=code, reason=reason, times=times))

    def lose_answer(self, verb: str, times: int = 1) -> None:
        method, path = self.verbs[verb]
        self.fake.inject(ControlPlaneFault("lose_answer", method=method, path=path, times=times))

    def lose_request(self, verb: str, times: int = 1) -> None:
        method, path = self.verbs[verb]
        self.fake.inject(ControlPlaneFault("lose_request", method=method, path=path, times=times))

    def hide_new(self, looks: int) -> None:
        self.fake.state.hide_for = looks

    def expire_credentials(self) -> None:
        self.fake.tokens = {"another"}

    def deny_to(self, verb: str, *, reason: str, message: str) -> None:
        """The credentials may not do this."""
        method, path = self.verbs[verb]
        self.fake.inject(
            ControlPlaneFault(
                "status",
                method=method,
                path=path,
                code=403,
                reason=reason,
                message=message,
                times=_ALWAYS,
            )
        )

    def launches_asked(self) -> int:
        return len(self.fake.asked(*self.verbs["launch"]))
