"""Contents window by window: buffers, threads that keep an order, digests of what comes in parts.

Memory is bounded by the windows in flight. Nothing is mapped: mapped pages would count as the process's own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from textnlp_fast.errors import CorruptDataError, DigestMismatchError, UnsupportedFormatError
from textnlp_fast.hashing import Blake3, blake3_hex
from textnlp_fast.telemetry import adopting
from textnlp_fast.tensors import read_into

__all__ = [
    "DATA_ERRORS",
    "MAX_PIECES",
    "BufferPool",
    "Cancelled",
    "DataError",
    "DigestCheck",
    "Named",
    "OpenFiles",
    "Piece",
    "Progress",
    "ProgressCallback",
    "plan_units",
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

DataError = CorruptDataError | UnsupportedFormatError
"""What stored bytes can be: harmed, or newer than this code."""

DATA_ERRORS = (CorruptDataError, UnsupportedFormatError)


class Cancelled(Exception):
    """Another window of the same content failed; its error is the one to report."""


# Small contents share a unit of work; more than this many and one unit would starve the other threads.
MAX_PIECES: Final = 512


@dataclass(frozen=True, slots=True)
class Piece:
    """Window number `window` of step number `step`: `length` bytes of its content, from `offset`."""

    step: int
    window: int
    offset: int
    length: int


def plan_units(sizes: Sequence[int], window_bytes: int) -> Iterator[tuple[Piece, ...]]:
    """Cuts contents of these sizes into units of work of at most `window_bytes`, in order.

    A unit is a window of a large content, or several small contents together.
    """
    group: list[Piece] = []
    filled = 0
    for step, size in enumerate(sizes):
        if group and (filled + size > window_bytes or len(group) >= MAX_PIECES):
            yield tuple(group)
            group, filled = [], 0
        if size > window_bytes:
            for window, offset in enumerate(range(0, size, window_bytes)):
                yield (Piece(step, window, offset, min(window_bytes, size - offset)),)
        else:
            group.append(Piece(step, 0, 0, size))
            filled += size
    if group:
        yield tuple(group)


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
        read_into(self.descriptor(location), offset, view)

    def read_scattered(self, location: str, views: Sequence[memoryview], offset: int) -> None:
        """Fills at most 1024 views, one after the other, from byte `offset` of the file at `location`."""
        descriptor = self.descriptor(location)
        count = os.preadv(descriptor, views, offset)
        done = 0
        for view in views:
            have = max(0, min(len(view), count - done))
            if have < len(view):  # a short read: interrupted, longer than a call takes, or at the end
                read_into(descriptor, offset + done + have, view[have:])
            done += len(view)

    def descriptor(self, location: str) -> int:
        """The file, open."""
        with self._lock:
            descriptor = self._descriptors.get(location)
            if descriptor is None:
                descriptor = self._descriptors[location] = os.open(location, os.O_RDONLY | os.O_CLOEXEC)
            return descriptor


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


class Named(Protocol):
    """A run of `size` bytes whose BLAKE3 digest is its name."""

    @property
    def digest(self) -> str: ...

    @property
    def size(self) -> int: ...


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

    def update(self, key: Hashable, content: Named, window: int, data: memoryview) -> None:
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
    with ThreadPoolExecutor(workers, thread_name_prefix="textnlp-fast", initializer=adopting()) as pool:
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


def with_context(error: DataError, what: str, *, hint: str | None = None) -> DataError:
    """The same error, saying which content was being made, and perhaps what to do."""
    renewed = type(error)(f"{what}: {error.args[0]}", hint=hint or error.hint)
    renewed.position = error.position
    return renewed
