"""The nodes there are, and which of them to leave alone: who lied, who did not answer."""

from __future__ import annotations

import logging
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from textnlp_fast.errors import InvalidInputError, StorageUnavailableError
from textnlp_fast.objectstore.peers.peer_client import PeerAnsweredError

__all__ = ["Members", "check_peers"]

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_BAN_S: Final = 3600.0
_STALL_S: Final = 600.0
_LOOKUP_EVERY_S: Final = 15.0
_MOST: Final = 10_000
_REFUSALS: Final = (401, 403)
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+\Z")

_log = logging.getLogger(__name__)
_told_lock = threading.Lock()
_told: set[type[StorageUnavailableError]] = set()


def _tell_once(peer: str, error: StorageUnavailableError) -> None:
    """Warns of a node that is of no use, once in a process for each way of that: reading goes on without it."""
    if not isinstance(error, PeerAnsweredError):
        why = f"cannot be asked ({error.args[0]})"
    elif error.status in _REFUSALS:
        why = f"refused the secret ({error.status}): is TEXTNLP_FAST_PEER_TOKEN the same here and there?"
    else:
        return  # it is well, and says why it does not answer this
    with _told_lock:
        if type(error) in _told:
            return
        _told.add(type(error))
    _log.warning("node cache %s %s; reading goes on without it", peer, why)


def check_peers(peers: Sequence[str]) -> tuple[str, ...]:
    """Peers as they are meant: ``http://HOST:PORT``, or ``dns+http://NAME:PORT`` for all addresses of a name.

    Raises InvalidInputError for others.
    """
    found = []
    for peer in peers:
        bare = peer.strip().rstrip("/")
        if not bare:
            continue
        try:
            port = urlsplit(bare).port
        except ValueError:
            port = None
        if port is None or not _ADDRESS.match(bare.removeprefix("dns+")):
            raise InvalidInputError(
                f"{bare[:120]!r} is no address of a node cache",
                hint="Write http://HOST:PORT, or dns+http://NAME:PORT for all addresses of a name.",
            )
        found.append(bare)
    return tuple(dict.fromkeys(found))


class Members:
    """The peers of `peers`, names looked up again every 15 s. Thread-safe.

    `me` is this node's own address, as others have it; None: this is no node, and nobody asks it.
    """

    def __init__(
        self,
        peers: Sequence[str],
        *,
        me: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        addresses: Callable[[str, int], list[str]] | None = None,
    ) -> None:
        self._peers = check_peers(peers)
        self.me = me
        self._clock = clock
        self._addresses = addresses or _addresses
        self._lock = threading.Lock()
        self._looked_up = -_LOOKUP_EVERY_S
        self._all: tuple[str, ...] = ()
        self._paused: dict[str, tuple[float, float]] = {}  # until when, and how long that was
        self._rng = random.Random()

    def all(self) -> tuple[str, ...]:
        """All nodes, this one among them if it is one, well or not: what homes are dealt out to."""
        with self._lock:
            now = self._clock()
            if now - self._looked_up < _LOOKUP_EVERY_S:
                return self._all
            self._looked_up = now
            before = self._all
        found: dict[str, None] = dict.fromkeys([self.me] if self.me is not None else [])
        for peer in self._peers:
            if not peer.startswith("dns+"):
                found[peer] = None
                continue
            parts = urlsplit(peer.removeprefix("dns+"))
            try:
                hosts = self._addresses(str(parts.hostname), int(parts.port or 0))
            except OSError:
                # Who was there is there until the name says otherwise.
                found.update(dict.fromkeys(before))
                continue
            found.update(dict.fromkeys(f"{parts.scheme}://{host}:{parts.port}" for host in hosts))
        with self._lock:
            self._all = tuple(found)[:_MOST]
            return self._all

    def others(self) -> list[str]:
        """The nodes that may be asked now."""
        now = self._clock()
        everybody = self.all()
        with self._lock:
            return [one for one in everybody if one != self.me and self._paused.get(one, (now, 0))[0] <= now]

    def may_ask(self, peer: str) -> bool:
        """Whether a node is to be asked now."""
        with self._lock:
            return peer != self.me and self._paused.get(peer, (0.0, 0.0))[0] <= self._clock()

    def failed(self, peer: str, error: StorageUnavailableError | None = None) -> None:
        """It did not answer, or too slowly: not asked for a while, twice as long each time.

        The first `error` of its kind in a process is told as a warning.
        """
        if error is not None:
            _tell_once(peer, error)
        with self._lock:
            now = self._clock()
            until, pause = self._paused.get(peer, (now, 0.0))
            if until > now:
                return  # several threads tell of the same
            pause = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * pause))
            self._paused[peer] = (now + pause * self._rng.uniform(0.75, 1.25), pause)

    def answered(self, peer: str) -> None:
        """It is well."""
        with self._lock:
            if self._paused and self._paused.get(peer, (0.0, 0.0))[0] <= self._clock():
                self._paused.pop(peer, None)

    def lied(self, peer: str) -> None:
        """It sent bytes that are not what they were asked to be: not asked for an hour."""
        with self._lock:
            now = self._clock()
            again = self._paused.get(peer, (now, 0.0))[0] > now + _STALL_S
            self._paused[peer] = (now + _BAN_S, _LONGEST_PAUSE_S)
        if not again:  # several threads tell of the same
            _log.warning(
                "node cache %s sent bytes that are not the object's; it is not asked for an hour", peer
            )

    def stalled(self, peer: str) -> None:
        """It went on saying that something was coming, and nothing came: not asked for ten minutes."""
        with self._lock:
            self._paused[peer] = (self._clock() + _STALL_S, _LONGEST_PAUSE_S)

    def banned(self) -> list[str]:
        """Who lied lately."""
        with self._lock:
            later = self._clock() + _STALL_S
            return [one for one, (until, _) in self._paused.items() if until > later]


def _addresses(name: str, port: int) -> list[str]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    hosts = sorted({str(one[4][0]) for one in found})
    return [f"[{host}]" if ":" in host else host for host in hosts]
