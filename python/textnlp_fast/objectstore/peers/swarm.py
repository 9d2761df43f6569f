"""Bytes of objects from wherever they are: this machine, other nodes, the origin; every byte checked before its use.

Threads that wait for other nodes and threads that work for them are apart: whoever reads from the origin for others
waits for nobody, so that no circle of nodes can wait for each other.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from textnlp_fast.errors import StorageUnavailableError, TextnlpFastError
from textnlp_fast.objectstore.peers.members import Members
from textnlp_fast.objectstore.peers.origin import Flights, Origin, Reads
from textnlp_fast.objectstore.peers.peer_client import Ask, NotYetError, PeerClient
from textnlp_fast.objectstore.peers.piece_cache import PieceCache
from textnlp_fast.objectstore.peers.pieces import Layout, ValueList, values_of
from textnlp_fast.objectstore.peers.policy import homes, node_order, pick_source, piece_order
from textnlp_fast.objectstore.peers.value_lists import Patience, ValueLists

__all__ = ["Swarm"]

_THREADS: Final = 16
_NEIGHBOURS: Final = 8
_MAP_LASTS_S: Final = 1.0
_MAP_WAIT_S: Final = 2.0
_KEPT_BYTES: Final = 32 << 20
_POLL_S: Final = 0.05
_SOURCES: Final = 3
_ORDERS: Final = 1024
_MAPS: Final = 128


class Swarm:
    """Reads ranges of immutable objects. Thread-safe; `close` ends its threads.

    `members.me` set: this is a node, which reads its own share of each object from the origin, and serves others.
    Unset: a client of nodes. `read_bytes` counts by where bytes came from: cache, peers, origin.
    """

    def __init__(
        self,
        store: Reads,
        members: Members,
        *,
        cache: PieceCache | None = None,
        token: str | None = None,
        patience: Patience | None = None,
        name: str = "client",
    ) -> None:
        self.origin = Origin(store)
        self.members = members
        self.cache = cache
        self.read_bytes: Counter[str] = Counter()
        self._patience = patience or Patience()
        self._client = PeerClient(name=name, token=token)
        self._rng = random.Random()
        self._lock = threading.Lock()
        self._flights = Flights()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._asked: Counter[str] = Counter()
        self._maps: dict[str, tuple[float, dict[str, list[bool]]]] = {}
        self._orders: OrderedDict[tuple[str, tuple[str, ...]], list[str]] = OrderedDict()
        self._fetching = ThreadPoolExecutor(_THREADS, thread_name_prefix="peers-fetch")
        self._prefetching = ThreadPoolExecutor(_THREADS // 2, thread_name_prefix="peers-ahead")
        self._begun: OrderedDict[str, None] = OrderedDict()
        self.filling = ThreadPoolExecutor(_THREADS, thread_name_prefix="peers-fill")
        self.collecting = ThreadPoolExecutor(4, thread_name_prefix="peers-collect")
        self.lists = ValueLists(members, self._client, self.fill, cache=cache, patience=self._patience)

    def close(self) -> None:
        """Ends its threads, when what they are at is over."""
        for pool in (self._fetching, self._prefetching, self.filling, self.collecting):
            pool.shutdown(wait=False, cancel_futures=True)

    # --- reading --------------------------------------------------------------------------------------------

    def read_ranges(self, digest: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
        """Byte ranges, shorter where the object ends. Raises what the origin raises; nodes' troubles stay here."""
        size = self.origin.size(digest)
        if not size:
            return [memoryview(b"")] * len(starts)
        layout = Layout(size)
        wanted = {
            piece
            for start, length in zip(starts, lengths, strict=True)
            for piece in layout.covering(start, length)
        }
        pieces = self.pieces(digest, layout, sorted(wanted))
        return [_cut(layout, pieces, start, length) for start, length in zip(starts, lengths, strict=True)]

    def pieces(self, digest: str, layout: Layout, wanted: Sequence[int]) -> dict[int, bytes]:
        """Whole pieces, several fetched at once."""
        found = {
            piece: data for piece in wanted if (data := self._at_hand(digest, layout, piece)) is not None
        }
        missing = [piece for piece in wanted if piece not in found]
        if not missing:
            return found
        held = self._neighbours(digest, layout) if len(missing) > 1 else {}
        order = piece_order(missing, self._rng, lambda piece: sum(flags[piece] for flags in held.values()))
        futures: dict[int, Future[bytes]] = {
            piece: self._fetching.submit(self.piece, digest, layout, piece) for piece in order
        }
        try:
            for piece, future in futures.items():
                found[piece] = future.result()
        finally:
            for future in futures.values():
                future.cancel()
        return found

    def piece(self, digest: str, layout: Layout, piece: int) -> bytes:
        """One piece, from here, from nodes, or from the origin, which is where errors come from."""
        return self._flights.run((digest, piece), lambda: self._obtain(digest, layout, piece))

    def fill(self, digest: str, layout: Layout, piece: int) -> bytes:
        """One piece for others: from here, from a node that has it at hand, or from the origin. Waits for no node."""
        found = self._at_hand(digest, layout, piece)
        if found is None:
            values = self.lists.known(digest, layout)
            if values is not None:
                found = self._from_holders(digest, layout, piece, values)
        return self._from_origin(digest, layout, piece) if found is None else found

    def claim(self, digest: str, layout: Layout, piece: int) -> bytes:
        """The value of a piece, which is read for that if it has to be."""
        return values_of(self.fill(digest, layout, piece), layout.offset(piece))

    def prefetch(self, digest: str, layout: Layout) -> None:
        """Begins to fetch the whole object, in an order of this node's own; nothing where it has begun before.

        Readers of one model go through it in one order: if every node fetched by theirs, all would ask the same homes.
        """
        if self.cache is None or 2 * layout.size_bytes > self.cache.limit_bytes or not self.members.others():
            return
        with self._lock:
            if digest in self._begun:
                return
            self._begun[digest] = None
            while len(self._begun) > _ORDERS:
                self._begun.popitem(last=False)
        held = self.cache.held(digest, layout)
        missing = [piece for piece in range(layout.count) if not held[piece]]
        for piece in piece_order(missing, self._rng):
            self._prefetching.submit(self._prefetched, digest, layout, piece)

    def _prefetched(self, digest: str, layout: Layout, piece: int) -> None:
        with suppress(TextnlpFastError):  # told to who asks for it
            self.piece(digest, layout, piece)

    # --- where from -----------------------------------------------------------------------------------------

    def _obtain(self, digest: str, layout: Layout, piece: int) -> bytes:
        found = self._at_hand(digest, layout, piece)
        if found is not None:
            return found
        if self.members.others():
            order = homes(self._order(digest), piece)
            if self.members.me is not None and order[:1] == [self.members.me]:
                return self.fill(digest, layout, piece)
            values = self.lists.wait_for(digest, layout)
            if values is not None:
                found = self._from_nodes(digest, layout, piece, values, order)
        return self._from_origin(digest, layout, piece) if found is None else found

    def _from_nodes(
        self, digest: str, layout: Layout, piece: int, values: ValueList, order: Sequence[str]
    ) -> bytes | None:
        found = self._from_holders(digest, layout, piece, values)
        if found is not None:
            return found
        ask: Ask = "home" if self.members.me is not None else "relay"
        for peer in order:
            if peer == self.members.me:
                return None  # it is this node's to read from the origin
            if self.members.may_ask(peer):
                found = self._from(peer, digest, layout, piece, values, ask)
                if found is not None:
                    return found
        return None

    def _from_holders(self, digest: str, layout: Layout, piece: int, values: ValueList) -> bytes | None:
        held = self._neighbours(digest, layout)
        for _ in range(_SOURCES):
            holders = [one for one, flags in held.items() if flags[piece] and self.members.may_ask(one)]
            if not holders:
                return None
            with self._lock:
                peer = pick_source(holders, self._asked, self._rng)
            found = self._from(peer, digest, layout, piece, values, "have")
            if found is not None:
                return found
            held = {one: flags for one, flags in held.items() if one != peer}
        return None

    def _from(
        self, peer: str, digest: str, layout: Layout, piece: int, values: ValueList, ask: Ask
    ) -> bytes | None:
        """A piece from a node, checked; None if it has none, is too slow, or lies."""
        ends = time.monotonic() + self._patience.stall_s
        with self._lock:
            self._asked[peer] += 1
        try:
            while time.monotonic() < ends:
                try:
                    data = self._client.piece(
                        peer, digest, layout, piece, ask, timeout_s=self._patience.request_s
                    )
                except NotYetError:
                    time.sleep(_POLL_S)
                    continue
                except StorageUnavailableError as error:
                    self.members.failed(peer, error)
                    return None
                if data is None:
                    return None
                if not values.holds(piece, data):
                    self.members.lied(peer)
                    return None
                self.members.answered(peer)
                self._keep(digest, layout, piece, data, "peers")
                return data
            self.members.stalled(peer)
            return None
        finally:
            with self._lock:
                self._asked[peer] -= 1

    def _from_origin(self, digest: str, layout: Layout, piece: int) -> bytes:
        data = self.origin.piece(digest, layout, piece, self.lists.known(digest, layout))
        self._keep(digest, layout, piece, data, "origin")
        return data

    # --- what is where --------------------------------------------------------------------------------------

    def _at_hand(self, digest: str, layout: Layout, piece: int) -> bytes | None:
        with self._lock:
            found = self._kept.get((digest, piece))
            if found is not None:
                self._kept.move_to_end((digest, piece))
                return found
        if self.cache is None:
            return None
        found = self.cache.get(digest, layout, piece)
        if found is not None:
            with self._lock:
                self.read_bytes["cache"] += len(found)
            self._remember(digest, piece, found)
        return found

    def _keep(self, digest: str, layout: Layout, piece: int, data: bytes, source: str) -> None:
        with self._lock:
            self.read_bytes[source] += len(data)
        if self.cache is not None:
            self.cache.add(digest, layout, piece, data)
        self._remember(digest, piece, data)

    def _remember(self, digest: str, piece: int, data: bytes) -> None:
        """Near ranges of an object lie in the same pieces: the last ones stay in memory."""
        with self._lock:
            if (digest, piece) in self._kept:
                return
            self._kept[digest, piece] = data
            self._kept_bytes += len(data)
            while self._kept_bytes > _KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def _neighbours(self, digest: str, layout: Layout) -> dict[str, list[bool]]:
        """What a few nodes say they have of an object; asked once a second at most, and none is waited for."""
        if self.members.me is None or layout.count == 1:
            return {}
        now = time.monotonic()
        with self._lock:
            at, held = self._maps.get(digest, (-_MAP_LASTS_S, {}))
            if now - at < _MAP_LASTS_S:
                return held
            if len(self._maps) > _MAPS:
                self._maps.clear()
            self._maps[digest] = (now, held)  # by the others while this thread asks
        others = self.members.others()
        fresh: dict[str, list[bool]] = {}
        for peer in self._rng.sample(others, min(_NEIGHBOURS, len(others))):
            try:
                fresh[peer] = self._client.map(peer, digest, layout, timeout_s=_MAP_WAIT_S)
            except StorageUnavailableError as error:
                self.members.failed(peer, error)
            except NotYetError:
                self.members.failed(peer)
        with self._lock:
            self._maps[digest] = (time.monotonic(), fresh)
        return fresh

    def _order(self, digest: str) -> list[str]:
        key = (digest, self.members.all())
        with self._lock:
            known = self._orders.get(key)
        if known is None:
            known = node_order(*key)
            with self._lock:
                self._orders[key] = known
                while len(self._orders) > _ORDERS:
                    self._orders.popitem(last=False)
        return known


def _cut(layout: Layout, pieces: dict[int, bytes], start: int, length: int) -> memoryview:
    """A range out of the pieces that it lies in."""
    covering = layout.covering(start, length)
    if not covering:
        return memoryview(b"")
    first = layout.offset(covering[0])
    whole = pieces[covering[0]] if len(covering) == 1 else b"".join(pieces[piece] for piece in covering)
    return memoryview(whole)[start - first : start - first + length]
