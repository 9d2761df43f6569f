"""An HTTP proxy on loopback that does to chosen requests what networks do.

Requests go to one upstream server, answers come back. A fault applies to requests that match its method and
path, one after another, skips the first ``after`` of them and hits the next ``times``. A form in a request's body is
searched like its query: some protocols say there what they want.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from faults.matching import RequestFault
from faults.server import Exchange, FaultyServer

Kind = Literal[
    "lose_answer",  # upstream does it, the client's connection is cut
    "lose_request",  # upstream never sees it, the client's connection is cut
    "cut_body",  # the answer's headers promise the whole body, half of it comes
    "delay",  # the answer comes after `seconds`
    "drip",  # the answer's body comes byte by byte, `seconds` apart, until the client has had enough
    "status",  # upstream never sees it, the client gets `code`
    "status_after",  # upstream does it, the client gets `code`
    "ignore_conditions",  # upstream sees the request without its conditions
    "corrupt_answer",  # one bit of the answer's body is flipped
    "corrupt_request",  # one bit of the request's body is flipped
]
Answer = tuple[int, list[tuple[str, str]], bytes]

_FORM = "application/x-www-form-urlencoded"
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "proxy-connection",
}


@dataclass
class Fault(RequestFault):
    """A fault of the proxy."""

    kind: Kind
    seconds: float = 0.0
    body: bytes = b""
    """What `status` and `status_after` answer with."""


class FaultProxy(FaultyServer[Fault]):
    """The proxy.

    ``requests`` records what came: (method, path); ``seen`` the headers, too.
    """

    def __init__(self, upstream_url: str) -> None:
        super().__init__(_exchange(self))
        parts = urlsplit(upstream_url)
        assert parts.hostname and parts.port
        self.upstream = (parts.hostname, parts.port)
        self.requests: list[tuple[str, str]] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    def count(self, method: str) -> int:
        """How many requests of this method came."""
        return sum(1 for seen, _ in self.requests if seen == method)

    def fault_for(self, method: str, target: str) -> Fault | None:
        self.requests.append((method, target))
        return super().fault_for(method, target)

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What upstream answers: status, headers, body. A proxy for one protocol may know better."""
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        try:
            sent = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


def _exchange(proxy: FaultProxy) -> type[Exchange]:
    class ProxyExchange(Exchange):
        def serve(self) -> None:
            proxy.seen.append((self.command, self.path, dict(self.headers.items())))
            body = self.read_body()
            form = (self.headers.get("Content-Type") or "").startswith(_FORM)
            fault = proxy.fault_for(self.command, f"{self.path}?{body.decode()}" if form else self.path)
            kind = fault.kind if fault else None
            if fault and kind == "lose_request":
                if fault.meanwhile:
                    fault.meanwhile()
                self.cut()
                return
            if fault and kind == "status":
                self._answer(fault.code, [], fault.body)
                return
            if kind == "corrupt_request":
                body = _flipped(body)
            if kind == "ignore_conditions":
                del self.headers["If-Match"], self.headers["If-None-Match"]
                self.path = re.sub(r"&ifGenerationMatch=\d+", "", self.path)
            status, headers, answer = proxy.ask(self.command, self.path, self.headers, body)
            if fault and fault.meanwhile:
                fault.meanwhile()
            if fault and kind == "delay":
                time.sleep(fault.seconds)
            if kind == "lose_answer":
                self.cut()
            elif fault and kind == "status_after":
                self._answer(fault.code, [], fault.body)
            elif fault and kind == "drip":
                self._answer(status, headers, answer, send=0)
                for place in range(len(answer)):
                    self.wfile.write(answer[place : place + 1])
                    time.sleep(fault.seconds)
            elif kind == "cut_body":
                self._answer(status, headers, answer, send=len(answer) // 2)
                self.cut()
            else:
                self._answer(status, headers, _flipped(answer) if kind == "corrupt_answer" else answer)

        def _answer(
            self, status: int, headers: list[tuple[str, str]], body: bytes, *, send: int | None = None
        ) -> None:
            self.send_response_only(status)
            length = str(len(body))
            for name, value in headers:
                if name.lower() == "content-length":
                    length = value  # of HEAD: the object's, with no body behind it
                elif name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body if send is None else body[:send])
            self.wfile.flush()

    return ProxyExchange
