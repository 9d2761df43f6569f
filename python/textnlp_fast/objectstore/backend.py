"""What a place for objects must do; :mod:`local` and :mod:`remote` are the two that exist.

A backend is small and honest: it says what it saw. Write ids, read-back and retries of conditional writes are
decided once for all of them, in :mod:`conditional`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

__all__ = ["Backend", "ObjectMeta", "PreconditionFailedError", "Signing", "Staging", "Version"]


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """What a store says about an object without reading it.

    ``etag`` changes whenever the object is written.
    """

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Version:
    """One state of an object, to be handed back to ``compare_and_swap``; opaque to the caller."""

    etag: str
    version: str | None = None


class PreconditionFailedError(Exception):
    """A conditional write was answered "no".

    Internal: see :mod:`conditional`.
    """


class Backend(Protocol):
    """Objects by key.

    Thread-safe; raises the errors of :mod:`textnlp_fast.errors` and ``PreconditionFailedError``.
    """

    url: str

    def get(self, key: str, limit_bytes: int | None) -> tuple[bytes, Version]:
        """The whole object and the version that was read."""
        ...

    def get_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
        """Byte ranges, each at most as long as asked for (shorter where the object ends)."""
        ...

    def head(self, key: str) -> ObjectMeta: ...

    def put(self, key: str, data: memoryview) -> None:
        """Write or overwrite: afterwards the object is whole or as it was."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> Version: ...

    def put_if_version(self, key: str, data: bytes, expected: Version) -> Version: ...

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        """Objects below the folder ``prefix``, in the order of their keys."""
        ...

    def delete(self, key: str) -> None:
        """Remove; an object that is not there is removed already."""
        ...


@runtime_checkable
class Staging(Protocol):
    """A backend that can do most of a write ahead of it."""

    def stage(self, key: str, data: bytes) -> None:
        """Brings the bytes so far that only their name is missing: the conditional put of them will give that."""
        ...

    def unstage(self, key: str) -> None:
        """Forgets what was staged and not put."""
        ...


@runtime_checkable
class Signing(Protocol):
    """A backend whose objects can be read by URL."""

    def signed_url(self, method: Literal["GET", "HEAD", "PUT"], key: str, *, lifetime_s: float) -> str | None:
        """A URL that lets whoever holds it do so for a while; ``None`` where there is no such thing."""
        ...
