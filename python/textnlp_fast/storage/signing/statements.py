"""What is signed: an in-toto statement of OpenSSF model-signing that names each file, and binds the version to them.

`docs/format.md` ("Signatures") states it. model-signing verifies a pulled directory against it by the digests of the
files' bytes. This package compares `textnlp_fast`, a field that model-signing passes over, with the manifest: model,
version, and every content of every file, before any of them is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from textnlp_fast.contents.documents import Broken, canonical, check_digest, take
from textnlp_fast.contents.entries import FileEntry, file_document
from textnlp_fast.hashing import blake3_hex

__all__ = ["PAYLOAD_TYPE", "Statement", "files_digest", "parse_statement", "serialize_statement"]

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_TYPE: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
# Beside a pulled model, and what model-signing passes over unless it is told not to.
_OWN: Final = ".textnlp-fast.json"
_GIT: Final = (".git", ".gitattributes", ".github", ".gitignore")


@dataclass(frozen=True, slots=True)
class Statement:
    """What a signature says: these are the files of this version. `files` is `files_digest` of their entries."""

    model: str
    version: str
    files: str
    signed_at: str


def files_digest(files: Sequence[FileEntry]) -> str:
    """One digest for all that a manifest says of its files: paths, sizes, tensors' names, every content's digest."""
    return blake3_hex(
        canonical(sorted((file_document(entry) for entry in files), key=lambda one: one["path"]))
    )


def serialize_statement(statement: Statement, file_bytes: Mapping[str, str]) -> bytes:
    """The statement's bytes. `file_bytes` are the SHA-256 digests of the files' bytes, by path."""
    paths = sorted((path for path in file_bytes if not _passed_over(path)), key=PurePosixPath)
    root = hashlib.sha256(b"".join(bytes.fromhex(file_bytes[path]) for path in paths)).hexdigest()
    return canonical(
        {
            "_type": _TYPE,
            "predicate": {
                "resources": [
                    {"algorithm": "sha256", "digest": file_bytes[path], "name": path} for path in paths
                ],
                "serialization": {
                    "allow_symlinks": False,
                    "hash_type": "sha256",
                    "ignore_paths": [*_GIT, _OWN],
                    "method": "files",
                },
                "textnlp_fast": {
                    "files": statement.files,
                    "format": 1,
                    "model": statement.model,
                    "signed_at": statement.signed_at,
                    "version": statement.version,
                },
            },
            "predicateType": _PREDICATE,
            "subject": [{"digest": {"sha256": root}, "name": f"{statement.model}@{statement.version}"}],
        }
    )


def parse_statement(payload: bytes) -> Statement:
    """Reads a statement whose signature was checked. Raises Broken."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise Broken(f"what was signed is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Broken("what was signed is not an object")
    if document.get("_type") != _TYPE or document.get("predicateType") != _PREDICATE:
        raise Broken("what was signed is not a statement of model-signing 1.0")
    ours: dict[str, Any] = take(
        take(document, "predicate", dict, "it"), "textnlp_fast", dict, "the predicate"
    )
    if ours.get("format") != 1:
        raise Broken(f"it has format {ours.get('format')!r}; this textnlp-fast reads format 1")
    model, version, signed_at = (take(ours, name, str, "it") for name in ("model", "version", "signed_at"))
    return Statement(model, version, check_digest(ours.get("files"), "files"), signed_at)


def _passed_over(path: str) -> bool:
    return path.split("/", 1)[0] in _GIT
