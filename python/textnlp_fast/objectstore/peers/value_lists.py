"""The list of values of each object: from the disk, from a node that has it, or put together out of what homes read.

A node collects a list for all others: it asks every home for the values of its pieces, which has the home read them
from the origin. What it is told needs no trust, for the list joins to the digest or it does not; then somebody lied,
and the collector reads for itself what others claimed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    StorageUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.objectstore.peers.members import Members
from textnlp_fast.objectstore.peers.origin import Flights
from textnlp_fast.objectstore.peers.peer_client import Ask, NotYetError, PeerClient
from textnlp_fast.objectstore.peers.piece_cache import PieceCache
from textnlp_fast.objectstore.peers.pieces import Layout, ValueList, values_of
from textnlp_fast.objectstore.peers.policy import homes, node_order

__all__ = ["Patience", "ValueLists"]

_AT_ONCE: Final = 64
_POLL_S: Final = 0.05
_FORGET_FAILURE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long nodes are waited for. A node that answers "coming" is not slow until it has said so for `stall_s`."""

    request_s: float = 10.0
    """For one answer of small size, or one piece."""
    stall_s: float = 120.0
    """For what a node says is coming."""


class ValueLists:
    """Lists of values by digest. `fill` reads a piece as its home: from the cache or the origin. Thread-safe."""

    def __init__(
        self,
        members: Members,
        client: PeerClient,
        fill: Callable[[str, Layout, int], bytes],
        *,
        cache: PieceCache | None,
        patience: Patience,
    ) -> None:
        self._members = members
        self._client = client
        self._fill = fill
        self._cache = cache
        self._patience = patience
        self._flights = Flights()
        self._lock = threading.Lock()
        self._lists: dict[str, ValueList] = {}
        self._failed: dict[str, float] = {}
        self._collecting: set[str] = set()

    def known(self, digest: str, layout: Layout) -> ValueList | None:
        """The list, if it is here already."""
        with self._lock:
            found = self._lists.get(digest)
        if found is None and layout.count == 1:
            return ValueList(digest, layout, b"")
        if found is None and self._cache is not None:
            found = self._cache.values(digest, layout)
        return found if found is None or found.layout.size_bytes == layout.size_bytes else None

    def wait_for(self, digest: str, layout: Layout) -> ValueList | None:
        """The list, from here or elsewhere; None where it is not to be had within a while, and for a while after."""
        found = self.known(digest, layout)
        if found is not None:
            return found
        with self._lock:
            if time.monotonic() - self._failed.get(digest, -_FORGET_FAILURE_S) < _FORGET_FAILURE_S:
                return None
        return self._flights.run(("wait", digest), lambda: self._ask_around(digest, layout))

    def _ask_around(self, digest: str, layout: Layout) -> ValueList | None:
        found = self.known(digest, layout)  # by who was at it before
        if found is not None:
            return found
        # Whoever is first in the object's order collects for all; next to it who stands in.
        ask: Ask = "home" if self._members.me is not None else "relay"
        for collector in homes(node_order(digest, self._members.all()), 0):
            if collector == self._members.me:
                found = self.collect(digest, layout)
            elif self._members.may_ask(collector):
                found = self._from(collector, digest, layout, ask)
            if found is not None:
                return found
        if self._members.me is not None:
            # Costs the origin what homes do not answer for; going without a list would cost it everything.
            found = self.collect(digest, layout)
            if found is not None:
                return found
        with self._lock:
            if len(self._failed) > 10_000:
                self._failed.clear()
            self._failed[digest] = time.monotonic()
        return None

    def _from(self, peer: str, digest: str, layout: Layout, ask: Ask) -> ValueList | None:
        ends = time.monotonic() + self._patience.stall_s
        while time.monotonic() < ends:
            try:
                text = self._client.values(peer, digest, layout, ask, timeout_s=self._patience.request_s)
            except NotYetError:
                time.sleep(_POLL_S)
                continue
            except StorageUnavailableError as error:
                self._members.failed(peer, error)
                return None
            if text is None:
                return None
            try:
                found = ValueList(digest, layout, text)
            except DigestMismatchError:
                self._members.lied(peer)
                return None
            self._members.answered(peer)
            self._keep(found)
            return found
        self._members.stalled(peer)
        return None

    # --- putting it together --------------------------------------------------------------------------------

    def start_collecting(self, digest: str, layout: Layout, pool: ThreadPoolExecutor) -> None:
        """Begins in the background, unless it has begun or failed lately."""
        with self._lock:
            failed = time.monotonic() - self._failed.get(digest, -_FORGET_FAILURE_S) < _FORGET_FAILURE_S
            if digest in self._collecting or failed:
                return
            self._collecting.add(digest)
        pool.submit(self._collect_in_background, digest, layout)

    def _collect_in_background(self, digest: str, layout: Layout) -> None:
        try:
            if self.known(digest, layout) is None and self.collect(digest, layout) is None:
                with self._lock:
                    self._failed[digest] = time.monotonic()
        finally:
            with self._lock:
                self._collecting.discard(digest)

    def collect(self, digest: str, layout: Layout) -> ValueList | None:
        """The list, put together from what homes read; None where the origin could not be read or is damaged."""
        return self._flights.run(("collect", digest), lambda: self._collect(digest, layout))

    def _collect(self, digest: str, layout: Layout) -> ValueList | None:
        order = node_order(digest, self._members.all())
        found: dict[int, bytes] = {}
        told_by: dict[int, str] = {}
        shares: dict[str | None, list[int]] = {}
        for piece in range(layout.count):
            home = next(
                (one for one in homes(order, piece) if one == self._members.me or self._members.may_ask(one)),
                None,
            )
            shares.setdefault(None if home == self._members.me else home, []).append(piece)
        mine = shares.pop(None, [])
        try:
            with ThreadPoolExecutor(min(_AT_ONCE, len(shares) + 4), thread_name_prefix="collect") as pool:
                asked = {
                    home: pool.submit(self._claims, home, digest, layout, pieces)
                    for home, pieces in shares.items()
                    if home is not None
                }
                for piece, value in zip(
                    mine, pool.map(lambda one: self._value(digest, layout, one), mine), strict=True
                ):
                    found[piece] = value
                for home, claim in asked.items():
                    for piece, value in claim.result().items():
                        found[piece], told_by[piece] = value, home
                missing = [piece for piece in range(layout.count) if piece not in found]
                for piece, value in zip(
                    missing, pool.map(lambda one: self._value(digest, layout, one), missing), strict=True
                ):
                    found[piece] = value
                joined = self._joined(digest, layout, found)
                if joined is None and told_by:
                    doubted = sorted(told_by)
                    for piece, value in zip(
                        doubted, pool.map(lambda one: self._value(digest, layout, one), doubted), strict=True
                    ):
                        if found[piece] != value:
                            self._members.lied(told_by[piece])
                            found[piece] = value
                    joined = self._joined(digest, layout, found)
        except TextnlpFastError:
            return None  # the origin's trouble is told to whoever reads from there
        if joined is not None:
            self._keep(joined)
        return joined

    def _joined(self, digest: str, layout: Layout, found: dict[int, bytes]) -> ValueList | None:
        with contextlib.suppress(DigestMismatchError):
            return ValueList(digest, layout, b"".join(found[piece] for piece in range(layout.count)))
        return None

    def _value(self, digest: str, layout: Layout, piece: int) -> bytes:
        return values_of(self._fill(digest, layout, piece), layout.offset(piece))

    def _claims(self, home: str, digest: str, layout: Layout, pieces: list[int]) -> dict[int, bytes]:
        """What a home says of its pieces, as far as it goes on saying something."""
        claims: dict[int, bytes] = {}
        heard = time.monotonic()
        while len(claims) < len(pieces) and time.monotonic() - heard < self._patience.stall_s:
            left = [piece for piece in pieces if piece not in claims]
            try:
                more = self._client.claims(home, digest, layout, left, timeout_s=self._patience.request_s)
            except NotYetError:
                more = {}
            except StorageUnavailableError as error:
                self._members.failed(home, error)
                break
            except CorruptDataError:
                self._members.failed(home)
                break
            if more:
                heard = time.monotonic()
                claims.update(more)
            else:
                time.sleep(_POLL_S)
        return claims

    def _keep(self, found: ValueList) -> None:
        with self._lock:
            if len(self._lists) > 512:  # of 32 KiB at most
                self._lists.clear()
            self._lists[found.digest] = found
        if self._cache is not None:
            self._cache.add_values(found)
