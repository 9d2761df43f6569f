"""Moves contents window by window: ranged reads, chains decoded in place, digests taken in order.

Memory is bounded by the windows in flight. Nothing is mapped: mapped pages would count as the process's own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from textnlp_fast.delta import codec
from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    InvalidInputError,
    MissingObjectError,
    UnsupportedFormatError,
)
from textnlp_fast.hashing import Blake3, blake3_hex
from textnlp_fast.objectstore import ObjectMeta, ObjectStore
from textnlp_fast.storage.manifest import Content, Extent
from textnlp_fast.tensors import read_into

__all__ = [
    "DATA_ERRORS",
    "BufferPool",
    "Cancelled",
    "DataError",
    "DigestCheck",
    "OpenFiles",
    "Progress",
    "ProgressCallback",
    "decode_window",
    "digest_of_object",
    "fetch_extents",
    "is_whole",
    "object_key",
    "run_in_order",
    "with_context",
    "write_exactly",
]

_OBJECT_READ_BYTES = 8 << 20

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage ("hash", "push", "pull", "verify") has come, in bytes of the model."""

    stage: str
    done_bytes: int
    total_bytes: int


ProgressCallback = Callable[[Progress], None]


DataError = CorruptDataError | UnsupportedFormatError
"""What stored bytes can be: harmed, or newer than this code."""

DATA_ERRORS = (CorruptDataError, UnsupportedFormatError)


class Cancelled(Exception):
    """Another window of the same content failed; its error is the one to report."""


def object_key(digest: str) -> str:
    """Key of an immutable object."""
    return f"objects/{digest[:2]}/{digest}"


class Heads(Protocol):
    """The part of an object store that tells sizes."""

    def head(self, key: str) -> ObjectMeta: ...


def is_whole(store: Heads, digest: str, size_bytes: int) -> bool:
    """Whether an immutable object is there in its full size: one that was cut short is as good as lost."""
    try:
        return store.head(object_key(digest)).size == size_bytes
    except MissingObjectError:
        return False


def write_exactly(descriptor: int, view: memoryview, offset: int) -> None:
    """Writes all of `view` at byte `offset` of the file."""
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


class OpenFiles:
    """Read-only descriptors of local files, opened once each and closed together. Thread-safe."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def read(self, location: str, view: memoryview, offset: int) -> None:
        """Fills `view` from byte `offset` of the file at `location`."""
        with self._lock:
            descriptor = self._descriptors.get(location)
            if descriptor is None:
                descriptor = self._descriptors[location] = os.open(location, os.O_RDONLY | os.O_CLOEXEC)
        read_into(descriptor, offset, view)


class BufferPool:
    """Reused buffers of one size: touching fresh memory costs more than decoding into it."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    def take(self) -> bytearray:
        """A buffer to be given back by whoever uses it last."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return bytearray(self._size_bytes)

    def give_back(self, buffer: bytearray) -> None:
        """Makes a taken buffer free for others."""
        with self._lock:
            self._free.append(buffer)

    @contextmanager
    def borrow(self) -> Iterator[memoryview]:
        """A writable buffer for the duration of the block; its content is whatever was left in it."""
        buffer = self.take()
        try:
            yield memoryview(buffer)
        finally:
            self.give_back(buffer)


def fetch_extents(store: ObjectStore, extents: Iterable[Extent]) -> dict[Extent, memoryview]:
    """Reads extents, near ones of an object in one request."""
    by_object: dict[str, set[Extent]] = {}
    for extent in extents:
        by_object.setdefault(extent.object, set()).add(extent)
    fetched: dict[Extent, memoryview] = {}
    for digest, wanted in by_object.items():
        ordered = sorted(wanted, key=lambda extent: extent.offset)
        ranges = store.get_ranges(
            object_key(digest), [extent.offset for extent in ordered], [extent.length for extent in ordered]
        )
        fetched.update(zip(ordered, ranges, strict=True))
    return fetched


def decode_window(
    store: ObjectStore,
    chain: Sequence[Content],
    window: int,
    payloads: Mapping[Extent, memoryview],
    out: memoryview,
    *,
    threads: int,
) -> None:
    """Decodes window number `window` of the last content of `chain` into `out`, root first and in place.

    `out` has the window's length; if the chain's first content has a base, `out` holds that base's window.
    `store` is asked again only when a frame is of an unknown format, to tell a newer one from a damaged
    one.
    """
    for content in chain:
        extent = content.extents[window]
        payload = payloads[extent]
        if content.codec == "raw":
            out[:] = payload
            continue
        try:
            codec.decode_into(payload, out, out if content.base is not None else None, threads=threads)
        except InvalidInputError as error:  # the call is right, so the frames are not
            raise CorruptDataError(f"frames of object {extent.object}: {error.args[0]}") from error
        except UnsupportedFormatError as error:
            size = store.head(object_key(extent.object)).size
            if digest_of_object(store, extent.object, size) != extent.object:
                raise DigestMismatchError(f"bytes of object {extent.object} changed") from error
            raise


def digest_of_object(
    store: ObjectStore, digest: str, size_bytes: int, read: Callable[[int], None] | None = None
) -> str:
    """BLAKE3 of an object's `size_bytes` bytes, read in parts; `read` hears of each part's size."""
    hasher = Blake3()
    for start in range(0, size_bytes, _OBJECT_READ_BYTES):
        length = min(_OBJECT_READ_BYTES, size_bytes - start)
        hasher.update(store.get_range(object_key(digest), start, length), threads=1)
        if read is not None:
            read(length)
    return hasher.hexdigest()


class _OrderedDigest:
    """BLAKE3 of a content whose windows are made by several threads: each waits for its turn to be hashed."""

    def __init__(self) -> None:
        self._hasher = Blake3()
        self._next = 0
        self._failed = False
        self._turn = threading.Condition()

    def update(self, window: int, data: memoryview, threads: int) -> str:
        """Hashes window number `window` once all before it are; the digest so far."""
        with self._turn:
            while self._next != window and not self._failed:
                self._turn.wait()
            if self._failed:
                raise Cancelled
        self._hasher.update(data, threads=threads)
        digest = self._hasher.hexdigest()
        with self._turn:
            self._next += 1
            self._turn.notify_all()
        return digest

    def fail(self) -> None:
        with self._turn:
            self._failed = True
            self._turn.notify_all()


class DigestCheck:
    """Compares contents with their digests as their windows are made, in any order and by any thread.

    A content is told from another by a `key` of the caller's choice.
    """

    def __init__(self, window_bytes: int, threads: int) -> None:
        self._window_bytes = window_bytes
        self._threads = threads
        self._digests: dict[Hashable, _OrderedDigest] = {}
        self._lock = threading.Lock()

    def update(self, key: Hashable, content: Content, window: int, data: memoryview) -> None:
        """Takes a window's bytes; with the last one raises DigestMismatchError if they are not the content.

        Raises Cancelled if `fail` was called for a window before this one.
        """
        last = -(-content.size // self._window_bytes) - 1
        if last <= 0:
            actual = blake3_hex(data, threads=self._threads)
        else:
            actual = self._digest(key).update(window, data, self._threads)
        if window >= last and actual != content.digest:
            raise DigestMismatchError(f"the bytes of content {content.digest} make the digest {actual}")

    def fail(self, key: Hashable) -> None:
        """Releases the threads that wait for a window of this content that will never come."""
        self._digest(key).fail()

    def _digest(self, key: Hashable) -> _OrderedDigest:
        with self._lock:
            return self._digests.setdefault(key, _OrderedDigest())


def run_in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    cost: Callable[[Item], int],
    budget_bytes: int,
) -> Iterator[Result]:
    """Results of `work` in the order of `items`, made by `workers` threads.

    An item's cost is held against the budget from before its start until its result was taken and used. The
    first error, in the order of the items, is raised once the threads that run have stopped; no further
    item is started.
    """
    pending: list[tuple[Future[Result], int]] = []
    used = 0
    source = iter(items)
    following: Item | None = next(source, None)
    with ThreadPoolExecutor(workers, thread_name_prefix="textnlp-fast") as pool:
        try:
            while pending or following is not None:
                while following is not None:
                    size = cost(following)
                    if pending and (used + size > budget_bytes or len(pending) >= 2 * workers):
                        break
                    pending.append((pool.submit(work, following), size))
                    used += size
                    following = next(source, None)
                future, size = pending.pop(0)
                yield future.result()
                used -= size
        finally:
            for future, _ in pending:
                future.cancel()


def with_context(error: DataError, what: str) -> DataError:
    """The same error, saying which content was being made."""
    renewed = type(error)(f"{what}: {error.args[0]}", hint=error.hint)
    renewed.position = error.position
    return renewed
