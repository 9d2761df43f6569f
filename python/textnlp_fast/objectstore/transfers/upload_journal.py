"""What this machine remembers of an upload that is under way: its id, and which file it is of.

The provider says which parts it has; the journal says under which id to ask, and spares hashing the file again. One
small JSON document an upload, sealed by its own digest, in the folder that ``TransferSettings.uploads_folder`` names.
``docs/format.md`` has the fields.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from textnlp_fast.contents.documents import parse_document, seal_document
from textnlp_fast.contents.staging import sync_folder
from textnlp_fast.errors import ConflictError, CorruptDataError, InvalidInputError, UnsupportedFormatError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore.transfers.protocol import UploadPlan

__all__ = ["FileState", "UploadJournal", "journals", "locked_journal"]

_FORMAT: Final = 1
_LONGEST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class FileState:
    """A local file as it is: what changes when somebody writes to it."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> FileState:
        shown = str(path).encode("utf-8", "backslashreplace").decode()  # a name may be any bytes
        return cls(shown, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@dataclass(frozen=True, slots=True)
class UploadJournal:
    """An upload. ``upload_id`` is empty until it has begun; for Google's store it is the session's URL, which lets
    whoever has it write the object: the file is readable by its owner only."""

    url: str
    file: FileState
    plan: UploadPlan
    upload_id: str
    begun_at: float
    """Seconds since 1970."""

    def write(self, path: Path) -> None:
        """Replaces the journal at ``path`` in one step; on the disk afterwards."""
        document = {
            "begun_at_ms": int(self.begun_at * 1000),
            "crc32": list(self.plan.crc32),
            "crc32c": self.plan.crc32c,
            "content": self.plan.digest,
            "file": {
                "ctime_ns": self.file.ctime_ns,
                "inode": self.file.inode,
                "mtime_ns": self.file.mtime_ns,
                "path": self.file.path,
                "size": self.file.size,
            },
            "format": _FORMAT,
            "part_bytes": self.plan.part_bytes,
            "upload_id": self.upload_id,
            "url": self.url,
        }
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                os.write(fd, seal_document(document))
                os.fsync(fd)
            finally:
                os.close(fd)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> UploadJournal | None:
        """The journal at ``path``; ``None`` if there is none that can be believed."""
        try:
            if path.stat().st_size > _LONGEST_BYTES:
                return None
            return _parsed(parse_document(path.read_bytes(), str(path)))
        except (OSError, CorruptDataError, UnsupportedFormatError, ValueError, KeyError, TypeError):
            return None


def _parsed(document: Any) -> UploadJournal | None:
    if document["format"] != _FORMAT:
        return None
    file = document["file"]
    state = FileState(
        str(file["path"]), *(int(file[name]) for name in ("size", "mtime_ns", "ctime_ns", "inode"))
    )
    sums = [int(crc) for crc in document["crc32"]]
    whole = None if document["crc32c"] is None else int(document["crc32c"])
    plan = UploadPlan(state.size, str(document["content"]), int(document["part_bytes"]), sums, whole)
    # None at all: whoever began it knew the digest, and had not looked at all of the file yet.
    if sums and len(plan.parts) != len(sums):
        return None
    return UploadJournal(
        str(document["url"]), state, plan, str(document["upload_id"]), int(document["begun_at_ms"]) / 1000
    )


@contextmanager
def locked_journal(folder: Path, local: Path, url: str) -> Iterator[Path]:
    """The place of the journal for this file and this object, for this process alone.

    Raises ``ConflictError`` if another process uploads the same.
    """
    name = blake3_hex(os.fsencode(local) + b"\0" + url.encode())[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInputError(
            f"cannot keep a journal in {folder}: {error.strerror}",
            hint="Give a folder that can be written to as state_folder, or in XDG_STATE_HOME.",
        ) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another process uploads {local} to {url}", hint="Wait for it to end."
            ) from None
        yield folder / f"{name}.json"
    finally:
        os.close(fd)  # the lock's file stays: removing it would let two hold "the" lock


def journals(folder: Path) -> Iterator[tuple[Path, UploadJournal]]:
    """All journals in a folder that can be read."""
    with suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            if path.suffix == ".json" and (journal := UploadJournal.read(path)) is not None:
                yield path, journal
