"""The proxy itself: it passes what it should, and each fault does what its name says."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from faults.proxy import Fault, FaultProxy

BODY = b"0123456789" * 100


class _Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        stored = self.stored

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None: ...

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(BODY)))
                self.end_headers()
                self.wfile.write(BODY)

            def do_PUT(self) -> None:
                stored.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def upstream() -> Iterator[_Upstream]:
    server = _Upstream()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def proxy(upstream: _Upstream) -> Iterator[FaultProxy]:
    with FaultProxy(f"http://127.0.0.1:{upstream.server_address[1]}") as proxy:
        yield proxy


def ask(proxy: FaultProxy, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(proxy.endpoint_url.removeprefix("http://"), timeout=5)
    try:
        connection.request(method, "/thing", body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_passes_requests_and_counts_them(proxy: FaultProxy, upstream: _Upstream) -> None:
    assert ask(proxy) == (200, BODY)
    assert ask(proxy, "PUT", b"x") == (200, b"")
    assert upstream.stored == [b"x"]
    assert proxy.requests == [("GET", "/thing"), ("PUT", "/thing")]


@pytest.mark.parametrize(("kind", "reaches_upstream"), [("lose_answer", True), ("lose_request", False)])
def test_loses(proxy: FaultProxy, upstream: _Upstream, kind: str, reaches_upstream: bool) -> None:
    fault = proxy.inject(Fault(kind, method="PUT"))  # type: ignore[arg-type]
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(proxy, "PUT", b"x")
    assert upstream.stored == ([b"x"] if reaches_upstream else [])
    assert fault.hits == 1
    assert ask(proxy) == (200, BODY)


@pytest.mark.parametrize(("kind", "reaches_upstream"), [("status_after", True), ("status", False)])
def test_answers_in_upstreams_place(
    proxy: FaultProxy, upstream: _Upstream, kind: str, reaches_upstream: bool
) -> None:
    proxy.inject(Fault(kind, code=429))  # type: ignore[arg-type]
    assert ask(proxy, "PUT", b"x") == (429, b"")
    assert upstream.stored == ([b"x"] if reaches_upstream else [])


def test_cuts_bodies(proxy: FaultProxy) -> None:
    proxy.inject(Fault("cut_body"))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(proxy)
    assert caught.value.partial == BODY[: len(BODY) // 2]


def test_corrupts_one_bit(proxy: FaultProxy, upstream: _Upstream) -> None:
    proxy.inject(Fault("corrupt_answer", method="GET"))
    proxy.inject(Fault("corrupt_request", method="PUT"))
    flipped = int.from_bytes(ask(proxy)[1], "big") ^ int.from_bytes(BODY, "big")
    assert flipped.bit_count() == 1
    ask(proxy, "PUT", b"\x00\x00\x00")
    assert upstream.stored == [b"\x00\x01\x00"]


def test_hits_the_ones_it_was_told_to(proxy: FaultProxy) -> None:
    proxy.inject(Fault("status", method="GET", path="^/thing$", after=1, times=2, code=500))
    proxy.inject(Fault("status", path="/other", code=500))
    assert [ask(proxy)[0] for _ in range(4)] == [200, 500, 500, 200]


def test_delays(proxy: FaultProxy) -> None:
    proxy.inject(Fault("delay", seconds=0.2))
    start = time.monotonic()
    assert ask(proxy) == (200, BODY)
    assert time.monotonic() - start >= 0.2
