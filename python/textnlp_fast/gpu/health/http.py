"""One HTTP/1.1 request, with a deadline over all of it and a bound on what comes back.

Written on streams because a thread cannot be called back from a server that trickles bytes; a task can. Redirects are
not followed: they could lead a token or a finding anywhere.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError

__all__ = ["Answer", "checked_url", "request"]

_MOST_HEADERS: Final = 100
_MOST_LINE: Final = 16384


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in lower case; of several the last."""
    body: bytes = b""

    def json(self) -> Any:
        """Raises ProviderUnavailableError for what is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise ProviderUnavailableError(
                "the answer is no JSON", hint="Check what listens there."
            ) from None


def checked_url(url: str) -> SplitResult:
    """The parts of an http(s) URL. Raises InvalidInputError for others, and for one with credentials in it."""
    if not isinstance(url, str):
        raise InvalidInputError(f"{url!r:.100} is no URL", hint="Give http://host:port/path or https://...")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or any(ord(c) <= 32 for c in url):
        raise InvalidInputError(f"{url!r} is no URL", hint="Give http://host:port/path or https://...")
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError(
            "the URL carries credentials", hint="Pass them as headers, from the environment."
        )
    return parts


async def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout_s: float = 10.0,
    limit_bytes: int = 8 << 20,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """The answer to a request, whatever its status.

    Raises ProviderUnavailableError where none came within `timeout_s`, it was larger than `limit_bytes`, or was not
    HTTP.
    """
    parts = checked_url(url)
    where = f"{parts.scheme}://{parts.netloc}{parts.path}"
    try:
        return await asyncio.wait_for(
            _exchange(method, parts, dict(headers or {}), body, limit_bytes, context), timeout_s
        )
    except (asyncio.TimeoutError, TimeoutError):
        raise ProviderUnavailableError(f"{where} did not answer within {timeout_s:g} s") from None
    except ConnectionRefusedError:
        raise ProviderUnavailableError(f"nothing listens at {where}") from None
    except (OSError, EOFError, ValueError) as error:
        raise ProviderUnavailableError(f"{where}: {type(error).__name__}: {error}"[:300]) from None


async def _exchange(
    method: str,
    parts: SplitResult,
    headers: dict[str, str],
    body: bytes,
    limit_bytes: int,
    context: ssl.SSLContext | None,
) -> Answer:
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    assert parts.hostname is not None
    reader, writer = await asyncio.open_connection(
        parts.hostname,
        port,
        ssl=(context or ssl.create_default_context()) if secure else None,
        limit=_MOST_LINE,
    )
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {target} HTTP/1.1"]
        headers = {"Host": parts.netloc, "User-Agent": "textnlp-fast", "Accept": "*/*"} | headers
        if body or method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(len(body))
        headers["Connection"] = "close"
        for name, value in headers.items():
            if any(ord(c) < 32 or ord(c) == 127 for c in f"{name}{value}"):
                raise ValueError(f"header {name!r} has a control character")
            lines.append(f"{name}: {value}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body)
        await writer.drain()
        return await _answer(reader, method, limit_bytes)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, method: str, limit_bytes: int) -> Answer:
    while True:
        status_line = await _line(reader)
        words = status_line.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
            raise ValueError("what answers does not speak HTTP")
        status = int(words[1])
        headers: dict[str, str] = {}
        for _ in range(_MOST_HEADERS + 1):
            line = await _line(reader)
            if not line:
                break
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("a header has no name")
            headers[name.strip().lower()] = value.strip()
        else:
            raise ValueError(f"more than {_MOST_HEADERS} headers")
        if not 100 <= status < 200:
            break
    if method == "HEAD" or status in (204, 304):
        return Answer(status, headers)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Answer(status, headers, await _chunked(reader, limit_bytes))
    length = headers.get("content-length")
    if length is not None:
        if not length.isdecimal() or len(length) > 18 or int(length) > limit_bytes:
            raise ValueError(f"a body of {length[:20]} bytes; {limit_bytes} are allowed")
        return Answer(status, headers, await reader.readexactly(int(length)))
    body = bytearray()
    while piece := await reader.read(65536):
        body += piece
        if len(body) > limit_bytes:
            raise ValueError(f"a body of more than {limit_bytes} bytes")
    return Answer(status, headers, bytes(body))


async def _chunked(reader: asyncio.StreamReader, limit_bytes: int) -> bytes:
    body = bytearray()
    while True:
        word = (await _line(reader)).partition(";")[0].strip()
        if not word or len(word) > 16 or any(c not in "0123456789abcdefABCDEF" for c in word):
            raise ValueError("a chunk without a size")
        size = int(word, 16)
        if len(body) + size > limit_bytes:
            raise ValueError(f"a body of more than {limit_bytes} bytes")
        if size == 0:
            return bytes(body)
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk is longer than it says")


async def _line(reader: asyncio.StreamReader) -> str:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise ValueError("a line is too long") from None
    return line.rstrip(b"\r\n").decode("latin-1")
