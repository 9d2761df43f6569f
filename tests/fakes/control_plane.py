"""A control plane of a cloud on loopback: the server behind the fakes of Compute Engine and of Azure Resource Manager.

A fake answers requests; the server does the faults and keeps what was said. What breaks the vendor's own description of
the API is a `violation`, and tests fail on any.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from typing_extensions import Self

from faults.matching import RequestFault

__all__ = ["Answer", "ControlPlane", "ControlPlaneFault", "Request", "json_answer"]

Kind = Literal[
    "status",  # refused with `code` and `reason`, not done
    "lose_answer",  # done, and the connection is cut
    "lose_request",  # not done, and the connection is cut
    "garble",  # done, and answered with `message`, whatever that is
]


@dataclass(frozen=True)
class Request:
    """One request; header names are lower-case, `body` is what its JSON says."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    base: str
    """Scheme and host, as the client sees them."""


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


class ControlPlane:
    """The server, running from `with` to the end of the block. Subclasses answer."""

    def __init__(self) -> None:
        self.exchanges: list[tuple[Request, Answer]] = []
        self.violations: list[str] = []
        self._faults: list[ControlPlaneFault] = []
        self._guard = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def inject(self, fault: ControlPlaneFault) -> ControlPlaneFault:
        """Add a fault; of several that match a request the first does its harm."""
        with self._guard:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults."""
        with self._guard:
            self._faults.clear()

    def fault_for(self, method: str, target: str) -> ControlPlaneFault | None:
        with self._guard:
            return next((fault for fault in self._faults if fault.applies(method, target)), None)

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

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _handler(plane: ControlPlane) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the tests look at what was done, not at what was said."""

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(
                self.command,
                parts.path,
                dict(parse_qsl(parts.query, keep_blank_values=True)),
                {name.lower(): value for name, value in self.headers.items()},
                json.loads(raw) if raw else None,
                f"http://{self.headers['Host']}",
            )
            fault = plane.fault_for(self.command, self.path)
            if fault is not None and fault.kind == "lose_request":
                self._cut()
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
                self._cut()
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

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _serve

    return Handler
