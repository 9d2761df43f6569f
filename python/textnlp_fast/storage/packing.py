"""Packs coded windows into immutable objects and uploads them while the next are coded."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage.extents import Heads, is_whole, object_key
from textnlp_fast.telemetry import adopting

__all__ = ["ShardObject", "ShardStore", "ShardWriter", "Slot"]


class ShardStore(Heads, Protocol):
    """The part of an object store that shards need."""

    def put_object(self, key: str, data: memoryview) -> None: ...


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a coded window went: shard number, offset and length in bytes."""

    shard: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ShardObject:
    """A finished shard. `uploaded` is False if the repository had it already, in this size."""

    digest: str
    size: int
    uploaded: bool


class ShardWriter:
    """Fills shards in the order of `add` and uploads each when it is full.

    Which windows share a shard depends on their order and sizes alone, so a push that is repeated makes the
    same objects and finds those that it has uploaded before. At most `buffers` shards are held at a time:
    `add` waits for an upload when all are full.
    """

    def __init__(
        self, store: ShardStore, shard_bytes: int, *, buffers: int, packing: bool, threads: int
    ) -> None:
        self._store = store
        self._shard_bytes = shard_bytes
        self._packing = packing
        self._threads = threads
        self._pool = ThreadPoolExecutor(
            max(1, buffers - 1), thread_name_prefix="textnlp-fast-upload", initializer=adopting()
        )
        self._free: SimpleQueue[bytearray | None] = SimpleQueue()
        for _ in range(buffers):
            self._free.put(None)  # allocated when first needed: small pushes stay small
        self._uploads: list[Future[ShardObject]] = []
        self._failed = threading.Event()
        self._buffer: bytearray | None = None
        self._filled = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._failed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, payload: bytes | memoryview) -> Slot:
        """Places a coded window. Raises what an upload raised, if one failed meanwhile."""
        self._raise_failure()
        if self._filled and (not self._packing or self._filled + len(payload) > self._shard_bytes):
            self._flush()
        if self._buffer is None:
            self._buffer = self._free.get() or bytearray()
        slot = Slot(len(self._uploads), self._filled, len(payload))
        end = self._filled + len(payload)
        if len(self._buffer) < end:
            # A slice assignment past the end grows the buffer; it keeps its size for the next shard.
            del self._buffer[self._filled :]
            self._buffer += payload
        else:
            self._buffer[self._filled : end] = payload
        self._filled = end
        return slot

    def finish(self) -> list[ShardObject]:
        """Uploads what is left and waits for all; the shards by number."""
        if self._filled:
            self._flush()
        return [upload.result() for upload in self._uploads]

    def _flush(self) -> None:
        buffer = self._buffer
        assert buffer is not None
        self._uploads.append(self._pool.submit(self._upload, buffer, self._filled))
        self._buffer, self._filled = None, 0

    def _upload(self, buffer: bytearray, size: int) -> ShardObject:
        try:
            with memoryview(buffer)[:size] as view:
                digest = blake3_hex(view, threads=self._threads)
                uploaded = not self._failed.is_set() and not is_whole(self._store, digest, size)
                if uploaded:
                    self._store.put_object(object_key(digest), view)
            return ShardObject(digest, size, uploaded)
        except BaseException:
            self._failed.set()
            raise
        finally:
            self._free.put(buffer)

    def _raise_failure(self) -> None:
        if self._failed.is_set():
            for upload in self._uploads:
                if upload.done():
                    upload.result()
