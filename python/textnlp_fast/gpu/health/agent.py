"""Serves a machine's readings and events over HTTP: `/metrics`, `/readings`, `/events`, `/healthz`.

One answer a connection, whose request must be whole within a deadline: who sends it byte by byte, or opens many
connections and says nothing, holds up nobody but himself.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.health.addresses import guarded, host_name, is_loopback, listening
from textnlp_fast.gpu.health.collector import Collector
from textnlp_fast.gpu.health.exposition import CONTENT_TYPE, exposition
from textnlp_fast.gpu.health.facts import Event

__all__ = ["DEFAULT_PORT", "Agent", "EventLog"]

DEFAULT_PORT: Final = 9401
#: Of the documents that `/readings` and `/events` give.
FORMAT: Final = 1
_MOST_EVENTS: Final = 4096
_MOST_IN_ANSWER: Final = 1000
_MOST_XID_KINDS: Final = 1000
_MOST_HEAD_BYTES: Final = 8192
_LONGEST_WAIT_S: Final = 30.0
_ANSWER_S: Final = 10.0
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class EventLog:
    """The newest events under numbers that only grow, for any number of readers. Thread-safe."""

    def __init__(self, most: int = _MOST_EVENTS) -> None:
        self.run = secrets.token_hex(8)
        """Another in each run of the agent: numbers begin anew with it."""
        self._events: deque[tuple[int, Event]] = deque(maxlen=most)
        self._last = 0
        self._came = threading.Condition()
        self._closed = False
        self.kinds: Counter[str] = Counter()
        self.xids: Counter[tuple[str, int]] = Counter()
        self.last_xids: dict[str, int] = {}

    def add(self, event: Event) -> None:
        with self._came:
            self._last += 1
            self._events.append((self._last, event))
            self.kinds[event.kind] += 1
            if event.kind == "xid" and event.code is not None:
                gpu = event.gpu or event.details.get("pci", "")
                if (gpu, event.code) in self.xids or len(self.xids) < _MOST_XID_KINDS:
                    self.xids[gpu, event.code] += 1
                if gpu in self.last_xids or len(self.last_xids) < _MOST_XID_KINDS:
                    self.last_xids[gpu] = event.code
            self._came.notify_all()

    def after(self, number: int, wait_s: float) -> dict[str, Any]:
        """The events behind ``number``, the oldest first and not too many; waits for one if there is none.

        ``next`` is what to ask for next, ``missed`` how many went before they were asked for.
        """
        with self._came:
            self._came.wait_for(lambda: self._last > number or self._closed, wait_s)
            first = self._events[0][0] if self._events else self._last + 1
            found = [pair for pair in self._events if pair[0] > number][:_MOST_IN_ANSWER]
            return {
                "run": self.run,
                "next": found[-1][0] if found else self._last,
                "missed": max(0, first - 1 - number),
                "events": [{"id": each, **asdict(event)} for each, event in found],
            }

    def counts(self) -> tuple[dict[str, int], dict[tuple[str, int], int], dict[str, int]]:
        """By kind; XIDs by GPU and number; the last XID of each GPU."""
        with self._came:
            return dict(self.kinds), dict(self.xids), dict(self.last_xids)

    def close(self) -> None:
        """Ends all waits."""
        with self._came:
            self._closed = True
            self._came.notify_all()


class _Refused(Exception):
    """A request that gets another answer than it asked for."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Agent:
    """Serves what ``collector`` reads until :meth:`close`, which leaves the collector running.

    Listens on ``host`` and ``port`` (0: any that is free). With ``token``, requests must carry
    ``Authorization: Bearer TOKEN``; an address that other machines reach needs one. Nothing is encrypted: beyond a
    network that you trust, put a proxy with TLS in front. At most ``most_connections`` are served at once; a request
    must be there within ``request_timeout_s``.

    Raises InvalidInputError for an address without the token that it needs, and for one that it cannot listen on.
    """

    def __init__(
        self,
        collector: Collector,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        token: str | None = None,
        most_connections: int = 32,
        request_timeout_s: float = 5.0,
    ) -> None:
        family, address = guarded(host, port, token)
        self._collector = collector
        self._token = token
        self._request_timeout_s = request_timeout_s
        self._free = threading.BoundedSemaphore(most_connections)
        # A wait for events holds its connection for long: some are kept for those who come to scrape.
        self._may_wait = threading.BoundedSemaphore(max(1, most_connections // 2))
        self._stopping = threading.Event()
        self.events = EventLog()
        self._listener = listening(family, address, host)
        self.host: str = self._listener.getsockname()[0]
        self.port: int = self._listener.getsockname()[1]
        self._names = {host.lower(), self.host.lower(), "localhost"}
        self._threads = [
            threading.Thread(target=self._take_events, name="agent-events", daemon=True),
            threading.Thread(target=self._listen, name="agent-listen", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def close(self) -> None:
        """Stops listening; answers that are under way are given up."""
        self._stopping.set()
        self.events.close()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- threads ------------------------------------------------------------------------------------------

    def _take_events(self) -> None:
        while not self._stopping.is_set():
            try:
                events = self._collector.events(timeout_s=0.5)
            except InvalidInputError:  # the collector was closed before the agent
                return
            for event in events:
                self.events.add(event)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if not self._stopping.is_set():
                    time.sleep(0.05)  # out of descriptors, say: the next try may find one
                continue
            if not self._free.acquire(blocking=False):
                with connection, suppress(OSError):
                    connection.setblocking(False)
                    connection.send(_answer(503, "text/plain", b"too many connections\n"))
                continue
            try:
                threading.Thread(
                    target=self._serve, args=(connection,), name="agent-answer", daemon=True
                ).start()
            except RuntimeError:  # no thread is to be had
                connection.close()
                self._free.release()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                try:
                    status, kind, body, head_only = self._answer_to(connection)
                except _Refused as refused:
                    status, kind, body, head_only = (
                        refused.status,
                        "text/plain",
                        f"{refused}\n".encode(),
                        False,
                    )
                # For all of it: a reader that takes a byte now and then ends here, too.
                connection.settimeout(_ANSWER_S)
                connection.sendall(_answer(status, kind, body, head_only=head_only))
                _linger(connection)
        finally:
            self._free.release()

    def _answer_to(self, connection: socket.socket) -> tuple[int, str, bytes, bool]:
        method, target, headers = _request(connection, time.monotonic() + self._request_timeout_s)
        if method not in ("GET", "HEAD"):
            raise _Refused(405, "only GET and HEAD are answered here")
        self._check(headers)
        parts = urlsplit(target)
        query = parse_qs(parts.query, max_num_fields=16)
        if parts.path == "/metrics":
            kind, body = CONTENT_TYPE, self._metrics().encode(errors="replace")
        elif parts.path == "/readings":
            kind, body = "application/json", _json(self._readings())
        elif parts.path == "/events":
            kind, body = "application/json", _json(self._events(query))
        elif parts.path == "/healthz":
            kind, body = "text/plain", b"ok\n"
        else:
            raise _Refused(404, "there are /metrics, /readings, /events and /healthz")
        return 200, kind, body, method == "HEAD"

    def _check(self, headers: dict[str, str]) -> None:
        if self._token is not None:
            given = headers.get("authorization", "")
            if not hmac.compare_digest(given.encode("latin-1"), f"Bearer {self._token}".encode("latin-1")):
                raise _Refused(401, "the token is missing or wrong")
            return
        # A page in a browser of this machine may send requests here under a name of its own; not under these.
        name = host_name(headers.get("host", ""))
        if name not in self._names and not is_loopback(name):
            raise _Refused(403, "the host is not this machine")

    # --- documents ----------------------------------------------------------------------------------------

    def _metrics(self) -> str:
        state = self._collector.state()
        kinds, xids, last_xids = self.events.counts()
        return exposition(
            self._collector.readings(),
            driver_version=state.driver_version,
            ready=state.ready,
            hung=state.hung,
            rounds=state.rounds,
            xids=xids,
            last_xids=last_xids,
            events=kinds,
        )

    def _readings(self) -> dict[str, Any]:
        readings = [asdict(reading) for reading in self._collector.readings()]
        return {
            "format": FORMAT,
            "machine": self._collector.machine,
            "at_s": time.time(),
            "collector": asdict(self._collector.state()),
            "readings": readings,
        }

    def _events(self, query: dict[str, list[str]]) -> dict[str, Any]:
        after = _number(query, "after", 0, 1 << 62)
        wait_s = _number(query, "wait_s", 0, _LONGEST_WAIT_S)
        waits = wait_s > 0 and self._may_wait.acquire(blocking=False)
        try:
            found = self.events.after(int(after), wait_s if waits else 0)
        finally:
            if waits:
                self._may_wait.release()
        return {"format": FORMAT, "machine": self._collector.machine, "at_s": time.time(), **found}


def _request(connection: socket.socket, deadline: float) -> tuple[str, str, dict[str, str]]:
    """Method, target and headers. Raises _Refused if they are not there, whole and small, by the deadline."""
    data = b""
    while b"\r\n\r\n" not in data:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _Refused(408, "the request took too long")
        if len(data) > _MOST_HEAD_BYTES:
            raise _Refused(431, "the request is too long")
        connection.settimeout(left)
        try:
            more = connection.recv(4096)
        except TimeoutError:
            raise _Refused(408, "the request took too long") from None
        if not more:
            raise _Refused(400, "the request ended early")
        data += more
    head = data.partition(b"\r\n\r\n")[0].decode("latin-1")
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise _Refused(400, "this is no HTTP request")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _Refused(400, "a header is malformed")
        headers[name.lower()] = value.strip()
    return words[0], words[1], headers


def _answer(status: int, kind: str, body: bytes, *, head_only: bool = False) -> bytes:
    more = "WWW-Authenticate: Bearer\r\n" if status == 401 else ""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"{more}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if head_only else body)


def _linger(connection: socket.socket) -> None:
    """Lets the answer arrive: closing over bytes that were not read would reset the connection under it."""
    connection.shutdown(socket.SHUT_WR)
    end = time.monotonic() + 1
    for _ in range(64):
        connection.settimeout(max(0.001, end - time.monotonic()))
        if not connection.recv(4096):
            return


def _number(query: dict[str, list[str]], name: str, least: float, most: float) -> float:
    text = query.get(name, ["0"])[-1]
    try:
        value = int(text) if name == "after" else float(text)
    except ValueError:
        value = -1
    if not least <= value <= most:  # not a number is neither
        raise _Refused(400, f"{name} must be a number from {least:g} to {most:g}")
    return value


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
