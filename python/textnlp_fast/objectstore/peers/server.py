"""Serves a node's pieces to others: read-only, over plain HTTP, to who has the token.

`peer_client` says what may be asked.
"""

from __future__ import annotations

import functools
import hmac
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDoneError
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from textnlp_fast.errors import InvalidInputError, MissingObjectError, TextnlpFastError
from textnlp_fast.objectstore.endpoints import is_loopback
from textnlp_fast.objectstore.peers.peer_client import bits, from_bits
from textnlp_fast.objectstore.peers.pieces import Layout, key_of
from textnlp_fast.objectstore.peers.swarm import Swarm

__all__ = ["NodeServer"]

_WAIT_S: Final = 1.0
_SOCKET_S: Final = 15.0
_MOST_AT_ONCE: Final = 512
_LONGEST_PATH: Final = 2048


class _Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class NodeServer:
    """Listens at `host`, `port` from its making on; `serve` answers until `close`.

    Raises InvalidInputError where it would serve other machines without a token, and where it cannot listen.
    """

    def __init__(self, swarm: Swarm, host: str, port: int, *, token: str | None, name: str = "") -> None:
        if token is None and not is_loopback(host):
            raise InvalidInputError(
                f"{host} is reached from other machines, and there is no token",
                hint="Set TEXTNLP_FAST_PEER_TOKEN to the same secret on all nodes.",
            )
        self._swarm = swarm
        self._token = token
        self._name = name
        self._relaying = ThreadPoolExecutor(16, thread_name_prefix="peers-relay")
        self._pending: dict[object, Future[Any]] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self.served_bytes = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _SOCKET_S
            # A connection a request: a thousand nodes that keep theirs would be a thousand threads that wait.
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, format: str, *arguments: object) -> None:
                """Metrics tell."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def process_request(self, request: Any, client_address: Any) -> None:
                if not outer._slots.acquire(blocking=False):
                    self.shutdown_request(request)  # asked elsewhere, or again
                    return
                super().process_request(request, client_address)

            def process_request_thread(self, request: Any, client_address: Any) -> None:
                try:
                    super().process_request_thread(request, client_address)
                finally:
                    outer._slots.release()

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Who asked has gone; whatever else it was, the answer was refused or cut, which is checked there."""

        try:
            self._server = Server((host, port), Handler)
        except (OSError, OverflowError) as error:  # the second for ports that are none
            raise InvalidInputError(
                f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}",
                hint="Does a node cache run there already? 0 takes any port that is free.",
            ) from None
        self.port = int(self._server.server_address[1])

    def serve(self) -> None:
        """Answers until `close` is called from another thread."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Stops listening, and ends what waits."""
        self._server.shutdown()
        self._server.server_close()
        self._relaying.shutdown(wait=False, cancel_futures=True)
        self._swarm.close()

    # --- answers --------------------------------------------------------------------------------------------

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        try:
            self._check(request)
            status, kind, body = self._document(request.path)
        except _Refused as refused:
            status, kind, body = refused.status, "text/plain", f"{refused}\n".encode()
        except InvalidInputError as error:
            status, kind, body = 400, "text/plain", f"{error.args[0]}\n".encode()
        except MissingObjectError:
            status, kind, body = 404, "text/plain", b"no such object\n"
        except TextnlpFastError as error:
            # The origin's trouble: whoever asked will ask it, and hear of it there.
            status, kind, body = 503, "text/plain", f"{type(error).__name__}\n".encode()
        with suppress(OSError):
            request.send_response_only(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ):
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(body)
            self.served_bytes += len(body) if kind == "application/octet-stream" else 0

    def _check(self, request: BaseHTTPRequestHandler) -> None:
        if len(request.path) > _LONGEST_PATH:
            raise _Refused(414, "the path is too long")
        if request.path == "/healthz":
            return
        if self._name and request.headers.get("X-Node") == self._name:
            raise _Refused(421, "this is yourself")
        given = request.headers.get("Authorization", "")
        if self._token is not None and not hmac.compare_digest(
            given.encode("latin-1", "replace"), f"Bearer {self._token}".encode()
        ):
            raise _Refused(401, "the token is missing or wrong")

    def _document(self, path: str) -> tuple[int, str, bytes]:
        parts = urlsplit(path)
        words = parts.path.strip("/").split("/")
        if words == ["healthz"]:
            return 200, "text/plain", b"ok\n"
        if words == ["metrics"]:
            return 200, "text/plain; version=0.0.4", self._metrics().encode()
        if len(words) not in (4, 5) or words[:2] != ["v1", "objects"]:
            raise _Refused(404, "there are /v1/objects/..., /metrics and /healthz")
        digest, what = words[2], words[3]
        key_of(digest)
        query = {name: values[-1] for name, values in parse_qs(parts.query, max_num_fields=8).items()}
        layout = Layout(_number(query.get("size")))
        ask = query.get("ask", "have")
        if what == "map":
            return self._found(bits(self._held(digest, layout)))
        if what == "values":
            return self._values(digest, layout, ask)
        if what == "claims":
            return self._claims(digest, layout, query.get("pieces", ""))
        if what == "pieces" and len(words) == 5:
            return self._piece(digest, layout, _number(words[4]), ask)
        raise _Refused(404, "there are pieces, map, values and claims")

    def _piece(self, digest: str, layout: Layout, piece: int, ask: str) -> tuple[int, str, bytes]:
        layout.length(piece)
        cache = self._swarm.cache
        found = None if cache is None else cache.get(digest, layout, piece)
        if found is not None:
            return self._found(found)
        if ask == "have":
            raise _Refused(404, "not here")
        self._check_size(digest, layout)
        if ask == "home":
            return self._soon(
                ("fill", digest, piece), self._swarm.filling, lambda: self._swarm.fill(digest, layout, piece)
            )
        self._swarm.prefetch(digest, layout)
        return self._soon(
            ("relay", digest, piece), self._relaying, lambda: self._swarm.piece(digest, layout, piece)
        )

    def _values(self, digest: str, layout: Layout, ask: str) -> tuple[int, str, bytes]:
        known = self._swarm.lists.known(digest, layout)
        if known is not None:
            return self._found(known.values)
        if ask == "have":
            raise _Refused(404, "not here")
        self._check_size(digest, layout)
        if ask == "home":
            self._swarm.lists.start_collecting(digest, layout, self._swarm.collecting)
            return 202, "text/plain", b"coming\n"

        def wait() -> bytes:
            found = self._swarm.lists.wait_for(digest, layout)
            if found is None:
                raise _Refused(404, "not to be had")
            return found.values

        return self._soon(("values", digest), self._relaying, wait)

    def _claims(self, digest: str, layout: Layout, pieces: str) -> tuple[int, str, bytes]:
        self._check_size(digest, layout)
        try:
            wanted = [
                piece for piece, flag in enumerate(from_bits(bytes.fromhex(pieces), layout.count)) if flag
            ]
        except ValueError:
            raise _Refused(400, "the pieces are no bits in hex") from None
        futures = {
            piece: self._future(
                ("claim", digest, piece),
                self._swarm.filling,
                functools.partial(self._swarm.claim, digest, layout, piece),
            )
            for piece in wanted
        }
        found: dict[int, str] = {}
        for piece, future in futures.items():
            with suppress(NotDoneError):
                found[piece] = future.result(0 if found else _WAIT_S).hex()
        return 200, "application/json", json.dumps(found).encode()

    # --- work that takes a while ----------------------------------------------------------------------------

    def _soon(
        self, key: object, pool: ThreadPoolExecutor, work: Callable[[], bytes]
    ) -> tuple[int, str, bytes]:
        """The result, or "coming" after a moment: who asks again finds the same work under way."""
        try:
            return self._found(self._future(key, pool, work).result(_WAIT_S))
        except NotDoneError:
            return 202, "text/plain", b"coming\n"

    def _future(self, key: object, pool: ThreadPoolExecutor, work: Callable[[], bytes]) -> Future[bytes]:
        with self._lock:
            pending = self._pending.get(key)
            if pending is not None:
                return pending
            future = self._pending[key] = pool.submit(work)
        future.add_done_callback(lambda _: self._forget(key))
        return future

    def _forget(self, key: object) -> None:
        with self._lock:
            self._pending.pop(key, None)

    # --- smaller things -------------------------------------------------------------------------------------

    def _found(self, body: bytes) -> tuple[int, str, bytes]:
        return 200, "application/octet-stream", body

    def _held(self, digest: str, layout: Layout) -> list[bool]:
        cache = self._swarm.cache
        return [False] * layout.count if cache is None else cache.held(digest, layout)

    def _check_size(self, digest: str, layout: Layout) -> None:
        """Nothing is fetched for an object that is not there, or not of that size."""
        if self._swarm.origin.size(digest) != layout.size_bytes:
            raise _Refused(400, "the object has another size")

    def _metrics(self) -> str:
        lines = ["# TYPE textnlp_fast_node_read_bytes_total counter"]
        for source in ("cache", "peers", "origin"):
            lines.append(
                f'textnlp_fast_node_read_bytes_total{{source="{source}"}} {self._swarm.read_bytes[source]}'
            )
        figures = {
            "textnlp_fast_node_origin_bytes_total": ("counter", self._swarm.origin.read_bytes),
            "textnlp_fast_node_served_bytes_total": ("counter", self.served_bytes),
            "textnlp_fast_node_peers": ("gauge", len(self._swarm.members.others())),
            "textnlp_fast_node_peers_that_lied": ("gauge", len(self._swarm.members.banned())),
        }
        for name, (kind, value) in figures.items():
            lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
        if self._swarm.members.banned():
            lines.append("# TYPE textnlp_fast_node_peer_lied gauge")
        lines += [f'textnlp_fast_node_peer_lied{{peer="{one}"}} 1' for one in self._swarm.members.banned()]
        return "\n".join(lines) + "\n"


def _number(word: str | None) -> int:
    if word is None or not word.isascii() or not word.isdecimal() or len(word) > 15:
        raise _Refused(400, "a number is missing")
    return int(word)
