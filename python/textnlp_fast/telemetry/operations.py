"""Operations as they happen: what was done to which model, how long it took, what it counted on the way.

A verb is wrapped in :func:`operation`; whatever runs inside adds to it by :func:`count`, however deep, and names
its parts by :func:`phase`. Listeners (:mod:`metrics`, :mod:`traces`) hear of it. While nobody listens, all of this
costs a few attribute look-ups.

Bytes that go to and from a repository are counted where they pass (``ObjectStore``), so a verb counts only what the
store cannot see: what it saved, found in a cache, published. Operations may nest: each thing is counted once, by the
innermost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Final, ParamSpec, Protocol, TypeVar

__all__ = ["COUNTS", "Listener", "Operation", "adopted", "adopting", "count", "listen", "operation", "phase"]

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

COUNTS: Final = (
    "bytes_read",
    "bytes_written",
    "bytes_saved",
    "retries",
    "cache_hits",
    "cache_misses",
    "versions",
)
"""What can be counted. All are integers that only grow."""

_log = logging.getLogger(__name__)


class Operation:
    """One run of a verb. ``seconds`` and ``error`` are known when it has ended.

    ``counts`` are those of :data:`COUNTS` that came up. Thread-safe.
    """

    __slots__ = (
        "_before",
        "_lock",
        "counts",
        "error",
        "listeners",
        "model",
        "name",
        "parent",
        "repository",
        "seconds",
        "started",
        "started_ns",
        "stored_bytes",
        "version",
    )

    def __init__(
        self,
        name: str,
        model: str | None,
        version: str | None,
        repository: str | None,
        parent: Operation | None,
    ) -> None:
        self.name = name
        self.model = model
        self.version = version
        self.repository = repository
        self.parent = parent
        self.counts: dict[str, int] = {}
        self.stored_bytes: int | None = None
        self.seconds = 0.0
        self.error: BaseException | None = None
        self.listeners: tuple[Listener, ...] = ()
        self.started = 0.0
        self.started_ns = 0
        self._lock = threading.Lock()
        self._before: list[Operation | None] = []

    @property
    def outcome(self) -> str:
        """``ok``, or the name of the error's class."""
        return "ok" if self.error is None else type(self.error).__name__

    def count(self, **counts: int) -> None:
        """Adds to the operation's counts; names other than :data:`COUNTS` are a mistake (``TypeError``)."""
        if not self.listeners:
            return
        for name in counts:
            if name not in COUNTS:
                raise TypeError(f"{name!r} is not counted; there are {', '.join(COUNTS)}")
        with self._lock:
            for name, more in counts.items():
                self.counts[name] = self.counts.get(name, 0) + more

    def stores(self, size_bytes: int) -> None:
        """Says what the version that the operation published added to its model's storage, in bytes."""
        if self.listeners:
            with self._lock:
                self.stored_bytes = (self.stored_bytes or 0) + size_bytes

    def __enter__(self) -> Operation:
        # An operation that begins while nobody listens stays unheard: half of one would tell nothing true.
        if not _listeners:
            return self
        self.listeners = _listeners
        self._before.append(_current.get())
        _current.set(self)
        self.started_ns = time.time_ns()
        self.started = time.perf_counter()
        for listener in self.listeners:
            _tell(listener.began, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.listeners:
            return
        self.seconds = time.perf_counter() - self.started
        self.error = error
        # Set and not reset by a token: a generator may leave in another context than it entered.
        _current.set(self._before.pop())
        for listener in self.listeners:
            _tell(listener.ended, self)


class Listener(Protocol):
    """Hears of operations, on the threads that run them. What it raises is logged and harms nothing."""

    def began(self, operation: Operation) -> None: ...

    def ended(self, operation: Operation) -> None: ...

    def phase_ended(self, operation: Operation, name: str, started_ns: int, seconds: float) -> None:
        """A part of an operation is over; ``started_ns`` since the epoch."""
        ...

    def counted(self, counts: dict[str, int]) -> None:
        """Something was counted outside of every operation."""
        ...


_current: ContextVar[Operation | None] = ContextVar("textnlp_fast_operation", default=None)
_listeners: tuple[Listener, ...] = ()
_listeners_lock = threading.Lock()


def operation(
    name: str, *, model: str | None = None, version: str | None = None, repository: str | None = None
) -> Operation:
    """The operation ``name``, to be entered by ``with``: a verb's name, with dots below a noun (``alias.set``).

    ``repository`` is its URL.
    """
    return Operation(name, model, version, repository, _current.get() if _listeners else None)


def count(**counts: int) -> None:
    """Adds to the counts of the operation that this thread works for."""
    if not _listeners:
        return
    current = _current.get()
    if current is not None:
        current.count(**counts)
    else:
        for listener in _listeners:
            _tell(listener.counted, counts)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """A part of the operation that this thread works for, such as ``hash`` or ``upload``."""
    current = _current.get() if _listeners else None
    if current is None:
        yield
        return
    started_ns, started = time.time_ns(), time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        for listener in current.listeners:
            _tell(listener.phase_ended, current, name, started_ns, seconds)


def adopting() -> Callable[[], None]:
    """An ``initializer`` for a pool of threads that work for the operation of the thread that calls this."""
    current = _current.get() if _listeners else None

    def adopt() -> None:
        _current.set(current)

    return adopt


def adopted(work: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """``work`` for a thread of anybody's pool: done for the operation of the thread that calls this."""
    adopt = adopting()

    def done(*given: _Given.args, **named: _Given.kwargs) -> _Result:
        adopt()
        return work(*given, **named)

    return done


def listen(listener: Listener) -> Callable[[], None]:
    """Tells ``listener`` of every operation that begins from now on; what is returned stops that."""
    global _listeners  # noqa: PLW0603 - one place that all threads read without a lock
    with _listeners_lock:
        _listeners = (*_listeners, listener)

    def stop() -> None:
        global _listeners  # noqa: PLW0603
        with _listeners_lock:
            _listeners = tuple(other for other in _listeners if other is not listener)

    return stop


def _tell(method: Callable[..., None], *arguments: object) -> None:
    """Calls a listener's method. A model is not lost because its metrics are."""
    try:
        method(*arguments)
    except Exception:  # noqa: BLE001
        _log.warning("a listener of operations failed", exc_info=True)
