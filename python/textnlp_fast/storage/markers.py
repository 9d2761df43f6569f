"""Markers: what stands under a version's key when there is no such version (any more).

A key that once held something never becomes free again, and every marker is unique: a write whose condition is what
the key held before stays refused for ever, however late it comes. All markers have one size, which no manifest has, so
a listing tells them apart.
"""

from __future__ import annotations

import secrets
from typing import Final

from textnlp_fast.contents.documents import parse_document, seal_document
from textnlp_fast.errors import CorruptDataError, UnsupportedFormatError

__all__ = ["MARKER_BYTES", "is_marker", "new_marker"]

# Readers that know manifests only say "newer format" of it, and not "damaged".
_FORMAT: Final = 3


def new_marker(at: str) -> bytes:
    """A marker that no other equals; `at` is the time as manifests have it."""
    return seal_document(
        {"format": _FORMAT, "gone_at": at, "kind": "marker", "write_id": secrets.token_hex(16)}
    )


MARKER_BYTES: Final = len(new_marker("2025-01-31T12:00:00Z"))


def is_marker(data: bytes) -> bool:
    """Whether this is a marker, whole and unharmed."""
    if len(data) != MARKER_BYTES:
        return False
    try:
        return parse_document(data, "a marker", formats=(_FORMAT,)).get("kind") == "marker"
    except (CorruptDataError, UnsupportedFormatError):
        return False
