"""Pieces as the object store itself has them: each read once, however many ask at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

from textnlp_fast.errors import CorruptDataError, DigestMismatchError
from textnlp_fast.objectstore.backend import ObjectMeta
from textnlp_fast.objectstore.peers.pieces import Layout, ValueList, key_of

__all__ = ["Flights", "Origin", "Reads"]

Key = TypeVar("Key")
Result = TypeVar("Result")


class Reads(Protocol):
    """What is asked of an origin: a store does it, or a backend."""

    @property
    def url(self) -> str: ...

    def head(self, key: str) -> ObjectMeta: ...

    def get_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]: ...


class Flights:
    """One doer for each key at a time: who comes later gets the result of who was first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying: dict[object, Future[object]] = {}

    def run(self, key: object, work: Callable[[], Result]) -> Result:
        """The result of `work`, or its error, done now or by who is at it already."""
        with self._lock:
            flight = self._flying.get(key)
            first = flight is None
            if flight is None:
                flight = self._flying[key] = Future()
        if not first:
            return flight.result()  # type: ignore[return-value]  # the key says which kind it is
        try:
            result = work()
        except BaseException as error:
            with self._lock:
                del self._flying[key]
            flight.set_exception(error)
            raise
        with self._lock:
            del self._flying[key]
        flight.set_result(result)
        return result


class Origin:
    """Reads objects of a store by digest. `read_bytes` counts what came from there."""

    def __init__(self, store: Reads) -> None:
        self._store = store
        self._flights = Flights()
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        self.read_bytes = 0

    def size(self, digest: str) -> int:
        """Bytes of an object, asked for once. Raises MissingObjectError if it is not there."""
        with self._lock:
            known = self._sizes.get(digest)
        if known is None:
            known = self._flights.run(("size", digest), lambda: self._store.head(key_of(digest)).size)
            with self._lock:
                if len(self._sizes) > 100_000:
                    self._sizes.clear()
                self._sizes[digest] = known
        return known

    def piece(self, digest: str, layout: Layout, piece: int, values: ValueList | None = None) -> bytes:
        """A piece, checked where a list of values is there. Raises what the store raises, and CorruptDataError where
        the object is shorter or another.
        """
        return self._flights.run((digest, piece), lambda: self._read(digest, layout, piece, values))

    def _read(self, digest: str, layout: Layout, piece: int, values: ValueList | None) -> bytes:
        length = layout.length(piece)
        found = bytes(self._store.get_ranges(key_of(digest), [layout.offset(piece)], [length])[0])
        with self._lock:
            self.read_bytes += len(found)
        if len(found) != length:
            raise CorruptDataError(f"object {digest} in {self._store.url} ends early")
        if values is not None and not values.holds(piece, found):
            raise DigestMismatchError(f"bytes of object {digest} changed, in piece {piece}")
        return found
