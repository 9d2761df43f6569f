"""Markers: what stands under a version's key when there is no such version (any more).

A key that once held something never becomes free again, and every marker is unique: a write whose condition is what
the key held before stays refused for ever, however late it comes. All markers have one size, which no manifest has, so
a listing tells them apart. That of a deleted version keeps the digest of its files: its number never means others.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from textnlp_fast.contents.documents import parse_document, seal_document
from textnlp_fast.errors import CorruptDataError, UnsupportedFormatError

__all__ = ["MARKER_BYTES", "is_marker", "marked_files", "new_marker"]

# Readers that know manifests only say "newer format" of it, and not "damaged".
_FORMAT: Final = 3
_NO_FILES: Final = "0" * 64


def new_marker(at: str, files: str | None) -> bytes:
    """A marker that no other equals.

    `at` is the time as manifests have it, `files` the digest of the version's files, None if there was none.
    """
    document = {
        "files": files or _NO_FILES,
        "format": _FORMAT,
        "gone_at": at,
        "kind": "marker",
        "write_id": secrets.token_hex(16),
    }
    return seal_document(document)


MARKER_BYTES: Final = len(new_marker("2025-01-31T12:00:00Z", None))


def is_marker(data: bytes) -> bool:
    """Whether this is a marker, whole and unharmed."""
    return _read(data) is not None


def marked_files(data: bytes) -> str | None:
    """The digest of the files that the version had; None if it had none, or this is no marker."""
    files = (_read(data) or {}).get("files")
    return files if isinstance(files, str) and files != _NO_FILES else None


def _read(data: bytes) -> dict[str, Any] | None:
    if len(data) != MARKER_BYTES:
        return None
    try:
        document = parse_document(data, "a marker", formats=(_FORMAT,))
    except (CorruptDataError, UnsupportedFormatError):
        return None
    return document if document.get("kind") == "marker" else None
