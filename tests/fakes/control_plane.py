"""A control plane of a cloud on loopback: the server behind the fakes of Compute Engine and of Azure Resource Manager.

A fake answers requests; the server does the faults and keeps what was said. What breaks the vendor's own description of
the API is a `violation`, and tests fail on any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from faults.matching import RequestFault
from faults.server import Exchange, FaultyServer, Request

__all__ = ["Answer", "ControlPlane", "ControlPlaneFault", "Request", "json_answer"]

Kind = Literal[
    "status",  # refused with `code` and `reason`, not done
    "lose_answer",  # done, and the connection is cut
    "lose_request",  # not done, and the connection is cut
    "garble",  # done, and answered with `message`, whatever that is
]


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(body: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, body, {key.replace("_", "-"): value for key, value in headers.items()})


@dataclass
class ControlPlaneFault(RequestFault):
    """A fault of a control plane."""

    kind: Kind
    reason: str = "backendError"
    message: str = "Injected."
    retry_after_s: int | None = None


class ControlPlane(FaultyServer[ControlPlaneFault]):
    """The server. Subclasses answer; bodies are what their JSON says."""

    def __init__(self) -> None:
        super().__init__(_exchange(self))
        self.exchanges: list[tuple[Request, Answer]] = []
        self.violations: list[str] = []

    def serve(self, request: Request) -> Answer:
        """What the API says, errors included."""
        raise NotImplementedError

    def refusal(self, status: int, reason: str, message: str) -> Any:
        """The body of an error in the API's words."""
        raise NotImplementedError

    def asked(self, method: str, path: str = "") -> list[Request]:
        """The requests so far of a method whose paths contain `path`."""
        return [one for one, _ in list(self.exchanges) if one.method == method and path in one.path]

    def answer(self, request: Request) -> Answer:
        try:
            answer = self.serve(request)
        except AssertionError as complaint:
            # The client hears of it at once; whoever swallows that is caught at the test's end.
            self.violations.append(f"{request.method} {request.path}: {complaint}")
            answer = Answer(400, self.refusal(400, "invalid", f"The fake refuses: {complaint}"))
        self.exchanges.append((request, answer))
        return answer


def _exchange(plane: ControlPlane) -> type[Exchange]:
    class PlaneExchange(Exchange):
        wbufsize = 1 << 16

        def serve(self) -> None:
            request = self.read_request(lambda raw: json.loads(raw) if raw else None)
            fault = plane.fault_for(self.command, self.path)
            if fault is not None and fault.kind == "lose_request":
                self.cut()
                return
            if fault is not None and fault.kind == "status":
                headers = {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s is not None else {}
                answer = Answer(fault.code, plane.refusal(fault.code, fault.reason, fault.message), headers)
                plane.exchanges.append((request, answer))
            else:
                answer = plane.answer(request)
            if fault is not None and fault.meanwhile is not None:
                fault.meanwhile()
            if fault is not None and fault.kind == "lose_answer":
                self.cut()
                return
            body = b"" if answer.body is None else json.dumps(answer.body).encode()
            if fault is not None and fault.kind == "garble":
                body = fault.message.encode()
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.body is not None:
                self.send_header("Content-Type", "application/json; charset=UTF-8")
            if answer.status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    return PlaneExchange
