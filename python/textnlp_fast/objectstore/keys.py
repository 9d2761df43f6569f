"""Object keys: one portable alphabet, so that a key means the same object in a bucket and in a folder."""

from __future__ import annotations

import re

from textnlp_fast.errors import InvalidInputError

__all__ = ["RESERVED_SEGMENTS", "check_key", "check_prefix"]

RESERVED_SEGMENTS = frozenset({".tmp", ".locks"})
"""First segments that the local store keeps for itself; refused in every store, so that one can be copied."""

# Letters, digits and the punctuation that no store percent-encodes and every file system takes.
_SEGMENT = re.compile(r"[A-Za-z0-9._+=@,~-]{1,255}", re.ASCII)
_MAX_KEY_BYTES = 900  # S3 allows 1024 bytes, and a prefix comes in front


def check_key(key: str) -> str:
    """Return ``key`` if it is a relative path of safe segments, else raise :class:`InvalidInputError`."""
    if not isinstance(key, str) or not key:
        raise InvalidInputError(f"an object key is a non-empty string, not {key!r}")
    if len(key) > _MAX_KEY_BYTES:
        raise InvalidInputError(f"object key of {len(key)} characters: at most {_MAX_KEY_BYTES} are allowed")
    segments = key.split("/")
    for segment in segments:
        if segment in {".", ".."} or not _SEGMENT.fullmatch(segment):
            raise InvalidInputError(
                f"object key {key!r}: the segment {segment!r} is not allowed",
                hint="Use letters, digits and . _ + = @ , ~ - between single slashes; no '.' or '..'.",
            )
    if segments[0] in RESERVED_SEGMENTS:
        raise InvalidInputError(f"object key {key!r}: {segments[0]!r} is reserved for the store itself")
    return key


def check_prefix(prefix: str) -> str:
    """Return a listing prefix without its trailing slash; the empty prefix means everything."""
    stripped = prefix.removesuffix("/")
    return check_key(stripped) if stripped else ""
