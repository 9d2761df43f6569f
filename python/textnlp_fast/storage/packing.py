"""Packs coded windows into immutable objects and uploads them while the next are coded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from queue import SimpleQueue
from typing import Protocol

from textnlp_fast.errors import InternalError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage.extents import Heads, is_whole, object_key
from textnlp_fast.telemetry import adopted

__all__ = ["Names", "ShardObject", "ShardStore", "ShardWriter", "Slot"]


class Names(Protocol):
    """Decides how objects are named: which suffixes to try, one after another, and which names are free."""

    def suffixes(self) -> Iterator[bytes]: ...

    def is_free(self, digest: str, *, last: bool) -> bool: ...


class _Plain:
    """Every object by the digest of its windows."""

    def suffixes(self) -> Iterator[bytes]:
        yield b""

    def is_free(self, digest: str, *, last: bool) -> bool:
        return True


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
    """A finished shard. `uploaded` is False if the repository had it already, in this size.

    `suffix` are bytes at its end that belong to no window: they give it another name.
    """

    digest: str
    size: int
    uploaded: bool
    suffix: bytes = b""


class ShardWriter:
    """Fills shards in the order of `add` and uploads each when it is full.

    Which windows share a shard depends on their order and sizes alone, so a push that is repeated makes the
    same objects and finds those that it has uploaded before. At most `buffers` shards are held at a time:
    `add` waits for an upload when all are full. Uploads run in threads of their own, or in those of `pool`.
    """

    def __init__(
        self,
        store: ShardStore,
        shard_bytes: int,
        *,
        buffers: int,
        packing: bool,
        threads: int,
        names: Names | None = None,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._names = names or _Plain()
        self._store = store
        self._shard_bytes = shard_bytes
        self._packing = packing
        self._threads = threads
        self._owns_pool = pool is None
        self._pool = pool or ThreadPoolExecutor(max(1, buffers - 1), "textnlp-fast-upload")
        self._work = adopted(self._upload)
        self._free: SimpleQueue[bytearray | None] = SimpleQueue()
        for _ in range(buffers):
            self._free.put(None)  # allocated when first needed: small pushes stay small
        self._named: list[Future[ShardObject]] = []
        self._uploads: list[Future[ShardObject]] = []
        self._failed = threading.Event()
        self._buffer: bytearray | None = None
        self._filled = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._failed.set()
        for upload in self._uploads:
            upload.cancel()
        wait(self._uploads)
        if self._owns_pool:
            self._pool.shutdown()

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

    def named(self) -> list[ShardObject]:
        """Sends what is left and waits for all names, not for uploads: `uploaded` says False until `finish`."""
        if self._filled:
            self._flush(is_awaited=True)
            time.sleep(0)  # lets the upload begin now: else it waits for this thread to wait for something
        return [name.result() for name in self._named]

    def finish(self) -> list[ShardObject]:
        """Uploads what is left and waits for all; the shards by number."""
        if self._filled:
            self._flush()
        return [upload.result() for upload in self._uploads]

    def _flush(self, *, is_awaited: bool = False) -> None:
        """Sends the shard. Its name is found by the thread that sends it, or here if it `is_awaited`."""
        buffer, size = self._buffer, self._filled
        assert buffer is not None
        named: Future[ShardObject] = Future()
        self._named.append(named)
        self._buffer, self._filled = None, 0
        if is_awaited:
            self._find_name(buffer, size, named)
        self._uploads.append(self._pool.submit(self._work, buffer, size, named))

    def _upload(self, buffer: bytearray, size: int, named: Future[ShardObject]) -> ShardObject:
        try:
            if not named.done():
                self._find_name(buffer, size, named)
            shard = named.result()
            with memoryview(buffer)[: shard.size] as view:
                uploaded = not self._failed.is_set() and not is_whole(self._store, shard.digest, shard.size)
                if uploaded:
                    self._store.put_object(object_key(shard.digest), view)
            return replace(shard, uploaded=uploaded)
        except BaseException:
            self._failed.set()
            raise
        finally:
            self._free.put(None if _is_held(buffer) else buffer)

    def _find_name(self, buffer: bytearray, size: int, named: Future[ShardObject]) -> None:
        try:
            digest, suffix = self._name(buffer, size)
            named.set_result(ShardObject(digest, size + len(suffix), False, suffix))
        except BaseException as error:  # noqa: BLE001  who asks for the name hears of it
            named.set_exception(error)

    def _name(self, buffer: bytearray, size: int) -> tuple[str, bytes]:
        """The name of a shard of `size` bytes, and the suffix that gives it, which is appended."""
        suffixes = list(islice(self._names.suffixes(), 1))
        rest = islice(self._names.suffixes(), 1, None)
        while suffixes:
            suffix, following = suffixes.pop(), next(rest, None)
            buffer[size : size + len(suffix)] = suffix
            with memoryview(buffer)[: size + len(suffix)] as view:
                digest = blake3_hex(view, threads=self._threads)
            if self._names.is_free(digest, last=following is None):
                return digest, suffix
            suffixes += [] if following is None else [following]
        raise InternalError("no name is left for an object")

    def _raise_failure(self) -> None:
        if self._failed.is_set():
            for upload in self._uploads:
                if upload.done():
                    upload.result()


def _is_held(buffer: bytearray) -> bool:
    """Whether somebody has a view of it: a connection, say, that was answered early and still sends what it can."""
    if not buffer:
        return False
    try:
        buffer.append(buffer.pop())  # neither moves the buffer
    except BufferError:
        return True
    return False
