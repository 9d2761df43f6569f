"""A slow reader of repositories in a folder, written from docs/format.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reference import codec
from reference.patch import base_of, canonical, digest_of, parts_of


def read_document(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    seal = document.pop("digest")
    assert digest_of(canonical(document)) == seal
    return document


def read_version(root: Path, model: str, version: str) -> dict[str, bytes]:
    """The files of a version by path."""
    assert read_document(root / "repository.json")["format"] == 1
    manifest = read_document(root / "models" / model / "versions" / f"{version}.json")
    recipes = [entry["base"] for entry in manifest["contents"].values() if isinstance(entry["base"], dict)]
    assert manifest["format"] == (2 if recipes else 1)
    objects = []
    for digest, size in manifest["objects"]:
        data = (root / "objects" / digest[:2] / digest).read_bytes()
        assert (digest_of(data), len(data)) == (digest, size)
        objects.append(data)
    made: dict[str, bytes] = {}

    def content(digest: str) -> bytes:
        if digest not in made:
            made[digest] = decoded(manifest["contents"][digest])
            assert digest_of(made[digest]) == digest
        return made[digest]

    def decoded(entry: Mapping[str, Any]) -> bytes:
        base = None if entry["base"] is None else base_of(entry["base"], content)
        assert base is None or len(base) == entry["size"]
        out = b""
        for number, offset, length in entry["extents"]:
            size = min(manifest["window_bytes"], entry["size"] - len(out))
            data = objects[number][offset : offset + length]
            if entry["codec"] == "raw":
                out += data
                continue
            out += codec.decode(data, size, None if base is None else base[len(out) : len(out) + size])
        return out

    files = {entry["path"]: b"".join(map(content, parts_of(entry))) for entry in manifest["files"]}
    assert all(len(files[entry["path"]]) == entry["size"] for entry in manifest["files"])
    return files
