"""A slow reader of patches, written from docs/format.md. Knows every recipe but those with factors."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import blake3

from reference import codec
from reference.casts import cast
from reference.codec_elements import TYPES
from reference.codec_streams import elements, to_bytes


def digest_of(data: bytes) -> str:
    return blake3.blake3(data).hexdigest()


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parts_of(entry: Mapping[str, Any]) -> list[str]:
    if entry["kind"] == "blob":
        return list(entry["chunks"])
    return [entry["header"], *(digest for _, digest in entry["tensors"])]


def model_digest(files: list[Mapping[str, Any]]) -> str:
    rows = []
    for entry in files:
        joined = b"".join(bytes.fromhex(part) for part in parts_of(entry))
        assert digest_of(joined) == entry["digest"]
        rows.append([entry["path"], entry["digest"]])
    return digest_of(canonical(sorted(rows)))


def base_of(recipe: Any, content: Callable[[str], bytes]) -> bytes:
    """What a recipe gives, out of what `content` gives for a digest."""
    if isinstance(recipe, str):
        return content(recipe)
    ((kind, rows),) = recipe.items()
    if kind == "cast":
        digest, old, new = rows
        values = elements(content(digest), TYPES[old].size)
        return to_bytes((cast(value, old, new) for value in values), TYPES[new].size)
    if kind == "transpose":
        digest, height, width, size = rows
        data = content(digest)
        starts = [(j * width + i) * size for i in range(width) for j in range(height)]
        return b"".join(data[start : start + size] for start in starts)
    if kind == "weave":
        groups, strands = rows
        rows = [
            [digest, offset + group * stride, count]
            for group in range(groups)
            for digest, offset, count, stride in strands
        ]
    else:
        assert kind == "pieces"
    return b"".join(
        bytes(count) if digest is None else content(digest)[offset : offset + count]
        for digest, offset, count in rows
    )


def apply(patch: bytes, source: Mapping[str, bytes]) -> dict[str, bytes]:
    """The target's files from the source's, both by path."""
    magic, number, length = struct.unpack("<7sBQ", patch[:16])
    assert (magic, number) == (b"TNPATCH", 1)
    index = json.loads(patch[16 : 16 + length])
    payload = patch[16 + length :]
    seal = index.pop("digest")
    assert digest_of(canonical(index)) == seal
    assert index["payload"] == [digest_of(payload), len(payload)]
    held: dict[str, bytes] = {}
    for entry in index["source"]["files"]:
        data, offset = source[entry["path"]], 0
        for digest in parts_of(entry):
            size = index["held"][digest][0]
            held[digest] = data[offset : offset + size]
            assert digest_of(held[digest]) == digest
            offset += size
        assert offset == len(data) == entry["size"]
    for end in ("source", "target"):
        assert model_digest(index[end]["files"]) == index[end]["digest"]

    def content(digest: str) -> bytes:
        if digest not in held:
            held[digest] = made(index["contents"][digest])
            assert digest_of(held[digest]) == digest
        return held[digest]

    def made(entry: Mapping[str, Any]) -> bytes:
        base = None if entry["base"] is None else base_of(entry["base"], content)
        assert base is None or len(base) == entry["size"]
        out = b""
        for offset, count in entry["extents"]:
            size = min(index["window_bytes"], entry["size"] - len(out))
            against = None if base is None else base[len(out) : len(out) + size]
            out += codec.decode(payload[offset : offset + count], size, against)
        return out

    return {entry["path"]: b"".join(map(content, parts_of(entry))) for entry in index["target"]["files"]}
