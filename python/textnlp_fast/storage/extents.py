"""Moves contents window by window: ranged reads, chains decoded in place, digests taken in order.

Memory is bounded by the windows in flight. Nothing is mapped: mapped pages would count as the process's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from textnlp_fast.delta import codec
from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    InvalidInputError,
    MissingObjectError,
    UnsupportedFormatError,
)
from textnlp_fast.hashing import Blake3
from textnlp_fast.objectstore import ObjectMeta, ObjectStore
from textnlp_fast.storage.manifest import Content, Extent

__all__ = ["check_object", "decode_window", "digest_of_object", "fetch_extents", "is_whole", "object_key"]

_OBJECT_READ_BYTES = 8 << 20


def object_key(digest: str) -> str:
    """Key of an immutable object."""
    return f"objects/{digest[:2]}/{digest}"


class Heads(Protocol):
    """The part of an object store that tells sizes."""

    def head(self, key: str) -> ObjectMeta: ...


def is_whole(store: Heads, digest: str, size_bytes: int) -> bool:
    """Whether an immutable object is there in its full size: one that was cut short is as good as lost."""
    try:
        return store.head(object_key(digest)).size == size_bytes
    except MissingObjectError:
        return False


def fetch_extents(store: ObjectStore, extents: Iterable[Extent]) -> dict[Extent, memoryview]:
    """Reads extents, near ones of an object in one request."""
    by_object: dict[str, set[Extent]] = {}
    for extent in extents:
        by_object.setdefault(extent.object, set()).add(extent)
    fetched: dict[Extent, memoryview] = {}
    for digest, wanted in by_object.items():
        ordered = sorted(wanted, key=lambda extent: extent.offset)
        ranges = store.get_ranges(
            object_key(digest), [extent.offset for extent in ordered], [extent.length for extent in ordered]
        )
        fetched.update(zip(ordered, ranges, strict=True))
    return fetched


def decode_window(
    store: ObjectStore,
    chain: Sequence[Content],
    window: int,
    payloads: Mapping[Extent, memoryview],
    out: memoryview,
    *,
    threads: int,
) -> None:
    """Decodes window number `window` of the last content of `chain` into `out`, root first and in place.

    `out` has the window's length; if the chain's first content has a base, `out` holds that base's window.
    `store` is asked again only when a frame is of an unknown format, to tell a newer one from a damaged
    one.
    """
    for content in chain:
        extent = content.extents[window]
        payload = payloads[extent]
        if content.codec == "raw":
            out[:] = payload
            continue
        try:
            codec.decode_into(payload, out, out if content.base is not None else None, threads=threads)
        except InvalidInputError as error:  # the call is right, so the frames are not
            raise CorruptDataError(f"frames of object {extent.object}: {error.args[0]}") from error
        except UnsupportedFormatError as error:
            check_object(store, extent.object, error)
            raise


def check_object(store: ObjectStore, digest: str, cause: Exception | None = None) -> None:
    """Raises DigestMismatchError, because of `cause`, unless an object's bytes are those that were written."""
    size = store.head(object_key(digest)).size
    if digest_of_object(store, digest, size) != digest:
        raise DigestMismatchError(f"bytes of object {digest} changed") from cause


def digest_of_object(
    store: ObjectStore, digest: str, size_bytes: int, read: Callable[[int], None] | None = None
) -> str:
    """BLAKE3 of an object's `size_bytes` bytes, read in parts; `read` hears of each part's size."""
    hasher = Blake3()
    for start in range(0, size_bytes, _OBJECT_READ_BYTES):
        length = min(_OBJECT_READ_BYTES, size_bytes - start)
        hasher.update(store.get_range(object_key(digest), start, length), threads=1)
        if read is not None:
            read(length)
    return hasher.hexdigest()
