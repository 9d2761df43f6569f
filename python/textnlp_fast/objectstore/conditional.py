"""Conditional writes that tell a lost answer from a lost race.

A conditional put whose answer was lost looks like a conflict to whoever sends it again: the object is there,
because we wrote it. So no "no" is believed before the object was read back. The caller's data carries a write
id, hence equal bytes mean our own write; other bytes mean another writer.

Retries happen here and nowhere below: the store underneath sends every conditional put once.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator

from textnlp_fast.errors import (
    ConflictError,
    InvalidInputError,
    MissingObjectError,
    ObjectExistsError,
    StorageUnavailableError,
)
from textnlp_fast.objectstore.backend import Backend, PreconditionFailedError, Version
from textnlp_fast.telemetry import count

__all__ = ["Backoff", "check", "compare_and_swap", "create"]


# What is written under a condition is small: a stranger's object need not be read whole.
_LARGEST_BYTES = 256 << 20


class Backoff:
    """Bounded retries: exponential pauses with full jitter, so that writers who collided once do not do so
    again.

    ``retries`` further tries follow the first; ``first_pause_s`` doubles up to ``longest_pause_s``.
    """

    def __init__(self, retries: int, *, first_pause_s: float = 0.1, longest_pause_s: float = 5.0) -> None:
        self.retries = retries
        self.first_pause_s = first_pause_s
        self.longest_pause_s = longest_pause_s

    def tries(self) -> Iterator[int]:
        """0, 1, ..., ``retries``, with a pause before each but the first."""
        for attempt in range(self.retries + 1):
            if attempt:
                count(retries=1)
                ceiling = min(self.longest_pause_s, self.first_pause_s * 2.0 ** min(attempt - 1, 30))
                time.sleep(random.uniform(0.0, ceiling))
            yield attempt


def create(backend: Backend, key: str, data: bytes, backoff: Backoff) -> Version:
    """Store ``data`` under ``key`` if nothing is there, or find that this very write has happened already."""
    unanswered: StorageUnavailableError | None = None
    for _ in backoff.tries():
        try:
            return backend.put_if_absent(key, data)
        except PreconditionFailedError:
            pass
        except StorageUnavailableError as error:
            unanswered = error
        found = _read(backend, key)
        if found is None:
            continue  # not applied, or removed since, or refused only because another request was in flight
        existing, version = found
        if existing == data:
            return version
        conflict = ObjectExistsError(f"{key!r} exists already, with other content")
        conflict.existing = existing
        raise conflict
    raise StorageUnavailableError(
        f"could not create {key!r} in {backend.url}: {_reason(unanswered)}"
    ) from unanswered


def compare_and_swap(
    backend: Backend, key: str, new: bytes, expected: Version | None, backoff: Backoff
) -> Version:
    """Replace the object if it still is at ``expected`` (``None``: if it does not exist)."""
    if expected is None:
        return create(backend, key, new, backoff)
    unanswered: StorageUnavailableError | None = None
    for _ in backoff.tries():
        try:
            return backend.put_if_version(key, new, expected)
        except PreconditionFailedError:
            pass
        except StorageUnavailableError as error:
            unanswered = error
        found = _read(backend, key)
        if found is not None:
            current, version = found
            if current == new:
                return version
            if version == expected:
                continue  # our put has not happened; sending it again can change the object once at most
        conflict = ConflictError(f"{key!r} was {'changed' if found else 'removed'} by another writer")
        conflict.may_have_applied = unanswered is not None
        raise conflict
    raise StorageUnavailableError(
        f"could not update {key!r} in {backend.url}: {_reason(unanswered)}"
    ) from unanswered


def check(backend: Backend, key: str, backoff: Backoff) -> None:
    """Write ``key`` against conditions that do not hold; a store that lets it pass is refused."""
    first, second, third = (b"%d %s" % (number, secrets.token_hex(16).encode()) for number in range(3))
    try:
        old = create(backend, key, first, backoff)
        _must_refuse(lambda: backend.put_if_absent(key, third), "creates objects that exist already", backend)
        compare_and_swap(backend, key, second, old, backoff)
        _must_refuse(
            lambda: backend.put_if_version(key, third, old), "replaces objects that have changed", backend
        )
    finally:
        backend.delete(key)


def _must_refuse(write: Callable[[], Version], what: str, backend: Backend) -> None:
    try:
        write()
    except PreconditionFailedError:
        return
    raise InvalidInputError(
        f"{backend.url} takes conditional writes and {what}: two writers could publish the same version",
        hint="Use a store that keeps If-None-Match and If-Match (AWS S3, a current MinIO), or a folder.",
    )


def _read(backend: Backend, key: str) -> tuple[bytes, Version] | None:
    try:
        return backend.get(key, _LARGEST_BYTES)
    except MissingObjectError:
        return None


def _reason(unanswered: StorageUnavailableError | None) -> str:
    if unanswered is None:
        return "the store kept refusing it although nobody else had written"
    return str(unanswered.args[0])
