"""A backend whose immutable objects are read from nearby first. All else goes to the origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from textnlp_fast.objectstore.backend import Backend, ObjectMeta, Signing, Version
from textnlp_fast.objectstore.peers.pieces import digest_of_key
from textnlp_fast.objectstore.peers.swarm import Swarm

__all__ = ["PeerBackend"]


class PeerBackend:
    """Reads ranges of ``objects/...`` through a swarm; manifests, references and every write are the origin's."""

    def __init__(self, origin: Backend, swarm: Swarm) -> None:
        self.url = origin.url
        self.origin = origin
        self.swarm = swarm

    def get(self, key: str, limit_bytes: int | None) -> tuple[bytes, Version]:
        return self.origin.get(key, limit_bytes)

    def get_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
        digest = digest_of_key(key)
        if digest is None:
            return self.origin.get_ranges(key, starts, lengths)
        return self.swarm.read_ranges(digest, starts, lengths)

    def head(self, key: str) -> ObjectMeta:
        return self.origin.head(key)

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        return self.origin.list(prefix)

    def put(self, key: str, data: memoryview) -> None:
        self.origin.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> Version:
        return self.origin.put_if_absent(key, data)

    def put_if_version(self, key: str, data: bytes, expected: Version) -> Version:
        return self.origin.put_if_version(key, data, expected)

    def delete(self, key: str) -> None:
        self.origin.delete(key)

    def signed_url(self, method: Literal["GET", "HEAD", "PUT"], key: str, *, lifetime_s: float) -> str | None:
        if isinstance(self.origin, Signing):
            return self.origin.signed_url(method, key, lifetime_s=lifetime_s)
        return None
