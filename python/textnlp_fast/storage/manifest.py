"""The manifest: one small JSON document that says where every byte of a version is.

`docs/format.md` ("Repository") states the document. This module holds its types and its writer; the reader,
which trusts nothing, is `manifest_reading`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.tensors import check_relative_path

__all__ = [
    "DTYPE_OPAQUE",
    "FORMAT",
    "MAX_CHAIN_DEPTH",
    "RESERVED_PREFIX",
    "Codec",
    "Content",
    "Extent",
    "FileEntry",
    "Manifest",
    "canonical",
    "chain_of",
    "check_path",
    "closure",
    "extent_limit",
    "file_digest",
    "seal_document",
    "serialize_manifest",
]

FORMAT: Final = 1
DTYPE_OPAQUE: Final = "OPAQUE"
# What a reader follows; writers stay far below (`StorageConfig.max_chain_depth`).
MAX_CHAIN_DEPTH: Final = 64
# Top-level names of this package's own records beside a model's files.
RESERVED_PREFIX: Final = ".textnlp-fast"
MIN_WINDOW_BYTES: Final = 1 << 12
MAX_WINDOW_BYTES: Final = 1 << 28

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
class FileEntry:
    """A file as the concatenation of contents.

    `names` are the tensors' names: one fewer than `parts` for safetensors, whose first part is the header;
    empty for other files.
    """

    path: str
    size: int
    kind: Literal["safetensors", "blob"]
    digest: str
    parts: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a model.

    `contents` is closed under bases: no other manifest is needed to rebuild the files. `new_objects` are
    those that this version's push made; the others it found.
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


def file_digest(parts: Iterable[str]) -> str:
    """Digest of a file made of `parts`: BLAKE3 over their 32-byte digests in order.

    The parts are verified byte by byte, so hashing the file a second time would prove nothing more.
    """
    return blake3_hex(b"".join(bytes.fromhex(digest) for digest in parts))


def extent_limit(window_bytes: int) -> int:
    """Most bytes a coded window may take: a frame never exceeds its raw size by more than a small header."""
    return window_bytes + window_bytes // 8 + 4096


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


def canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def seal_document(document: Mapping[str, Any]) -> bytes:
    """Canonical JSON (sorted keys, no spaces, UTF-8) with the digest of the rest of it under `digest`."""
    return canonical({**document, "digest": blake3_hex(canonical(document))})


def serialize_manifest(manifest: Manifest) -> bytes:
    """Writes the manifest; `parse_manifest` of the result gives it back."""
    objects = sorted({extent.object for content in manifest.contents.values() for extent in content.extents})
    index = {digest: position for position, digest in enumerate(objects)}
    document: dict[str, Any] = {
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
        "files": [_file_document(entry) for entry in manifest.files],
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


def _file_document(entry: FileEntry) -> dict[str, Any]:
    document: dict[str, Any] = {
        "digest": entry.digest,
        "kind": entry.kind,
        "path": entry.path,
        "size": entry.size,
    }
    if entry.kind == "blob":
        document["chunks"] = list(entry.parts)
    else:
        document["header"] = entry.parts[0]
        document["tensors"] = [[name, part] for name, part in zip(entry.names, entry.parts[1:], strict=True)]
    return document


def check_path(path: str) -> None:
    """Raises InvalidInputError unless `path` names a file below the directory that it is joined to."""
    check_relative_path(path)
    if path.startswith(RESERVED_PREFIX):
        raise InvalidInputError(f"the path {path!r} is reserved for textnlp-fast's own records")
