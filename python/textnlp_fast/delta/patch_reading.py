"""Reads the index of a patch, which may come from anybody.

Everything is checked before anything is used: counts are bounded, paths stay below the model, extents tile the
payload, recipes name contents that are there, end, and form no cycle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.contents.documents import (
    MAX_SIZE,
    Broken,
    check_digest,
    parse_document,
    take,
    take_size,
)
from textnlp_fast.contents.entries import (
    MAX_WINDOW_BYTES,
    MIN_WINDOW_BYTES,
    check_paths,
    extent_limit,
    read_file_entry,
)
from textnlp_fast.delta.depth import check_depth
from textnlp_fast.delta.elements import ELEMENTS
from textnlp_fast.delta.patch import (
    PATCH_FORMAT,
    End,
    HeldContent,
    Patch,
    Stored,
    check_version_name,
)
from textnlp_fast.delta.patch_promise import PatchPromise, read_promise
from textnlp_fast.delta.recipe import from_json
from textnlp_fast.errors import CorruptDataError, TextnlpFastError, UnsupportedFormatError

__all__ = ["parse_index"]

_DTYPE: Final = re.compile(r"[A-Za-z0-9_]{1,16}", re.ASCII)
_STRATEGY: Final = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)


def parse_index(data: bytes | memoryview, what: str = "the patch") -> Patch:
    """Reads and validates an index.

    Errors: UnsupportedFormatError for a newer format or kind of recipe, DigestMismatchError if bytes of it
    changed, CorruptDataError for anything that would lead outside the payload or a model's directory, or to
    unbounded work.
    """
    document = parse_document(data, what, formats=(PATCH_FORMAT,))
    try:
        return _build(document)
    except Broken as error:
        raise CorruptDataError(f"{what} is not a valid patch: {error}") from None
    except UnsupportedFormatError as error:
        raise UnsupportedFormatError(f"{what}: {error.args[0]}", hint=error.hint) from None
    except TextnlpFastError as error:
        raise CorruptDataError(f"{what} is not a valid patch: {error.args[0]}") from None


def _build(document: Mapping[str, Any]) -> Patch:
    where = "the patch"
    window = take_size(document, "window_bytes", where, MAX_WINDOW_BYTES)
    if window < MIN_WINDOW_BYTES:
        raise Broken(f"window_bytes is {window}, under {MIN_WINDOW_BYTES}")
    payload_digest, payload_bytes = _payload(take(document, "payload", list, where))
    held = {
        check_digest(digest, "a content of the source"): _held(digest, value)
        for digest, value in take(document, "held", dict, where).items()
    }
    contents = {
        check_digest(digest, "a content's name"): _stored(digest, value, window, payload_bytes)
        for digest, value in take(document, "contents", dict, where).items()
    }
    both = held.keys() & contents.keys()
    if both:
        raise Broken(f"content {min(both)} is one of the source and stored as well")
    _check_tiles(contents, payload_bytes)
    sizes = {digest: content.size for digest, content in held.items()}
    source = _end(document, "source", sizes)
    if source.parts().keys() != held.keys():
        raise Broken("the contents held are not those of the source's files")
    sizes.update((digest, stored.size) for digest, stored in contents.items())
    target = _end(document, "target", sizes)
    for stored in contents.values():
        if stored.base is not None:
            stored.base.check_sources(sizes)
    check_depth(contents)
    strategy = take(document, "strategy", str, where)
    if _STRATEGY.fullmatch(strategy) is None:
        raise Broken("the strategy is not a word")
    metadata = take(document, "metadata", dict, where)
    if not all(isinstance(value, str) for value in metadata.values()):
        raise Broken("metadata holds something other than text")
    promise = read_promise(document["promise"]) if "promise" in document else None
    if promise is not None:
        _check_promised(promise, target, sizes)
    return Patch(
        source, target, held, contents, window, payload_bytes, payload_digest, strategy, metadata, promise
    )


def _check_promised(promise: PatchPromise, target: End, sizes: Mapping[str, int]) -> None:
    named = {
        name: sizes[digest]
        for entry in target.files
        for name, digest in zip(entry.names, entry.parts[1:], strict=False)
    }
    if named.keys() != promise.tensors.tensors.keys():
        raise Broken("the promise is of other tensors than those of the target")
    for name, tensor in promise.tensors.tensors.items():
        element = ELEMENTS.get(tensor.dtype)
        if tensor.elements * (element.size_bytes if element else 1) != named[name]:
            raise Broken(f"the promise gives tensor {name!r} another size")


def _payload(value: list[Any]) -> tuple[str, int]:
    if len(value) != 2:
        raise Broken("payload is not [digest, size]")
    size = take_size({"size": value[1]}, "size", "the payload")
    return check_digest(value[0], "the payload's name"), size


def _dtype(value: object, where: str) -> str:
    if not isinstance(value, str) or _DTYPE.fullmatch(value) is None:
        raise Broken(f"{where} has the odd dtype {str(value)[:40]!a}")
    return value


def _held(digest: str, value: object) -> HeldContent:
    where = f"content {digest}"
    if not isinstance(value, list) or len(value) != 2:
        raise Broken(f"{where} of the source is not [size, dtype]")
    return HeldContent(take_size({"size": value[0]}, "size", where), _dtype(value[1], where))


def _stored(digest: str, value: object, window: int, payload_bytes: int) -> Stored:
    where = f"content {digest}"
    if not isinstance(value, dict):
        raise Broken(f"{where} is not an object")
    size = take_size(value, "size", where, MAX_SIZE)
    codec = take(value, "codec", str, where)
    if codec != "frames":
        raise UnsupportedFormatError(f"{where} is coded as {codec[:40]!a}, which this version does not know")
    dtype = _dtype(value.get("dtype"), where)
    rows = take(value, "extents", list, where)
    if len(rows) != -(-size // window):
        raise Broken(
            f"{where} has {len(rows)} extents, {size} bytes in windows of {window} make {-(-size // window)}"
        )
    extents = tuple(_extent(row, payload_bytes, where) for row in rows)
    for position, (_, length) in enumerate(extents):
        decoded = min(window, size - position * window)
        if length > extent_limit(decoded):
            raise Broken(f"extent {position} of {where} takes {length} bytes for {decoded}")
    base = value.get("base")
    recipe = None if base is None else from_json(base, size_bytes=size, dtype=dtype)
    return Stored(digest, size, dtype, recipe, extents)


def _extent(row: object, payload_bytes: int, where: str) -> tuple[int, int]:
    if not isinstance(row, list) or len(row) != 2 or not all(type(value) is int for value in row):
        raise Broken(f"an extent of {where} is not two integers")
    offset, length = row
    if offset < 0 or length < 1 or length > payload_bytes or offset > payload_bytes - length:
        raise Broken(
            f"an extent of {where} lies outside the payload: {length} bytes at {offset} of {payload_bytes}"
        )
    return offset, length


def _check_tiles(contents: Mapping[str, Stored], payload_bytes: int) -> None:
    """Extents lie one after the other, so a small payload cannot stand for much by being used again."""
    position = 0
    for offset, length in sorted(extent for stored in contents.values() for extent in stored.extents):
        if offset != position:
            what = "overlap" if offset < position else "leave a gap"
            raise Broken(f"the extents {what} at byte {min(offset, position)} of the payload")
        position += length
    if position != payload_bytes:
        raise Broken(f"the extents end at byte {position}, the payload at {payload_bytes}")


def _end(document: Mapping[str, Any], name: str, sizes: Mapping[str, int]) -> End:
    value = take(document, name, dict, "the patch")
    files = tuple(read_file_entry(row, sizes) for row in take(value, "files", list, f"the {name}"))
    check_paths([entry.path for entry in files])
    version = value.get("version")
    if version is not None and not isinstance(version, str):
        raise Broken(f"the version of the {name} is not text")
    end = End(check_version_name(version), files)
    if check_digest(value.get("digest"), f"the digest of the {name}") != end.digest:
        raise Broken(f"the files of the {name} do not make its digest")
    return end
