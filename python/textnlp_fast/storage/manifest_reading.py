"""Reads sealed documents and manifests, which come from a bucket that others may write to.

Everything is checked before anything is used: every count is bounded, every path stays inside the directory
it names, every extent lies inside its object and every chain of bases ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from textnlp_fast.contents.documents import Broken, check_digest, parse_document, take, take_size
from textnlp_fast.contents.entries import (
    MAX_WINDOW_BYTES,
    MIN_WINDOW_BYTES,
    check_paths,
    extent_limit,
    read_file_entry,
)
from textnlp_fast.delta.depth import check_depth
from textnlp_fast.delta.recipe import Recipe, Whole, from_json
from textnlp_fast.errors import (
    CorruptDataError,
    TextnlpFastError,
    UnsupportedFormatError,
)
from textnlp_fast.storage.manifest import (
    FORMATS,
    MAX_RECIPES,
    RECIPE_KINDS,
    Anchor,
    Content,
    Extent,
    Manifest,
)

__all__ = ["parse_manifest"]

_SALT = re.compile(r"(?:[0-9a-f]{2}){1,32}", re.ASCII)
_DTYPE = re.compile(r"[A-Za-z0-9_]{1,16}", re.ASCII)


def parse_manifest(data: bytes | memoryview, what: str = "the manifest") -> Manifest:
    """Reads and validates a manifest.

    Errors: UnsupportedFormatError for a newer format or kind of recipe, DigestMismatchError if bytes of it
    changed, CorruptDataError for anything that would lead outside the version's directory or its
    objects, or to unbounded work.
    """
    document = parse_document(data, what, formats=FORMATS)
    try:
        manifest = _build(document)
    except Broken as error:
        raise CorruptDataError(f"{what} is not a valid manifest: {error}") from None
    except UnsupportedFormatError as error:
        raise UnsupportedFormatError(f"{what}: {error.args[0]}", hint=error.hint) from None
    except TextnlpFastError as error:
        raise CorruptDataError(f"{what} is not a valid manifest: {error.args[0]}") from None
    return manifest


def _build(document: Mapping[str, Any]) -> Manifest:
    where = "the manifest"
    window = take_size(document, "window_bytes", where, MAX_WINDOW_BYTES)
    if window < MIN_WINDOW_BYTES:
        raise Broken(f"window_bytes is {window}, under {MIN_WINDOW_BYTES}")
    objects = _build_objects(take(document, "objects", list, where))
    contents = {
        check_digest(digest, "a content's name"): _build_content(
            digest, value, objects, window, document["format"]
        )
        for digest, value in take(document, "contents", dict, where).items()
    }
    sizes = {digest: content.size for digest, content in contents.items()}
    files = tuple(read_file_entry(value, sizes) for value in take(document, "files", list, where))
    check_paths([entry.path for entry in files])
    for content in contents.values():
        if content.base is not None:
            content.base.check_sources(sizes)
    check_depth(contents, most_recipes=MAX_RECIPES)
    metadata = take(document, "metadata", dict, where)
    if not all(isinstance(value, str) for value in metadata.values()):
        raise Broken("metadata holds something other than text")
    return Manifest(
        model=take(document, "model", str, where),
        version=take(document, "version", str, where),
        parent=_build_reference(document.get("parent"), "parent"),
        created_at=take(document, "created_at", str, where),
        write_id=take(document, "write_id", str, where),
        window_bytes=window,
        files=files,
        contents=contents,
        objects=dict(objects),
        new_objects=_build_new_objects(take(document, "new_objects", list, where), objects),
        message=take(document, "message", str, where),
        metadata=metadata,
        anchor=_build_anchor(document),
        salts=_build_salts(document),
    )


def _build_salts(document: Mapping[str, Any]) -> dict[str, str]:
    if document.get("salts") is None:
        return {}
    salts: dict[str, str] = take(document, "salts", dict, "the manifest")
    for digest, salt in salts.items():
        check_digest(digest, "an object with a suffix")
        if not isinstance(salt, str) or _SALT.fullmatch(salt) is None:
            raise Broken(f"the suffix of object {digest} is not up to 32 bytes in hex digits")
    return salts


def _build_anchor(document: Mapping[str, Any]) -> Anchor | None:
    if document.get("anchor") is None:
        return None
    value, where = take(document, "anchor", dict, "the manifest"), "anchor"
    return Anchor(
        base=_build_reference(value.get("base"), "the base of anchor"),
        whole_bytes=take_size(value, "whole_bytes", where),
        delta_bytes=take_size(value, "delta_bytes", where),
        reason=take(value, "reason", str, where),
    )


def _build_reference(value: object, what: str) -> tuple[str, str] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return value[0], value[1]
    raise Broken(f"{what} is neither null nor [model, version]")


def _build_objects(values: list[Any]) -> list[tuple[str, int]]:
    objects: list[tuple[str, int]] = []
    for value in values:
        if not isinstance(value, list) or len(value) != 2:
            raise Broken("an entry of objects is not [digest, size]")
        size = take_size({"size": value[1]}, "size", "an object")
        objects.append((check_digest(value[0], "an object's name"), size))
    if len(dict(objects)) != len(objects):
        raise Broken("an object is listed twice")
    return objects


def _build_new_objects(rows: list[Any], objects: list[tuple[str, int]]) -> frozenset[str]:
    if not all(type(row) is int and 0 <= row < len(objects) for row in rows):
        raise Broken("new_objects are not numbers of objects")
    return frozenset(objects[row][0] for row in rows)


def _build_content(
    digest: str, value: object, objects: list[tuple[str, int]], window: int, number: int
) -> Content:
    where = f"content {digest}"
    if not isinstance(value, dict):
        raise Broken(f"{where} is not an object")
    size = take_size(value, "size", where)
    codec = take(value, "codec", str, where)
    if codec not in ("frames", "raw"):
        raise Broken(f"{where} is coded as {codec!r}, which this version does not know")
    dtype = take(value, "dtype", str, where)
    if _DTYPE.fullmatch(dtype) is None:
        raise Broken(f"{where} has the odd dtype {dtype!r}")
    base = _build_base(value.get("base"), size, dtype, where, number)
    if base is not None and codec == "raw":
        raise Broken(f"{where} is raw and names a base")
    rows = take(value, "extents", list, where)
    if len(rows) != -(-size // window):
        raise Broken(
            f"{where} has {len(rows)} extents, {size} bytes in windows of {window} make {-(-size // window)}"
        )
    extents = tuple(_build_extent(row, objects, where) for row in rows)
    for position, extent in enumerate(extents):
        decoded = min(window, size - position * window)
        if extent.length > extent_limit(decoded) or (codec == "raw" and extent.length != decoded):
            raise Broken(f"extent {position} of {where} takes {extent.length} bytes for {decoded}")
    return Content(digest, dtype, size, codec, base, extents)


def _build_base(value: object, size: int, dtype: str, where: str, number: int) -> Recipe | None:
    if value is None:
        return None
    base = from_json(value, size_bytes=size, dtype=dtype)
    if not isinstance(base, RECIPE_KINDS):
        raise UnsupportedFormatError(
            f"{where} is coded against a recipe that this version does not read here"
        )
    if number == FORMATS[0] and not isinstance(base, Whole):
        raise Broken(f"{where} has a recipe for a base, which format {number} does not know")
    return base


def _build_extent(row: object, objects: list[tuple[str, int]], where: str) -> Extent:
    if not isinstance(row, list) or len(row) != 3:
        raise Broken(f"an extent of {where} is not three integers")
    index, offset, length = row
    if type(index) is not int or type(offset) is not int or type(length) is not int:
        raise Broken(f"an extent of {where} is not three integers")
    if not 0 <= index < len(objects):
        raise Broken(f"an extent of {where} names object {index} of {len(objects)}")
    digest, size = objects[index]
    if offset < 0 or length < 1 or length > size or offset > size - length:
        raise Broken(f"an extent of {where} lies outside its object: {length} bytes at {offset} of {size}")
    return Extent(digest, offset, length)
