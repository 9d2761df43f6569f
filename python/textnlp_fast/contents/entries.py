"""Files as runs of contents: what manifests and patches say of them, written and read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from textnlp_fast.contents.documents import Broken, check_digest, take, take_size
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.tensors import check_relative_path

__all__ = [
    "DTYPE_OPAQUE",
    "MAX_WINDOW_BYTES",
    "MIN_WINDOW_BYTES",
    "RESERVED_PREFIX",
    "FileEntry",
    "check_path",
    "check_paths",
    "content_names",
    "extent_limit",
    "file_digest",
    "file_document",
    "read_file_entry",
]

DTYPE_OPAQUE: Final = "OPAQUE"
# Top-level names of this package's own records beside a model's files.
RESERVED_PREFIX: Final = ".textnlp-fast"
MIN_WINDOW_BYTES: Final = 1 << 12
MAX_WINDOW_BYTES: Final = 1 << 28


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


def file_digest(parts: Iterable[str]) -> str:
    """Digest of a file made of `parts`: BLAKE3 over their 32-byte digests in order.

    The parts are verified byte by byte, so hashing the file a second time would prove nothing more.
    """
    return blake3_hex(b"".join(bytes.fromhex(digest) for digest in parts))


def extent_limit(window_bytes: int) -> int:
    """Most bytes a coded window may take: a frame never exceeds its raw size by more than a small header."""
    return window_bytes + window_bytes // 8 + 4096


def file_document(entry: FileEntry) -> dict[str, Any]:
    """The entry as JSON."""
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


def check_path(path: str) -> str:
    """The path. Raises InvalidInputError unless it names a file below the directory that it is joined to."""
    check_relative_path(path)
    if path.startswith(RESERVED_PREFIX):
        raise InvalidInputError(f"the path {path!r} is reserved for textnlp-fast's own records")
    return path


def read_file_entry(value: object, sizes: Mapping[str, int]) -> FileEntry:
    """Reads what `file_document` wrote; `sizes` are those of the contents there are, in bytes. Raises Broken."""
    if not isinstance(value, dict):
        raise Broken("an entry of files is not an object")
    path = take(value, "path", str, "a file")
    check_path(path)
    where = f"file {path!r}"
    size = take_size(value, "size", where)
    kind = take(value, "kind", str, where)
    names: tuple[str, ...] = ()
    if kind == "safetensors":
        rows = take(value, "tensors", list, where)
        if not all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in rows):
            raise Broken(f"tensors of {where} are not [name, digest] pairs")
        names = tuple(row[0] for row in rows)
        parts = (check_digest(value.get("header"), f"the header of {where}"), *(row[1] for row in rows))
    elif kind == "blob":
        parts = tuple(take(value, "chunks", list, where))
    else:
        raise Broken(f"{where} is of kind {kind!r}, which this version does not know")
    parts = tuple(check_digest(part, f"a part of {where}") for part in parts)
    missing = next((part for part in parts if part not in sizes), None)
    if missing is not None:
        raise Broken(f"{where} needs content {missing}, which is not located")
    if sum(sizes[part] for part in parts) != size:
        raise Broken(f"the parts of {where} do not add up to its {size} bytes")
    digest = check_digest(value.get("digest"), f"the digest of {where}")
    if file_digest(parts) != digest:
        raise Broken(f"the parts of {where} do not make its digest")
    return FileEntry(path, size, "safetensors" if kind == "safetensors" else "blob", digest, parts, names)


def check_paths(paths: list[str]) -> None:
    """Raises Broken if two files have one path, or one path runs through another file."""
    seen = set(paths)
    if len(seen) != len(paths):
        raise Broken("a path appears twice")
    for path in paths:
        pieces = path.split("/")
        if any("/".join(pieces[:count]) in seen for count in range(1, len(pieces))):
            raise Broken(f"the path {path!r} runs through another file")


def content_names(files: Iterable[FileEntry]) -> dict[str, str]:
    """For errors: what each content of these files is to a person."""
    names: dict[str, str] = {}
    for entry in files:
        if entry.kind == "blob":
            names.update((digest, f"file {entry.path!r}") for digest in entry.parts)
        else:
            names[entry.parts[0]] = f"the header of {entry.path!r}"
            pairs = zip(entry.names, entry.parts[1:], strict=True)
            names.update((digest, f"tensor {name!r} of {entry.path!r}") for name, digest in pairs)
    return names
