"""The agent's HTTP: one request a connection, bounded in size, number and time."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from textnlp_fast.errors import InvalidInputError

__all__ = ["AgentServer", "Refusal"]

_MOST_CONNECTIONS: Final = 64
_MOST_BODY_BYTES: Final = 64 << 10
#: For a request to be there whole.
_REQUEST_S: Final = 10.0


class Refusal(Exception):
    """A request that gets another answer than it asked for."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


Answer = Callable[[str, str, "Mapping[str, Any] | None"], Mapping[str, Any]]
Admit = Callable[[str, str], None]


class AgentServer:
    """Serves `answer(method, path, body)` on an address until it is closed, to those whom `admit` lets in."""

    def __init__(self, address: tuple[str, int], answer: Answer, admit: Admit) -> None:
        class Handler(_Handler):
            answer_to = staticmethod(answer)
            admit_to = staticmethod(admit)

        kind = _Server6 if ":" in address[0] else _Server
        try:
            self._server = kind(address, Handler)
        except OSError as error:
            raise InvalidInputError(
                f"cannot listen on {address[0]}, port {address[1]}: {error.strerror or error}",
                hint="Does an agent run there already? Choose another port; 0 takes any that is free.",
            ) from None
        self.address: tuple[str, int] = self._server.server_address[:2]  # type: ignore[assignment]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="agent-listen", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops listening; answers that are under way are given up."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._lock = threading.Lock()
        self._reading: dict[socket.socket, float] = {}
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._reading[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread is to be had
            self.is_read(request)
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.is_read(request)
            self._free.release()

    def is_read(self, request: socket.socket) -> None:
        """The request is there: what takes its time from now on is the answer."""
        with self._lock:
            self._reading.pop(request, None)

    def service_actions(self) -> None:
        """Ends those who send a request byte by byte."""
        late = time.monotonic() - _REQUEST_S
        with self._lock:
            slow = [request for request, since in self._reading.items() if since < late]
        for request in slow:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no news."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    answer_to: Answer
    admit_to: Admit
    protocol_version = "HTTP/1.1"
    timeout = _REQUEST_S
    server_version = "textnlp-fast"
    sys_version = ""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: whoever asks knows what he asked."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.close_connection = True
        try:
            body = self._body()
            self.server.is_read(self.connection)
            self.admit_to(self.headers.get("Authorization", ""), self.headers.get("Host", ""))
            status, said = 200, dict(self.answer_to(self.command, urlsplit(self.path).path, body))
        except Refusal as refusal:
            status, said = refusal.status, {"error": str(refusal)}
        except (OSError, EOFError):
            return
        except Exception as error:  # noqa: BLE001  (the caller hears it, and the agent goes on)
            status, said = 500, {"error": f"{type(error).__name__}: {error}"[:500]}
        raw = json.dumps(said, allow_nan=False, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(raw)

    def _body(self) -> dict[str, Any] | None:
        text = self.headers.get("Content-Length", "0")
        if not text.isdecimal() or len(text) > 9 or int(text) > _MOST_BODY_BYTES:
            raise Refusal(413, f"a body of at most {_MOST_BODY_BYTES} bytes, with its length, is taken")
        raw = self.rfile.read(int(text))
        if len(raw) < int(text):
            raise EOFError
        if not raw:
            return None
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            raise Refusal(400, "the body is no JSON") from None
        if not isinstance(body, dict):
            raise Refusal(400, "the body is no JSON object")
        return body
