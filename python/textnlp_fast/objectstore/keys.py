"""Object keys: one portable alphabet, so that a key means the same object in a bucket and in a folder.

Only what others named may have other names: see :func:`check_foreign_key`.
"""

from __future__ import annotations

import re
import unicodedata

from textnlp_fast.errors import InvalidInputError

__all__ = ["RESERVED_SEGMENTS", "check_file_key", "check_foreign_key", "check_key", "check_prefix"]

RESERVED_SEGMENTS = frozenset({".tmp", ".locks"})
"""First segments that the local store keeps for itself; refused in every store, so that one can be copied."""

# Letters, digits and the punctuation that no store percent-encodes and every file system takes.
_SEGMENT = re.compile(r"[A-Za-z0-9._+=@,~-]{1,255}", re.ASCII)
_MAX_KEY_BYTES = 900  # S3 allows 1024 bytes, and a prefix comes in front
_MAX_FOREIGN_BYTES = 1024  # with the prefix: what S3 and Google allow; Azure counts characters


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


def check_foreign_key(key: str, prefix: str = "") -> str:
    """Return the key of an object that no repository named, if a bucket can have it below ``prefix``.

    Any characters but control characters, in segments that are not empty, '.' or '..': what lies between two slashes
    there would be lost in a file's path or a URL. Raises :class:`InvalidInputError` for any other.
    """
    _check_segments(key)
    try:
        size = len(f"{prefix}/{key}".lstrip("/").encode())
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"object key {key!r} is no Unicode text", hint="Name the object anew."
        ) from None
    if size > _MAX_FOREIGN_BYTES:
        raise InvalidInputError(f"object key of {size} bytes: at most {_MAX_FOREIGN_BYTES} are allowed")
    if any(unicodedata.category(character) == "Cc" for character in key):
        raise InvalidInputError(f"object key {key!r} holds control characters")
    return key


def check_file_key(key: str) -> str:
    """Return the key of a file of a folder, which may have any name that a file can have."""
    _check_segments(key)
    if "\0" in key or key.split("/", 1)[0] in RESERVED_SEGMENTS:
        raise InvalidInputError(f"object key {key!r} is reserved for the store itself, or no file's name")
    return key


def _check_segments(key: str) -> None:
    if not isinstance(key, str) or not key:
        raise InvalidInputError(f"an object key is a non-empty string, not {key!r}")
    if any(segment in {"", ".", ".."} for segment in key.split("/")):
        raise InvalidInputError(
            f"object key {key!r}: no segment is empty, '.' or '..'",
            hint="Write it with single slashes, and none at its ends.",
        )
