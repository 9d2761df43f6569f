"""The manifest: one small JSON document that says where every byte of a version is.

`docs/format.md` ("Repository") states the document. This module holds its types and its writer; the reader,
which trusts nothing, is `manifest_reading`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from textnlp_fast.contents.documents import canonical, seal_document
from textnlp_fast.contents.entries import FileEntry, file_document
from textnlp_fast.delta.recipe import Cast, Pieces, Recipe, Transposed, Whole, Woven
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.hashing import blake3_hex

__all__ = [
    "FORMATS",
    "MAX_CHAIN_DEPTH",
    "MAX_RECIPES",
    "RECIPE_KINDS",
    "Anchor",
    "Codec",
    "Content",
    "Extent",
    "Manifest",
    "chain_of",
    "closure",
    "depth_of",
    "files_digest",
    "format_of",
    "serialize_manifest",
]

# Without recipes a manifest is of format 1, which every reader knows.
FORMATS: Final = (1, 2)
# What a reader follows; writers stay far below (`StorageConfig.max_chain_depth`).
MAX_CHAIN_DEPTH: Final = 64
# Of bases that follow each other, those that are more than one whole content: each takes buffers of its own.
MAX_RECIPES: Final = 4
# The others would be made of contents that no push makes.
RECIPE_KINDS: Final = (Whole, Pieces, Woven, Transposed, Cast)
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
    `base` says how to make what the extents are coded against, a run of equal size, out of other contents.
    """

    digest: str
    dtype: str
    size: int
    codec: Codec
    base: Recipe | None
    extents: tuple[Extent, ...]

    @property
    def bases(self) -> tuple[str, ...]:
        """The contents that the base is made of."""
        return () if self.base is None else tuple(self.base.source_sizes())

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
    salts: Mapping[str, str] = field(default_factory=dict)
    """Of objects that this version's push made: the bytes at their end that no extent names, in hex digits."""

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


def files_digest(files: Iterable[FileEntry]) -> str:
    """Names a directory by its files, however they are stored."""
    return blake3_hex(canonical(sorted([entry.path, entry.size, entry.digest] for entry in files)))


def _file_identity(manifest: Manifest) -> list[tuple[str, int, str]]:
    return sorted((entry.path, entry.size, entry.digest) for entry in manifest.files)


def chain_of(contents: Mapping[str, Content], digest: str) -> list[Content]:
    """The contents that windows of `digest` are decoded through in place: itself first, its root last.

    The root has no base, or one that is more than a whole content. Raises CorruptDataError on a hole or a cycle.
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
        following = content.base.digest if isinstance(content.base, Whole) else None
    return chain


def closure(contents: Mapping[str, Content], digests: Iterable[str]) -> dict[str, Content]:
    """`digests` and every content below them, located."""
    closed: dict[str, Content] = {}
    waiting = list(digests)
    while waiting:
        digest = waiting.pop()
        if digest not in closed:
            content = closed[digest] = contents[digest]
            waiting.extend(content.bases)
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


def depth_of(contents: Mapping[str, Content], digest: str) -> int:
    """Number of bases that follow each other below a content; `contents` are closed and without cycles."""
    depths: dict[str, int] = {}
    stack = [digest]
    while stack:
        content = contents[stack[-1]]
        waiting = [name for name in content.bases if name not in depths]
        if waiting:
            stack.extend(waiting)
        else:
            depths[content.digest] = max((1 + depths[name] for name in content.bases), default=0)
            stack.pop()
    return depths[digest]


def format_of(manifest: Manifest) -> int:
    """The format number that the manifest is written under."""
    plain = all(isinstance(content.base, Whole | None) for content in manifest.contents.values())
    return FORMATS[0] if plain else FORMATS[1]


def serialize_manifest(manifest: Manifest) -> bytes:
    """Writes the manifest; `parse_manifest` of the result gives it back."""
    objects = sorted({extent.object for content in manifest.contents.values() for extent in content.extents})
    index = {digest: position for position, digest in enumerate(objects)}
    document: dict[str, Any] = _anchor_document(manifest.anchor) | {
        "contents": {
            digest: {
                "base": None if content.base is None else content.base.to_json(),
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
        "format": format_of(manifest),
        "message": manifest.message,
        "metadata": dict(manifest.metadata),
        "model": manifest.model,
        "new_objects": sorted(index[digest] for digest in manifest.new_objects),
        "objects": [[digest, manifest.objects[digest]] for digest in objects],
        "parent": list(manifest.parent) if manifest.parent else None,
        **({"salts": dict(manifest.salts)} if manifest.salts else {}),
        "version": manifest.version,
        "window_bytes": manifest.window_bytes,
        "write_id": manifest.write_id,
    }
    return seal_document(document)
