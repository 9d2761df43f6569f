"""Reads sealed documents and manifests, which come from a bucket that others may write to.

Everything is checked before anything is used: every count is bounded, every path stays inside the directory
it names, every extent lies inside its object and every chain of bases ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    TextnlpFastError,
    UnsupportedFormatError,
)
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage.manifest import (
    FORMAT,
    MAX_WINDOW_BYTES,
    MIN_WINDOW_BYTES,
    Content,
    Extent,
    FileEntry,
    Manifest,
    canonical,
    chain_of,
    check_path,
    extent_limit,
    file_digest,
)

__all__ = ["parse_document", "parse_manifest"]

MAX_MANIFEST_BYTES: Final = 512 << 20
MAX_SIZE: Final = 1 << 52

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DTYPE = re.compile(r"[A-Za-z0-9_]{1,16}", re.ASCII)


class _Broken(Exception):
    """Carries what is wrong from the field that is wrong to the message that names the document."""


def _refuse_constant(name: str) -> None:
    raise _Broken(f"{name} is not a number of this format")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _Broken("a key appears twice")
    return document


def parse_document(data: bytes | memoryview, what: str) -> dict[str, Any]:
    """Reads a sealed JSON document and checks its format number and digest. `what` names it in errors."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise CorruptDataError(f"{what} is {len(data)} bytes; this reader takes {MAX_MANIFEST_BYTES}")
    try:
        document = json.loads(bytes(data), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, _Broken) as error:
        raise CorruptDataError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise CorruptDataError(f"{what} is not a JSON object")
    number = document.get("format")
    if isinstance(number, bool) or not isinstance(number, int):
        raise CorruptDataError(f"{what} carries no format number")
    if number != FORMAT:
        raise UnsupportedFormatError(f"{what} has format {number}; this textnlp-fast reads format {FORMAT}")
    digest = document.pop("digest", None)
    try:
        actual = blake3_hex(canonical(document))
    except (UnicodeEncodeError, RecursionError) as error:
        raise CorruptDataError(f"{what} is not valid JSON: {error}") from None
    if digest != actual:
        raise DigestMismatchError(f"{what} does not match the digest it carries: bytes of it changed")
    return document


def parse_manifest(data: bytes | memoryview, what: str = "the manifest") -> Manifest:
    """Reads and validates a manifest.

    Errors: UnsupportedFormatError for a format number other than this one, DigestMismatchError if bytes of
    it changed, CorruptDataError for anything that would lead outside the version's directory or its
    objects, or to unbounded work.
    """
    document = parse_document(data, what)
    try:
        manifest = _build(document)
    except _Broken as error:
        raise CorruptDataError(f"{what} is not a valid manifest: {error}") from None
    except TextnlpFastError as error:
        raise CorruptDataError(f"{what} is not a valid manifest: {error.args[0]}") from None
    return manifest


def _take(document: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = document.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Broken(f"{where} has no {key!r} of type {kind.__name__}")
    return value


def _take_size(document: Mapping[str, Any], key: str, where: str, limit: int = MAX_SIZE) -> int:
    value: int = _take(document, key, int, where)
    if not 0 <= value <= limit:
        raise _Broken(f"{key} of {where} is {value}, outside 0..{limit}")
    return value


def _check_digest(value: object, where: str) -> str:
    if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
        raise _Broken(f"{where} is not a digest of 64 lower-case hex digits")
    return value


def _build(document: Mapping[str, Any]) -> Manifest:
    where = "the manifest"
    window = _take_size(document, "window_bytes", where, MAX_WINDOW_BYTES)
    if window < MIN_WINDOW_BYTES:
        raise _Broken(f"window_bytes is {window}, under {MIN_WINDOW_BYTES}")
    objects = _build_objects(_take(document, "objects", list, where))
    contents = {
        _check_digest(digest, "a content's name"): _build_content(digest, value, objects, window)
        for digest, value in _take(document, "contents", dict, where).items()
    }
    files = tuple(_build_file(value, contents) for value in _take(document, "files", list, where))
    _check_paths([entry.path for entry in files])
    _check_bases(contents)
    metadata = _take(document, "metadata", dict, where)
    if not all(isinstance(value, str) for value in metadata.values()):
        raise _Broken("metadata holds something other than text")
    return Manifest(
        model=_take(document, "model", str, where),
        version=_take(document, "version", str, where),
        parent=_build_parent(document.get("parent")),
        created_at=_take(document, "created_at", str, where),
        write_id=_take(document, "write_id", str, where),
        window_bytes=window,
        files=files,
        contents=contents,
        objects=dict(objects),
        new_objects=_build_new_objects(_take(document, "new_objects", list, where), objects),
        message=_take(document, "message", str, where),
        metadata=metadata,
    )


def _build_parent(value: object) -> tuple[str, str] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return value[0], value[1]
    raise _Broken("parent is neither null nor [model, version]")


def _build_objects(values: list[Any]) -> list[tuple[str, int]]:
    objects: list[tuple[str, int]] = []
    for value in values:
        if not isinstance(value, list) or len(value) != 2:
            raise _Broken("an entry of objects is not [digest, size]")
        size = _take_size({"size": value[1]}, "size", "an object")
        objects.append((_check_digest(value[0], "an object's name"), size))
    if len(dict(objects)) != len(objects):
        raise _Broken("an object is listed twice")
    return objects


def _build_new_objects(rows: list[Any], objects: list[tuple[str, int]]) -> frozenset[str]:
    if not all(type(row) is int and 0 <= row < len(objects) for row in rows):
        raise _Broken("new_objects are not numbers of objects")
    return frozenset(objects[row][0] for row in rows)


def _build_content(digest: str, value: object, objects: list[tuple[str, int]], window: int) -> Content:
    where = f"content {digest}"
    if not isinstance(value, dict):
        raise _Broken(f"{where} is not an object")
    size = _take_size(value, "size", where)
    codec = _take(value, "codec", str, where)
    if codec not in ("frames", "raw"):
        raise _Broken(f"{where} is coded as {codec!r}, which this version does not know")
    dtype = _take(value, "dtype", str, where)
    if _DTYPE.fullmatch(dtype) is None:
        raise _Broken(f"{where} has the odd dtype {dtype!r}")
    base = value.get("base")
    if base is not None:
        base = _check_digest(base, f"the base of {where}")
        if codec == "raw":
            raise _Broken(f"{where} is raw and names a base")
    rows = _take(value, "extents", list, where)
    if len(rows) != -(-size // window):
        raise _Broken(
            f"{where} has {len(rows)} extents, {size} bytes in windows of {window} make {-(-size // window)}"
        )
    extents = tuple(_build_extent(row, objects, where) for row in rows)
    for position, extent in enumerate(extents):
        decoded = min(window, size - position * window)
        if extent.length > extent_limit(decoded) or (codec == "raw" and extent.length != decoded):
            raise _Broken(f"extent {position} of {where} takes {extent.length} bytes for {decoded}")
    return Content(digest, dtype, size, codec, base, extents)


def _build_extent(row: object, objects: list[tuple[str, int]], where: str) -> Extent:
    if not isinstance(row, list) or len(row) != 3 or not all(type(value) is int for value in row):
        raise _Broken(f"an extent of {where} is not three integers")
    index, offset, length = row
    if not 0 <= index < len(objects):
        raise _Broken(f"an extent of {where} names object {index} of {len(objects)}")
    digest, size = objects[index]
    if offset < 0 or length < 1 or length > size or offset > size - length:
        raise _Broken(f"an extent of {where} lies outside its object: {length} bytes at {offset} of {size}")
    return Extent(digest, offset, length)


def _build_file(value: object, contents: Mapping[str, Content]) -> FileEntry:
    if not isinstance(value, dict):
        raise _Broken("an entry of files is not an object")
    path = _take(value, "path", str, "a file")
    check_path(path)
    where = f"file {path!r}"
    size = _take_size(value, "size", where)
    kind = _take(value, "kind", str, where)
    names: tuple[str, ...] = ()
    if kind == "safetensors":
        rows = _take(value, "tensors", list, where)
        if not all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in rows):
            raise _Broken(f"tensors of {where} are not [name, digest] pairs")
        names = tuple(row[0] for row in rows)
        parts = (_check_digest(value.get("header"), f"the header of {where}"), *(row[1] for row in rows))
    elif kind == "blob":
        parts = tuple(_take(value, "chunks", list, where))
    else:
        raise _Broken(f"{where} is of kind {kind!r}, which this version does not know")
    parts = tuple(_check_digest(part, f"a part of {where}") for part in parts)
    missing = next((part for part in parts if part not in contents), None)
    if missing is not None:
        raise _Broken(f"{where} needs content {missing}, which is not located")
    if sum(contents[part].size for part in parts) != size:
        raise _Broken(f"the parts of {where} do not add up to its {size} bytes")
    digest = _check_digest(value.get("digest"), f"the digest of {where}")
    if file_digest(parts) != digest:
        raise _Broken(f"the parts of {where} do not make its digest")
    return FileEntry(path, size, "safetensors" if kind == "safetensors" else "blob", digest, parts, names)


def _check_bases(contents: Mapping[str, Content]) -> None:
    depths: dict[str, int] = {}
    for digest, content in contents.items():
        if content.base is None:
            continue
        base = contents.get(content.base)
        if base is None:
            raise _Broken(f"content {digest} has the base {content.base}, which is not located")
        if base.size != content.size:
            raise _Broken(f"content {digest} and its base differ in size")
        if digest not in depths:
            chain = chain_of(contents, digest)
            depths.update({link.digest: len(chain) - position for position, link in enumerate(chain)})


def _check_paths(paths: list[str]) -> None:
    seen = set(paths)
    if len(seen) != len(paths):
        raise _Broken("a path appears twice")
    for path in paths:
        pieces = path.split("/")
        if any("/".join(pieces[:count]) in seen for count in range(1, len(pieces))):
            raise _Broken(f"the path {path!r} runs through another file")
