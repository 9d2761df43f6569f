"""What a gateway is to be, as plain values that are checked once: whatever is written into HAProxy's language comes
from here, and nothing that could end a word of it gets in.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["BACKEND", "Endpoint", "GatewayPlan", "endpoint", "key_digests"]

#: HAProxy's name for the replicas.
BACKEND: Final = "engines"

_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?\Z"
)
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}\Z")
# What fits on one machine without surprises: a slot is an idle line, an agent check a second.
_MOST_SLOTS: Final = 1024


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where a replica's engine listens. Its text, `host:port`, is the replica's name for the gateway."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not _is_host(self.host) or not 0 < self.port < 65536:
            raise InvalidInputError(
                f"{self.host!r:.80}, port {self.port} is no address of a replica", hint="Write HOST:PORT."
            )

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoint(text: str) -> Endpoint:
    """The endpoint that `HOST:PORT`, `[IPV6]:PORT` or `http://HOST:PORT` names. Raises InvalidInputError."""
    bare = text.removeprefix("http://").rstrip("/")
    host, colon, port = bare.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or len(port) > 5:
        raise InvalidInputError(f"{text!r:.120} is no address of a replica", hint="Write HOST:PORT.")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return Endpoint(host, int(port))


@dataclass(frozen=True, kw_only=True)
class GatewayPlan:
    """A gateway: where it listens, over which replicas, within which limits.

    `slots` is how many replicas there may be without a reload: free ones are filled through the runtime socket.
    `balance` is ``least_loaded`` (fewest requests in flight by weight, the weights following queues and KV caches),
    ``round_robin``, or ``affinity``: requests with the same `affinity_header` go to the same replica while it has less
    than `affinity_load_percent` of the mean load. `keys_file` has SHA-256 digests of accepted bearer keys in capital
    hex, a line each; None: everybody who reaches the address may ask.
    """

    endpoints: tuple[Endpoint, ...]
    socket_path: Path
    listen: Endpoint = field(default_factory=lambda: Endpoint("127.0.0.1", 8080))
    metrics: Endpoint | None = field(default_factory=lambda: Endpoint("127.0.0.1", 8405))
    agent: Endpoint | None = field(default_factory=lambda: Endpoint("127.0.0.1", 8406))
    slots: int = 16
    balance: str = "least_loaded"
    affinity_header: str = "x-session-id"
    affinity_load_percent: int = 150
    keys_file: Path | None = None
    requests_per_minute: int | None = None
    """Of one key, or of one address where there are no keys."""
    request_limit_bytes: int = 8 << 20
    in_flight_per_replica: int | None = None
    """Requests beyond these wait in the gateway, `queue_s` at most. None: the engine's own queue holds them."""
    health_path: str = "/health"
    silence_s: int = 600
    """The longest time without a byte, which the wait for the first token is a part of."""
    queue_s: int = 30
    tls_certificate: Path | None = None
    """PEM with certificate and key, for clients."""
    connections: int = 4000
    """Of clients at once. HAProxy needs a little more than two file descriptors for each."""

    def __post_init__(self) -> None:
        if len(set(self.endpoints)) != len(self.endpoints):
            raise InvalidInputError("a replica is named twice")
        if not len(self.endpoints) <= self.slots <= _MOST_SLOTS or self.slots < 1:
            raise InvalidInputError(
                f"{self.slots} slots for {len(self.endpoints)} replicas; there may be {_MOST_SLOTS} of them"
            )
        if self.balance not in ("least_loaded", "round_robin", "affinity"):
            raise InvalidInputError(
                f"{self.balance!r} is no way to balance", hint="One of least_loaded, round_robin, affinity."
            )
        if not _HEADER.match(self.affinity_header):
            raise InvalidInputError(f"{self.affinity_header!r:.80} is no name of a header")
        if not re.match(r"/[A-Za-z0-9._/~-]{0,200}\Z", self.health_path):
            raise InvalidInputError(f"{self.health_path!r:.80} is no path")
        for what, number, least, most in (
            ("affinity_load_percent", self.affinity_load_percent, 101, 10_000),
            ("request_limit_bytes", self.request_limit_bytes, 1024, 1 << 31),
            ("silence_s", self.silence_s, 1, 86_400),
            ("queue_s", self.queue_s, 1, 86_400),
            ("connections", self.connections, 10, 1_000_000),
            ("requests_per_minute", self.requests_per_minute or 1, 1, 1_000_000),
            ("in_flight_per_replica", self.in_flight_per_replica or 1, 1, 100_000),
        ):
            if not least <= number <= most:
                raise InvalidInputError(f"{what} is {number}; it may be {least} to {most}")
        for path in (self.socket_path, self.keys_file, self.tls_certificate):
            if path is not None and not _is_plain(str(path)):
                raise InvalidInputError(
                    f"{str(path)!r:.120} has characters that HAProxy's configuration reads as its own",
                    hint="Use a path of letters, digits and ._/+-",
                )
        if len(str(self.socket_path)) > 90:
            raise InvalidInputError(
                "the socket's path is longer than the system allows", hint="Put it into a shorter folder."
            )


def key_digests(lines: Iterable[str]) -> tuple[str, ...]:
    """SHA-256 digests of keys as HAProxy compares them. Raises InvalidInputError for a line that is none.

    Empty lines and those that begin with ``#`` are passed over.
    """
    found = []
    for number, line in enumerate(lines, 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        if not _DIGEST.match(word):
            raise InvalidInputError(
                f"line {number} of the keys is no SHA-256 digest in hex",
                hint="Make one of each key: printf %s KEY | sha256sum",
            )
        found.append(word.upper())
    return tuple(dict.fromkeys(found))


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.match(host) is not None
    return "%" not in host


def _is_plain(path: str) -> bool:
    return re.match(r"[A-Za-z0-9._/+@:-]+\Z", path) is not None
