"""Patches made by hand: any recipe over any contents, and an index that says whatever a stranger would."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from delta.models import WINDOW
from textnlp_fast.contents.documents import seal_document
from textnlp_fast.contents.entries import FileEntry, file_digest
from textnlp_fast.delta import codec
from textnlp_fast.delta.patch import End, HeldContent, Patch, Stored
from textnlp_fast.delta.patch_file import new_patch
from textnlp_fast.delta.recipe import Recipe
from textnlp_fast.hashing import blake3_hex


def blob(path: str, parts: Sequence[bytes]) -> FileEntry:
    digests = tuple(map(blake3_hex, parts))
    return FileEntry(path, sum(map(len, parts)), "blob", file_digest(digests), digests)


def write_patch(
    out: Path,
    source: Mapping[str, Sequence[bytes]],
    target: Mapping[str, Sequence[bytes]],
    stored: Sequence[tuple[bytes, Recipe | None]],
    *,
    frame_size: int = 1 << 10,
) -> Patch:
    """Writes a patch between models of plain files cut into contents; `stored` are made in this order."""
    held = {blake3_hex(part): part for parts in source.values() for part in parts}
    known = dict(held)
    contents: dict[str, Stored] = {}
    with new_patch(out) as writer:
        for data, recipe in stored:
            digest = blake3_hex(data)
            base = None
            if recipe is not None:
                base = recipe.read(0, len(data), lambda name, begin, end: known[name][begin:end])
            extents = []
            for begin in range(0, len(data), WINDOW):
                window = data[begin : begin + WINDOW]
                against = None if base is None else base[begin : begin + WINDOW]
                coded = codec.encode(window, against, dtype="U8", frame_size_bytes=frame_size)
                extents.append(writer.add(memoryview(coded)))
            contents[digest] = Stored(digest, len(data), "U8", recipe, tuple(extents))
            known[digest] = data
        patch = Patch(
            End(None, tuple(blob(path, parts) for path, parts in source.items())),
            End(None, tuple(blob(path, parts) for path, parts in target.items())),
            {digest: HeldContent(len(data), "U8") for digest, data in held.items()},
            contents,
            WINDOW,
            0,
            "",
        )
        return writer.finish(patch).patch


def rewritten(patch: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A patch with a changed index and a seal that agrees with it: what an attacker would write."""
    length = int.from_bytes(patch[8:16], "little")
    document = json.loads(patch[16 : 16 + length])
    del document["digest"]
    change(document)
    index = seal_document(document)
    return patch[:8] + len(index).to_bytes(8, "little") + index + patch[16 + length :]
