"""What a node is asked, over HTTP: pieces, which of them it has, and the values of an object's pieces.

| `GET /v1/objects/DIGEST/...?size=BYTES` | answers |
|---|---|
| `pieces/N&ask=have` | the piece, if it is there |
| `pieces/N&ask=home` | the piece, which the node reads from the origin if it has to |
| `pieces/N&ask=relay` | the piece, for a client of the node's own: from wherever it is |
| `map` | one bit a piece, set where it is there |
| `values&ask=have`, `home`, `relay` | the object's list of values |
| `claims&pieces=BITS` | JSON: the values of those pieces, as far as the node has read them by now |

200: here it is; 202: it is coming, ask again; 404: not here. Everything that comes back is checked by whoever asked.
"""

from __future__ import annotations

import json
import time
from typing import Final, Literal

from textnlp_fast.errors import CorruptDataError, StorageUnavailableError, TextnlpFastError
from textnlp_fast.objectstore.peers.pieces import Layout
from textnlp_fast.objectstore.transfers.http_stream import HttpStreams
from textnlp_fast.objectstore.transfers.protocol import BackOffError
from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["Ask", "NotYetError", "PeerAnsweredError", "PeerClient", "bits", "from_bits"]

Ask = Literal["have", "home", "relay"]

_CONNECT_S: Final = 3.0
_LIST_BYTES: Final = 64 << 10
_CLAIMS_BYTES: Final = 1 << 20


class NotYetError(Exception):
    """The node is at it: ask again."""


class PeerAnsweredError(StorageUnavailableError):
    """The node is there, and answered with a status that is none of those above."""

    def __init__(self, peer: str, status: int) -> None:
        super().__init__(f"{peer} answered {status}")
        self.status = status


class _Until(StreamWatch):
    """Ends a request at a time, however slowly it comes along."""

    def __init__(self, ends: float) -> None:
        self._ends = ends
        self.total_bytes = 0

    def passed(self, size_bytes: int) -> None:
        self.total_bytes += size_bytes
        self.idle()

    def idle(self) -> None:
        if time.monotonic() > self._ends:
            raise BackOffError("it did not end in time")


class PeerClient:
    """Asks nodes. Each call is bounded by `timeout_s`, whatever the node does, and raises StorageUnavailableError where
    no answer came; NotYetError where it is coming. Thread-safe.
    """

    def __init__(self, *, name: str, token: str | None = None) -> None:
        self._streams = HttpStreams(connect_timeout_s=_CONNECT_S)
        self._headers = {"X-Node": name}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def piece(
        self, peer: str, digest: str, layout: Layout, piece: int, ask: Ask, *, timeout_s: float
    ) -> bytes | None:
        """A piece, unchecked; None if the node does not have it."""
        path = f"pieces/{piece}?size={layout.size_bytes}&ask={ask}"
        return self._get(peer, digest, path, layout.length(piece), timeout_s)

    def map(self, peer: str, digest: str, layout: Layout, *, timeout_s: float) -> list[bool]:
        """Which pieces a node says it has."""
        found = self._get(peer, digest, f"map?size={layout.size_bytes}", _LIST_BYTES, timeout_s)
        return [False] * layout.count if found is None else from_bits(found, layout.count)

    def values(self, peer: str, digest: str, layout: Layout, ask: Ask, *, timeout_s: float) -> bytes | None:
        """The list of values as a node has it, unchecked."""
        return self._get(peer, digest, f"values?size={layout.size_bytes}&ask={ask}", _LIST_BYTES, timeout_s)

    def claims(
        self, peer: str, digest: str, layout: Layout, pieces: list[int], *, timeout_s: float
    ) -> dict[int, bytes]:
        """Values of those of `pieces` that a node has read by now. Raises CorruptDataError for what is none."""
        wanted = [False] * layout.count
        for piece in pieces:
            wanted[piece] = True
        path = f"claims?size={layout.size_bytes}&pieces={bits(wanted).hex()}"
        text = self._get(peer, digest, path, _CLAIMS_BYTES, timeout_s)
        try:
            document = json.loads(text or b"{}")
            claims = {int(piece): bytes.fromhex(value) for piece, value in document.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise CorruptDataError(f"{peer} answered with no claims") from None
        return {
            piece: value for piece, value in claims.items() if 0 <= piece < layout.count and wanted[piece]
        }

    def _get(self, peer: str, digest: str, path: str, most: int, timeout_s: float) -> bytes | None:
        url = f"{peer}/v1/objects/{digest}/{path}"
        whole = bytearray()

        def take(offset: int, view: memoryview) -> None:
            if offset + len(view) > most:
                raise StorageUnavailableError(f"{peer} sends more than was asked for")
            whole.extend(view)

        try:
            answer = self._streams.request(
                "GET",
                url,
                self._headers,
                buffer=memoryview(bytearray(min(most, 256 << 10))),
                take=take,
                take_status=200,
                watch=_Until(time.monotonic() + timeout_s),
            )
        except StorageUnavailableError:
            raise
        except (TextnlpFastError, ValueError) as error:
            raise StorageUnavailableError(f"{peer}: {error.args[0] if error.args else error}") from error
        if answer.status == 200:
            return bytes(whole)
        if answer.status == 202:
            raise NotYetError
        if answer.status == 404:
            return None
        raise PeerAnsweredError(peer, answer.status)


def bits(flags: list[bool]) -> bytes:
    """Flags as bits, the lowest first; the last byte is filled with zeros."""
    found = bytearray(-(-len(flags) // 8))
    for place, flag in enumerate(flags):
        if flag:
            found[place // 8] |= 1 << place % 8
    return bytes(found)


def from_bits(data: bytes, count: int) -> list[bool]:
    """`count` flags out of bits; what is missing is not set."""
    return [place // 8 < len(data) and bool(data[place // 8] >> place % 8 & 1) for place in range(count)]
