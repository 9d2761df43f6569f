"""The note a pull leaves in its destination: which contents its files are made of.

It saves hashing a model to find out what it holds. It is believed only as far as saving work goes: whatever
is made of the contents that it names is verified.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from textnlp_fast.contents.documents import canonical
from textnlp_fast.contents.entries import RESERVED_PREFIX, check_path
from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.placing import open_own
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.manifest import Manifest

__all__ = ["RECORD_NAME", "PullRecord", "RecordedFile", "read_record", "regular_status", "write_record"]

RECORD_NAME: Final = f"{RESERVED_PREFIX}.json"
_FORMAT: Final = 1
_MAX_BYTES: Final = 512 << 20


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A file as it was written: its size, time and parts (digest and size in bytes of each)."""

    size: int
    mtime_ns: int
    parts: tuple[tuple[str, int], ...]

    def matches(self, status: os.stat_result) -> bool:
        """Whether the file seems untouched since."""
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest for digest, _ in self.parts)


@dataclass(frozen=True, slots=True)
class PullRecord:
    """What was pulled into a directory; empty if nothing is known."""

    files: Mapping[str, RecordedFile] = field(default_factory=dict)

    def held(self, directory: Path) -> dict[str, Held]:
        """Contents by digest, of the files that seem untouched."""
        held: dict[str, Held] = {}
        for path, recorded in self.files.items():
            status = regular_status(directory / path)
            if status is None or not recorded.matches(status):
                continue
            offset = 0
            for digest, size in recorded.parts:
                held[digest] = Held(str(directory / path), offset)
                offset += size
        return held


def regular_status(path: Path) -> os.stat_result | None:
    """The status of a regular file that is no link; None for anything else."""
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            return status
    return None


def read_record(directory: Path) -> PullRecord:
    """The record in a directory.

    One that is absent, foreign or broken is an empty one: it only saves work.
    """
    try:
        path = directory / RECORD_NAME
        if path.stat().st_size > _MAX_BYTES:
            return PullRecord()
        return _parse(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, InvalidInputError):
        return PullRecord()


def _parse(document: Any) -> PullRecord:
    if document["format"] != _FORMAT:
        return PullRecord()
    files: dict[str, RecordedFile] = {}
    for row in document["files"]:
        check_path(row["path"])
        parts = tuple((str(digest), int(size)) for digest, size in row["parts"])
        if any(size < 0 for _, size in parts) or sum(size for _, size in parts) != row["size"]:
            raise ValueError("the parts do not make the file")
        files[row["path"]] = RecordedFile(int(row["size"]), int(row["mtime_ns"]), parts)
    return PullRecord(files)


def write_record(directory: Path, manifest: Manifest, location: str) -> None:
    """Notes that `directory` holds the manifest's files, as they lie there now.

    `location` names the repository.
    """
    rows = [
        {
            "mtime_ns": (directory / entry.path).stat().st_mtime_ns,
            "parts": [[digest, manifest.contents[digest].size] for digest in entry.parts],
            "path": entry.path,
            "size": entry.size,
        }
        for entry in manifest.files
    ]
    document = {
        "files": rows,
        "format": _FORMAT,
        "model": manifest.model,
        "repository": location,
        "version": manifest.version,
    }
    temporary = directory / f"{RECORD_NAME}.new"
    descriptor = open_own(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(canonical(document))
    temporary.replace(directory / RECORD_NAME)
