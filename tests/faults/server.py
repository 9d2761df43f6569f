"""An HTTP server on loopback that can be broken: what the proxy and the fakes of clouds are made of."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlsplit

from typing_extensions import Self

from faults.matching import RequestFault

__all__ = ["Exchange", "FaultyServer", "Request"]

FaultKind = TypeVar("FaultKind", bound=RequestFault)


@dataclass(frozen=True)
class Request:
    """One request; header names are lower-case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    """The bytes, or what their JSON says: each server has one of the two."""
    base: str
    """Scheme and host, as the client sees them."""


class FaultyServer(Generic[FaultKind]):
    """The server, running from ``with`` to the end of the block. Its `Exchange` asks it which fault a request meets."""

    def __init__(self, exchange: type[Exchange], *, port: int = 0) -> None:
        self._faults: list[FaultKind] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), exchange)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def inject(self, fault: FaultKind) -> FaultKind:
        """Add a fault; of several that match a request the first does its harm."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()

    def fault_for(self, method: str, target: str) -> FaultKind | None:
        """The fault that this request meets; counts it."""
        with self._lock:
            return next((fault for fault in self._faults if fault.applies(method, target)), None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Exchange(BaseHTTPRequestHandler):
    """A request and its answer; subclasses say in `serve` what that is."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the tests look at what was done, not at what was said."""

    def serve(self) -> None:
        raise NotImplementedError

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def read_request(self, body_of: Callable[[bytes], Any]) -> Request:
        """The request in parts."""
        parts = urlsplit(self.path)
        return Request(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            body_of(self.read_body()),
            f"{self.headers.get('X-Forwarded-Proto', 'http')}://{self.headers['Host']}",
        )

    def cut(self) -> None:
        """Ends the connection without a word."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        self.serve()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _serve


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed, or had enough, is no error of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
