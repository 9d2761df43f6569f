"""A store that asks before every write whether its user may still write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from textnlp_fast.objectstore.backend import Backend, ObjectMeta, Version

__all__ = ["GuardedBackend"]


class GuardedBackend:
    """Another backend, with ``check`` called before each write and each removal: what it raises stops that one.

    For who works under a lease: once it is lost, nothing more is written. A check cannot hold back a write that has
    passed it, so what is written must bear two writers all the same.
    """

    def __init__(self, backend: Backend, check: Callable[[], None]) -> None:
        self.url = backend.url
        self._backend = backend
        self._check = check

    def get(self, key: str, limit_bytes: int | None) -> tuple[bytes, Version]:
        return self._backend.get(key, limit_bytes)

    def get_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
        return self._backend.get_ranges(key, starts, lengths)

    def head(self, key: str) -> ObjectMeta:
        return self._backend.head(key)

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        return self._backend.list(prefix)

    def put(self, key: str, data: memoryview) -> None:
        self._check()
        self._backend.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> Version:
        self._check()
        return self._backend.put_if_absent(key, data)

    def put_if_version(self, key: str, data: bytes, expected: Version) -> Version:
        self._check()
        return self._backend.put_if_version(key, data, expected)

    def delete(self, key: str) -> None:
        self._check()
        self._backend.delete(key)
