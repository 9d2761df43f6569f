"""A lease: who works at something now, by compare-and-swap on one object, without a server.

A lease saves work that two would do twice; it cannot keep a holder that was stopped and woken up again from writing.
So what is written under it must bear two writers, or carry the ``token``, which grows with every new holder.

No clock is compared with another: a waiter takes a lease over once it has *watched* it unchanged for as long as the
lease says, by its own clock, and a holder counts from before it asked. Two clocks must only run at about the same rate:
a holder stops believing ``RATE_BOUND`` before the time is over.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast.errors import ConflictError, CorruptDataError, MissingObjectError
from textnlp_fast.objectstore.backend import Version
from textnlp_fast.objectstore.store import ObjectStore

__all__ = ["RATE_BOUND", "Lease", "acquire"]

RATE_BOUND: Final = 0.1
"""Clocks of different machines may run apart by this share of a lease's time."""

_LIMIT_BYTES: Final = 1 << 16
_LEAST_POLL_S: Final = 0.02

Clock = Callable[[], float]


def _boot_clock() -> float:
    # Goes on while a machine sleeps, which the monotonic clock of Linux does not.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(slots=True)
class Lease:
    """Held from ``acquire`` to ``release``, as long as it is renewed in time. Not thread-safe."""

    store: ObjectStore
    key: str
    holder: str
    seconds: float
    token: int
    _version: Version
    _until: float
    _clock: Clock

    @property
    def is_held(self) -> bool:
        """Whether nobody else can hold it yet, by this machine's clock."""
        return self._clock() < self._until

    def renew(self) -> None:
        """Holds it for another ``seconds``. Raises ConflictError if another took it over."""
        asked = self._clock()
        data = _document(self.holder, self.seconds, self.token, free=False)
        self._version = self.store.compare_and_swap(self.key, data, self._version)
        self._until = asked + self.seconds * (1 - RATE_BOUND)

    def release(self) -> None:
        """Lets the next one in at once. No error if another took it over."""
        self._until = self._clock()
        data = _document(self.holder, self.seconds, self.token, free=True)
        try:
            self._version = self.store.compare_and_swap(self.key, data, self._version)
        except ConflictError:
            return


def acquire(
    store: ObjectStore,
    key: str,
    *,
    holder: str,
    seconds: float,
    clock: Clock = _boot_clock,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Takes the lease at ``key``; ``holder`` says to people who has it.

    Where somebody has it, watches for as long as that lease lasts: raises ConflictError if it was renewed or changed
    hands meanwhile, takes it over if not.
    """
    while True:
        asked = clock()
        version, found = _read(store, key)
        if found is not None and not found["free"]:
            _watch(store, key, version, found, clock, sleep)
            asked = clock()
        token = 1 if found is None else found["token"] + 1
        data = _document(holder, seconds, token, free=False)
        try:
            taken = store.compare_and_swap(key, data, version)
        except ConflictError:
            continue  # another was first; it holds it now, or had it a moment ago
        return Lease(store, key, holder, seconds, token, taken, asked + seconds * (1 - RATE_BOUND), clock)


def _watch(
    store: ObjectStore,
    key: str,
    version: Version | None,
    found: dict[str, Any],
    clock: Clock,
    sleep: Callable[[float], None],
) -> None:
    """Returns once the lease has run out; raises ConflictError if its holder is alive."""
    began, lasts = clock(), found["seconds"]
    while clock() - began < lasts:
        sleep(max(_LEAST_POLL_S, min(lasts / 10, lasts - (clock() - began))))
        now, state = _read(store, key)
        if now == version:
            continue
        if state is None or state["free"]:
            return  # the write that follows is on the condition of the old state: the caller reads again
        raise ConflictError(
            f"{found['holder']} is at work at {key!r} in {store.url}",
            hint="Wait until it is done, then run the command again.",
        )


def _document(holder: str, seconds: float, token: int, *, free: bool) -> bytes:
    document = {
        "free": free,
        "holder": holder,
        "milliseconds": round(seconds * 1000),
        "token": token,
        "write_id": secrets.token_hex(16),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _read(store: ObjectStore, key: str) -> tuple[Version | None, dict[str, Any] | None]:
    try:
        data, version = store.get_versioned(key, limit_bytes=_LIMIT_BYTES)
    except MissingObjectError:
        return None, None
    try:
        document = json.loads(data)
        found = {
            "free": bool(document["free"]),
            "holder": str(document["holder"]),
            "seconds": min(3600.0, max(0.0, int(document["milliseconds"]) / 1000)),
            "token": int(document["token"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(
            f"{key!r} in {store.url} is no lease: {error}", hint="If nobody is at work, delete it."
        ) from None
    return version, found
