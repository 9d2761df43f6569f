"""The manifest: one small JSON document that says where every byte of a version is.

`docs/format.md` ("Repository") states the document. This module holds its types and its writer; the reader,
which trusts nothing, is `manifest_reading`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from textnlp_fast.contents.documents import seal_document
from textnlp_fast.contents.entries import FileEntry, file_document
from textnlp_fast.errors import CorruptDataError

__all__ = [
    "FORMAT",
    "MAX_CHAIN_DEPTH",
    "Anchor",
    "Codec",
    "Content",
    "Extent",
    "Manifest",
    "chain_of",
    "closure",
    "serialize_manifest",
]

FORMAT: Final = 1
# What a reader follows; writers stay far below (`StorageConfig.max_chain_depth`).
MAX_CHAIN_DEPTH: Final = 64
Codec = Literal["frames", "raw"]


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes at `offset` of an object: one coded window."""

    object: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Content:
    """A run of bytes named by its BLAKE3 digest: a tensor, a safetensors header or a chunk of another file.

    Extent number i decodes to bytes [i * window, (i + 1) * window) of it, the last one to what is left.
    `base` is the digest of the content of equal size that the extents are coded against.
    """

    digest: str
    dtype: str
    size: int
    codec: Codec
    base: str | None
    extents: tuple[Extent, ...]

    @property
    def coded_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Which version a version was coded against (None: none, it is whole), and why. Sizes are estimates in bytes.

    They are those of the tensors that had a base to be coded against: stored whole, and against the parent.
    """

    base: tuple[str, str] | None
    whole_bytes: int
    delta_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a model.

    `contents` is closed under bases: no other manifest is needed to rebuild the files. `new_objects` are
    those that this version's push made; the others it found. `parent` is the version before it; without an
    `anchor` also the one that it was coded against.
    """

    model: str
    version: str
    parent: tuple[str, str] | None
    created_at: str
    write_id: str
    window_bytes: int
    files: tuple[FileEntry, ...]
    contents: Mapping[str, Content]
    objects: Mapping[str, int]
    new_objects: frozenset[str] = frozenset()
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    anchor: Anchor | None = None

    @property
    def coded_against(self) -> tuple[str, str] | None:
        """Model and version whose tensors were the bases of new ones."""
        return self.parent if self.anchor is None else self.anchor.base

    @property
    def raw_bytes(self) -> int:
        return sum(entry.size for entry in self.files)

    @property
    def stored_bytes(self) -> int:
        """What the repository grew by, manifest aside."""
        return sum(self.objects[digest] for digest in self.new_objects)

    def wanted(self) -> set[str]:
        """Digests of the contents that the files are made of; the other contents are there as bases."""
        return {digest for entry in self.files for digest in entry.parts}

    def same_files(self, other: Manifest) -> bool:
        """Whether both describe the same directory, byte for byte, however it is stored."""
        return _file_identity(self) == _file_identity(other)


def _file_identity(manifest: Manifest) -> list[tuple[str, int, str]]:
    return sorted((entry.path, entry.size, entry.digest) for entry in manifest.files)


def chain_of(contents: Mapping[str, Content], digest: str) -> list[Content]:
    """The contents needed to decode `digest`, itself first, its root last.

    Raises CorruptDataError on a hole or a cycle.
    """
    chain: list[Content] = []
    following: str | None = digest
    while following is not None:
        content = contents.get(following)
        if content is None:
            raise CorruptDataError(f"the manifest needs content {following} but does not say where it is")
        if len(chain) >= MAX_CHAIN_DEPTH:
            raise CorruptDataError(
                f"the bases of content {digest} form a cycle or pass {MAX_CHAIN_DEPTH} steps"
            )
        chain.append(content)
        following = content.base
    return chain


def closure(contents: Mapping[str, Content], digests: Iterable[str]) -> dict[str, Content]:
    """`digests` and every base below them, located."""
    closed: dict[str, Content] = {}
    for digest in digests:
        following: str | None = digest
        while following is not None and following not in closed:
            closed[following] = contents[following]
            following = contents[following].base
    return closed


def _anchor_document(anchor: Anchor | None) -> dict[str, Any]:
    if anchor is None:
        return {}
    return {
        "anchor": {
            "base": list(anchor.base) if anchor.base else None,
            "delta_bytes": anchor.delta_bytes,
            "reason": anchor.reason,
            "whole_bytes": anchor.whole_bytes,
        }
    }


def serialize_manifest(manifest: Manifest) -> bytes:
    """Writes the manifest; `parse_manifest` of the result gives it back."""
    objects = sorted({extent.object for content in manifest.contents.values() for extent in content.extents})
    index = {digest: position for position, digest in enumerate(objects)}
    document: dict[str, Any] = _anchor_document(manifest.anchor) | {
        "contents": {
            digest: {
                "base": content.base,
                "codec": content.codec,
                "dtype": content.dtype,
                "extents": [
                    [index[extent.object], extent.offset, extent.length] for extent in content.extents
                ],
                "size": content.size,
            }
            for digest, content in manifest.contents.items()
        },
        "created_at": manifest.created_at,
        "files": [file_document(entry) for entry in manifest.files],
        "format": FORMAT,
        "message": manifest.message,
        "metadata": dict(manifest.metadata),
        "model": manifest.model,
        "new_objects": sorted(index[digest] for digest in manifest.new_objects),
        "objects": [[digest, manifest.objects[digest]] for digest in objects],
        "parent": list(manifest.parent) if manifest.parent else None,
        "version": manifest.version,
        "window_bytes": manifest.window_bytes,
        "write_id": manifest.write_id,
    }
    return seal_document(document)
