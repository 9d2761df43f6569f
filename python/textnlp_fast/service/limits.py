"""How much one caller may ask for, how large a request may be, and under which names the service answers."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from textnlp_fast.errors import TextnlpFastError
from textnlp_fast.service.config import ServiceConfig, is_address, is_loopback_name
from textnlp_fast.service.problems import (
    MalformedRequestError,
    RequestTooLargeError,
    ServiceTimeoutError,
    TargetTooLongError,
    TooManyRequestsError,
    UntrustedOriginError,
    problem_of,
    problem_response,
)

__all__ = ["Gate", "Limits", "Rates"]

_MOST_CALLERS: Final = 10_000
_BODY_S: Final = 30.0
_MOST_TARGET_BYTES: Final = 16 << 10
_MOST_LENGTH_DIGITS: Final = 18
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# A Host header: an address in brackets, or a name without what would begin another part of a URL; then a port.
_HOST: Final = re.compile(
    r"(?:\[(?P<address>[^\[\]/?#@\\\s]+)\]|(?P<name>[^\[\]:/?#@\\\s]*))(?::[0-9]{0,5})?"
)


class Rates:
    """A bucket of tokens a caller, refilled at `per_s`, `burst` at most. Of many callers the last ones are known."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Takes one; what is returned is 0, or the seconds until there is one."""
        now = time.monotonic()
        left, since = self._callers.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._callers[caller] = (left - 1 if left >= 1 else left, now)
        if len(self._callers) > _MOST_CALLERS:
            self._callers.popitem(last=False)
        return wait_s


class Limits:
    """Of this process alone: behind a balancer, each replica grants them anew."""

    def __init__(self, config: ServiceConfig) -> None:
        self._asked = Rates(config.requests_per_s, config.request_burst)
        self._failed = Rates(config.failures_per_s, config.failure_burst)

    def asked(self, subject: str) -> None:
        """A request of somebody who is known. Raises TooManyRequestsError."""
        self._check(self._asked.take(subject), f"{subject} asks for more than one caller may")

    def failed(self, address: str) -> None:
        """A request with credentials that are none. Raises TooManyRequestsError where there were many."""
        self._check(
            self._failed.take(address), "too many requests without a token that holds came from there"
        )

    @staticmethod
    def _check(wait_s: float, why: str) -> None:
        if wait_s:
            error = TooManyRequestsError(why)
            error.retry_after_s = wait_s
            raise error


class Gate:
    """ASGI middleware: the Host header, the page that asks, sizes of target and body, and headers of every answer.

    On loopback a page in a browser of this machine may reach the service under a name of its own that it lets point
    here (DNS rebinding), or send it requests without having the answers: neither gets past the names.
    """

    def __init__(self, app: ASGIApp, config: ServiceConfig) -> None:
        self._app = app
        self._most_bytes = config.body_bytes
        names = {name.lower() for name in config.allowed_hosts}
        # Reached by its address from other machines, it has names that nobody told it: there tokens decide.
        self._any_host = not config.is_loopback and not names
        self._names = names | {config.host.lower(), *(["localhost"] if config.is_loopback else [])}
        self._loopback = config.is_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_names(scope["method"], headers)
            _check_target(scope)
            body = _Body(receive, self._most_bytes, _length(headers))
        except TextnlpFastError as error:
            await problem_response(problem_of(error))(scope, receive, _with_headers(send))
            return
        await self._app(scope, body, _with_headers(send))

    def _check_names(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        name = _name(host)
        if len(headers.getlist("host")) > 1:
            raise MalformedRequestError("the request has several Host headers")
        if not self._any_host and not self._is_ours(name):
            raise UntrustedOriginError(
                "the service is not known under the name that it was asked by",
                hint="Ask it by its address, or start it with --allow-host NAME.",
            )
        if method in _SAFE:
            return
        origin = headers.get("origin")
        if origin is not None and not _is_of(origin, host):
            raise UntrustedOriginError("a page of another origin may change nothing here")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise UntrustedOriginError("a page of another site may change nothing here")

    def _is_ours(self, name: str) -> bool:
        if name in self._names or (self._loopback and is_loopback_name(name)):
            return True
        # No page can make an address its own name: that is how probes and scrapers ask.
        return not self._loopback and is_address(name)


class _Body:
    """Receives a request's body as long as it is not too large, and is there in time."""

    def __init__(self, receive: Receive, most_bytes: int, length: int | None) -> None:
        if length is not None and length > most_bytes:
            raise RequestTooLargeError(f"a request has at most {most_bytes} bytes")
        self._receive = receive
        self._left = most_bytes
        self._whole = False
        self._until = time.monotonic() + _BODY_S

    async def __call__(self) -> Message:
        if self._whole:  # what follows is the end of the connection, whenever that comes
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.001, self._until - time.monotonic()))
        except asyncio.TimeoutError:
            raise ServiceTimeoutError(f"the request was not there within {_BODY_S:g} s") from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise RequestTooLargeError("the request is larger than it said, and than is read")
            self._whole = not message.get("more_body", False)
        return message


_HEADERS: Final[Iterable[tuple[str, str]]] = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cache-Control", "no-store"),
)


def _with_headers(send: Send) -> Send:
    """Sends what every answer carries, unless the answer has said otherwise (the dashboard's pages do)."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS:
                headers.setdefault(name, value)
        await send(message)

    return sending


def _name(host: str) -> str:
    """The name of a Host header, without port and brackets. Raises MalformedRequestError."""
    found = _HOST.fullmatch(host)
    if found is None:
        raise MalformedRequestError(
            "the Host header is neither NAME:PORT nor [ADDRESS]:PORT", hint="Ask it by its address."
        )
    return (found["address"] or found["name"] or "").lower()


def _is_of(origin: str, host: str) -> bool:
    """Whether an Origin header is of the page of a host. Compared as text: what is no origin is of none."""
    _, mark, place = origin.partition("://")
    return bool(mark and place) and place.lower() == host.lower()


def _check_target(scope: Scope) -> None:
    path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    if len(path) + len(scope.get("query_string", b"")) > _MOST_TARGET_BYTES:
        raise TargetTooLongError(f"path and query of a request have at most {_MOST_TARGET_BYTES} bytes")


def _length(headers: Headers) -> int | None:
    """What Content-Length says. Raises MalformedRequestError where the end of the body is told twice, or not at all."""
    lengths = set(headers.getlist("content-length"))
    if not lengths:
        return None
    # A proxy that believes one of two and a server that believes the other see different requests.
    if "transfer-encoding" in headers or len(lengths) > 1:
        raise MalformedRequestError("the request says in two ways where its body ends")
    length = lengths.pop()
    if not length.isascii() or not length.isdecimal():
        raise MalformedRequestError("Content-Length is no number")
    return int(length) if len(length) <= _MOST_LENGTH_DIGITS else 10**_MOST_LENGTH_DIGITS
