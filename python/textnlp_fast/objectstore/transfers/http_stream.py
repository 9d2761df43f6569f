"""HTTP/1.1 straight on sockets: bodies go to and from memory that is there already.

The usual clients copy every byte a few times and tell nobody how a request is coming along. Here a body arrives where
it is wanted, piece by piece, and between two pieces the transfer may wait, stop, or find that nothing moves.
Addresses, signatures and retries are decided by others.
"""

from __future__ import annotations

import http.client
import io
import os
import select
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from textnlp_fast.errors import (
    AuthenticationError,
    InvalidInputError,
    SourceChangedError,
    StorageUnavailableError,
    TextnlpFastError,
    UntrustedServerError,
)
from textnlp_fast.objectstore.endpoints import authorities
from textnlp_fast.objectstore.transfers.protocol import BackOffError

if TYPE_CHECKING:
    from textnlp_fast.objectstore.transfers.part_body import PartBody
    from textnlp_fast.objectstore.transfers.protocol import Take
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["Answer", "HttpStreams", "goes_through_proxy"]

_POLL_S: Final = 0.5  # how often a silent socket looks whether the transfer still wants it
_PIECE_BYTES: Final = 256 << 10
_SENDFILE_BYTES: Final = 1 << 20
_LONGEST_HEAD_BYTES: Final = 64 << 10
_LONGEST_TEXT_BYTES: Final = 1 << 20  # of answers that are no content
_PATIENCE: Final = {408, 429, 500, 502, 503, 504}


def goes_through_proxy(url: str) -> bool:
    """Whether the environment says that this URL is reached through a proxy, which these streams cannot."""
    parts = urlsplit(url)
    return parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(
        parts.hostname or ""
    )


@dataclass(slots=True)
class Answer:
    """Status and headers (names in lower case) of an answer, and its body unless that went elsewhere."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    def raise_for(self, doing: str) -> None:
        """Raises what an answer without success means."""
        text = " ".join(self.body[:300].decode("utf-8", "replace").split())
        message = f"{doing}: HTTP status {self.status}{': ' + text if text else ''}"
        if self.status in _PATIENCE:
            error = BackOffError(message)
            with suppress(ValueError):
                error.retry_after_s = max(0.0, float(self.headers.get("retry-after", "")))
            raise error
        if self.status in {401, 403}:
            raise AuthenticationError(message)
        if 400 <= self.status < 500:
            raise InvalidInputError(message)
        raise StorageUnavailableError(message)


class HttpStreams:
    """Connections that are used again. Thread-safe: each request has one for itself."""

    def __init__(self, context: ssl.SSLContext | None = None, *, connect_timeout_s: float = 10.0) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[tuple[str, str], list[socket.socket]] = {}
        self._lock = threading.Lock()
        self._context = context

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: PartBody | None = None,
        body_from: int = 0,
        buffer: memoryview | None = None,
        take: Take | None = None,
        take_status: int = 206,
        watch: StreamWatch,
    ) -> Answer:
        """Sends one request; never twice.

        An answer of status ``take_status`` has its body read into ``buffer``, again and again, and handed to ``take``
        with its offset in the body; others come back whole. A connection of before that turns out to be closed is
        replaced if nothing was sent that way.
        """
        parts = urlsplit(url)
        connection, used = self._connection(parts)
        try:
            try:
                answer, lasts = _exchange(
                    connection, method, parts, headers, (body, body_from), buffer, take, take_status, watch
                )
            except _ClosedEarlyError:
                connection.close()
                if not used or watch.total_bytes:
                    raise
                connection = self._connect(parts)
                answer, lasts = _exchange(
                    connection, method, parts, headers, (body, body_from), buffer, take, take_status, watch
                )
        except TextnlpFastError:
            connection.close()  # a timeout of the whole transfer is an OSError, too
            raise
        except (OSError, http.client.HTTPException, _ClosedEarlyError) as error:
            connection.close()
            kind = BackOffError if isinstance(error, TimeoutError) else StorageUnavailableError
            raise kind(f"cannot {method} {_shown(parts)}: {error or type(error).__name__}") from error
        except BaseException:
            connection.close()
            raise
        if lasts:
            with self._lock:
                self._idle.setdefault((parts.scheme, parts.netloc), []).append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Closes what is idle."""
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    def _connection(self, parts: SplitResult) -> tuple[socket.socket, bool]:
        with self._lock:
            idle = self._idle.get((parts.scheme, parts.netloc))
            if idle:
                return idle.pop(), True
        return self._connect(parts), False

    def _connect(self, parts: SplitResult) -> socket.socket:
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme == "https" and self._context is None:
            self._context = _context()
        try:
            connection = socket.create_connection((host, port), timeout=self._connect_timeout_s)
        except OSError as error:
            raise StorageUnavailableError(f"cannot connect to {parts.netloc}: {error}") from error
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme == "https":
                assert self._context is not None
                connection = self._context.wrap_socket(connection, server_hostname=host)
        except OSError as error:
            connection.close()
            known = isinstance(error, ssl.SSLCertVerificationError)
            kind = UntrustedServerError if known else StorageUnavailableError
            raise kind(f"cannot connect to {parts.netloc}: {error}") from error
        connection.settimeout(_POLL_S)
        return connection


class _ClosedEarlyError(Exception):
    """The other side closed the connection before it had answered."""


def _context() -> ssl.SSLContext:
    authorities("AWS_CA_BUNDLE")
    # The one variable that AWS's tools honour, beside those that OpenSSL does.
    return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)


def _shown(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc}{parts.path}"  # the rest of a signed URL is a secret


def _exchange(
    connection: socket.socket,
    method: str,
    parts: SplitResult,
    headers: Mapping[str, str],
    body: tuple[PartBody | None, int],
    buffer: memoryview | None,
    take: Take | None,
    take_status: int,
    watch: StreamWatch,
) -> tuple[Answer, bool]:
    """One request and its answer, and whether the connection can be used again."""
    target = parts.path or "/"
    if parts.query:
        target = f"{target}?{parts.query}"
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in {name.lower() for name in headers}:
        lines.append(f"Host: {parts.netloc}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any(character in line for line in lines for character in "\r\n"):
        raise InvalidInputError("a header holds a line break")
    head = "\r\n".join([*lines, "", ""])
    try:
        _send(connection, memoryview(head.encode("latin-1")), watch, counts=False)
        if body[0] is not None:
            _send_body(connection, body[0], body[1], watch)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise _ClosedEarlyError(str(error)) from error
    status, fields, rest = _read_head(connection, watch)
    reader = _Body(connection, rest, fields, method, status, watch)
    if take is not None and buffer is not None and status == take_status:
        reader.stream(buffer, take)
        return Answer(status, fields), reader.lasts
    return Answer(status, fields, reader.whole()), reader.lasts


def _send(connection: socket.socket, data: memoryview, watch: StreamWatch, *, counts: bool) -> None:
    done = 0
    while done < len(data):
        try:
            sent = connection.send(data[done : done + _PIECE_BYTES])
        except TimeoutError:
            watch.idle()
            continue
        done += sent
        if counts:
            watch.passed(sent)


def _send_body(connection: socket.socket, body: PartBody, begin: int, watch: StreamWatch) -> None:
    """Sends a part from byte ``begin`` on: by the kernel alone where nothing is encrypted."""
    if isinstance(connection, ssl.SSLSocket):
        piece = memoryview(bytearray(_PIECE_BYTES))
        while begin < len(body):
            view = piece[: min(len(piece), len(body) - begin)]
            body.read_into(begin, view)
            _send(connection, view, watch, counts=True)
            begin += len(view)
        return
    ready = select.poll()
    ready.register(connection, select.POLLOUT)
    while begin < len(body):
        count = min(_SENDFILE_BYTES, len(body) - begin)
        try:
            sent = os.sendfile(connection.fileno(), body.fd, body.offset + begin, count)
        except BlockingIOError:
            if not ready.poll(_POLL_S * 1000):
                watch.idle()
            continue
        if not sent:
            raise SourceChangedError("the file became shorter while it was sent")
        begin += sent
        watch.passed(sent)


def _receive(connection: socket.socket, view: memoryview, watch: StreamWatch) -> int:
    while True:
        try:
            return connection.recv_into(view)
        except TimeoutError:
            watch.idle()


def _read_head(connection: socket.socket, watch: StreamWatch) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name, and what came of the body with them."""
    got = bytearray()
    piece = memoryview(bytearray(16 << 10))
    while True:
        end = got.find(b"\r\n\r\n")
        if end >= 0:
            status, fields = _parse_head(bytes(got[: end + 4]))
            if status >= 200:
                return status, fields, bytes(got[end + 4 :])
            del got[: end + 4]  # 100 Continue and its like
            continue
        if len(got) > _LONGEST_HEAD_BYTES:
            raise http.client.HTTPException("the answer's headers do not end")
        try:
            count = _receive(connection, piece, watch)
        except ConnectionResetError as error:
            raise _ClosedEarlyError(str(error)) from error
        if not count:
            raise _ClosedEarlyError("the connection was closed before an answer came")
        got += piece[:count]


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    line, _, rest = head.partition(b"\r\n")
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise http.client.HTTPException(f"no HTTP answer: {line[:80]!r}")
    message = http.client.parse_headers(io.BytesIO(rest))
    fields = {name.lower(): value for name, value in message.items()}
    if words[0] == b"HTTP/1.0":
        fields.setdefault("connection", "close")
    return int(words[1]), fields


class _Body:
    """The body of an answer: of a given length, in chunks, or up to the end of the connection."""

    def __init__(
        self,
        connection: socket.socket,
        rest: bytes,
        fields: Mapping[str, str],
        method: str,
        status: int,
        watch: StreamWatch,
    ) -> None:
        self._connection = connection
        self._rest = rest
        self._watch = watch
        self._chunked = "chunked" in fields.get("transfer-encoding", "").lower()
        length = fields.get("content-length")
        self._left: int | None = None
        if method == "HEAD" or status in {204, 304}:
            self._left, self._chunked = 0, False
        elif length is not None and not self._chunked:
            if not length.isdigit():
                raise http.client.HTTPException(f"a content length of {length[:40]!r}")
            self._left = int(length)
        closes = "close" in fields.get("connection", "").lower()
        self.lasts = not closes and (self._left is not None or self._chunked)

    def stream(self, buffer: memoryview, take: Take) -> None:
        """Hands the body to ``take``, piece by piece."""
        if self._chunked:
            raise http.client.HTTPException("a range came in chunks, without its length")
        offset = 0
        while self._left is None or self._left > 0:
            count = self._some(buffer)
            if not count:
                break
            # Counted first, so that whoever waits for bandwidth or is stopped has the bytes already.
            take(offset, buffer[:count])
            offset += count
            self._watch.passed(count)
        if self._left:
            raise StorageUnavailableError(f"the answer broke off {self._left} bytes before its end")

    def whole(self) -> bytes:
        """The body of an answer that is no content."""
        body = bytearray()
        view = memoryview(bytearray(16 << 10))
        while self._left is None or self._left > 0:
            count = self._some(view)
            body += view[:count]
            if self._chunked and body.endswith(b"0\r\n\r\n") and (len(body) == 5 or body[-7:-5] == b"\r\n"):
                return _joined_chunks(bytes(body))
            if not count:
                break
            if len(body) > _LONGEST_TEXT_BYTES:
                raise http.client.HTTPException("an answer that should be short does not end")
        if self._left or self._chunked:
            raise StorageUnavailableError("the answer broke off")
        return bytes(body)

    def _some(self, view: memoryview) -> int:
        if self._left is not None:
            view = view[: self._left]
        if self._rest:
            count = min(len(view), len(self._rest))
            view[:count] = self._rest[:count]
            self._rest = self._rest[count:]
        else:
            try:
                count = _receive(self._connection, view, self._watch)
            except ssl.SSLEOFError:
                count = 0
        if self._left is not None:
            self._left -= count
        return count


def _joined_chunks(body: bytes) -> bytes:
    joined, place = bytearray(), 0
    while True:
        end = body.find(b"\r\n", place)
        digits = body[place:end].split(b";")[0].strip() if end >= 0 else b""
        if not 0 < len(digits) <= 8 or digits.strip(b"0123456789abcdefABCDEF"):
            raise http.client.HTTPException("a chunk without a length")
        size = int(digits, 16)
        if not size:
            return bytes(joined)
        joined += body[end + 2 : end + 2 + size]
        place = end + 4 + size
