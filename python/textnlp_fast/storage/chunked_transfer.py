"""Moves contents window by window: ranged reads, chains decoded in place, digests taken in order.

Memory is bounded by the windows in flight. Nothing is mapped: mapped pages would count as the process's own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from textnlp_fast.delta import codec
from textnlp_fast.errors import CorruptDataError, DigestMismatchError, InvalidInputError
from textnlp_fast.hashing import Blake3
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.manifest import Content, Extent

__all__ = [
    "BufferPool",
    "Cancelled",
    "OpenFiles",
    "OrderedDigest",
    "Progress",
    "ProgressCallback",
    "check_digest",
    "decode_window",
    "fetch_extents",
    "object_key",
    "read_exactly",
    "run_in_order",
    "with_context",
    "write_exactly",
]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage ("hash", "push", "pull", "verify") has come, in bytes of the model."""

    stage: str
    done_bytes: int
    total_bytes: int


ProgressCallback = Callable[[Progress], None]


class Cancelled(Exception):
    """Another window of the same content failed; its error is the one to report."""


def object_key(digest: str) -> str:
    """Key of an immutable object."""
    return f"objects/{digest[:2]}/{digest}"


def read_exactly(descriptor: int, view: memoryview, offset: int) -> None:
    """Fills `view` from byte `offset` of the file. Raises InvalidInputError if the file ends before."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise InvalidInputError(
                f"a local file ended at byte {offset + done} while it was read",
                hint="Something shortened it meanwhile; run the command again when nothing writes there.",
            )
        done += count


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
        read_exactly(descriptor, view, offset)


class BufferPool:
    """Reused buffers of one size: touching fresh memory costs more than decoding into it."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self) -> Iterator[memoryview]:
        """A writable buffer for the duration of the block; its content is whatever was left in it."""
        with self._lock:
            buffer = self._free.pop() if self._free else None
        if buffer is None:
            buffer = bytearray(self._size_bytes)
        try:
            yield memoryview(buffer)
        finally:
            with self._lock:
                self._free.append(buffer)


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
    chain: Sequence[Content],
    window: int,
    payloads: Mapping[Extent, memoryview],
    out: memoryview,
    *,
    threads: int,
) -> None:
    """Decodes window number `window` of the last content of `chain` into `out`, root first and in place.

    `out` has the window's length; if the chain's first content has a base, `out` holds that base's window.
    """
    for content in chain:
        payload = payloads[content.extents[window]]
        if content.codec == "raw":
            out[:] = payload
        else:
            codec.decode_into(payload, out, out if content.base is not None else None, threads=threads)


class OrderedDigest:
    """BLAKE3 of a content whose windows are made by several threads: each waits for its turn to be hashed."""

    def __init__(self, content: Content | None = None) -> None:
        self._hasher = Blake3()
        self._content = content
        self._next = 0
        self._failed = False
        self._turn = threading.Condition()

    def update(self, window: int, data: memoryview, *, threads: int = 1) -> None:
        """Hashes window number `window` once all before it are. Raises Cancelled if one of those failed."""
        with self._turn:
            while self._next != window and not self._failed:
                self._turn.wait()
            if self._failed:
                raise Cancelled
        self._hasher.update(data, threads=threads)
        with self._turn:
            self._next += 1
            self._turn.notify_all()

    def fail(self) -> None:
        """Releases the threads that wait for a window that will never come."""
        with self._turn:
            self._failed = True
            self._turn.notify_all()

    @property
    def hexdigest(self) -> str:
        return self._hasher.hexdigest()


def run_in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    cost: Callable[[Item], int],
    budget_bytes: int,
) -> Iterator[Result]:
    """Results of `work` in the order of `items`, made by `workers` threads.

    An item's cost is held against the budget from before its start until its result was taken and used. The first
    error, in the order of the items, is raised once the threads that run have stopped; no further item is started.
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


def check_digest(expected: str, actual: str, what: str) -> None:
    """Raises DigestMismatchError if the bytes that were made are not those that were stored."""
    if expected != actual:
        raise DigestMismatchError(f"{what} does not match its digest: expected {expected}, got {actual}")


def with_context(error: CorruptDataError, what: str) -> CorruptDataError:
    """The same error, saying which content was being made."""
    renewed = type(error)(f"{what}: {error.args[0]}", hint=error.hint)
    renewed.position = error.position
    return renewed
