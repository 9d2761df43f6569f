"""The journal beside an unfinished download: which parts are there.

Its lines are those of :mod:`textnlp_fast.contents.journal_lines`. The first binds the journal to one state of one
object and one way to cut it; every other journal is void. ``docs/format.md`` has the fields.

A claim is written when its part has been written, without waiting for the disk. It holds while this machine is up,
whoever is killed: the page cache survives. After a power cut it is worth nothing, so claims carry the kernel's boot
id, and of an earlier boot only those count that stand before a *mark* whose *synced* line follows, which is written
when the data are known to be on the disk. Whatever is claimed, its digest is checked before it is believed.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from textnlp_fast.contents.journal_lines import append_line, boot_id, read_lines
from textnlp_fast.errors import ConflictError, InvalidInputError

__all__ = ["DownloadHeader", "Journal"]

_FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class DownloadHeader:
    """What a journal is about."""

    url: str
    identity: str
    size: int
    part_bytes: int

    def difference(self, other: DownloadHeader) -> str | None:
        """Why a journal of ``other`` is void for this; ``None`` if it is not."""
        if self.url != other.url:
            return f"the unfinished file is of {other.url}"
        if (self.identity, self.size) != (other.identity, other.size):
            return f"the object changed since ({other.size} bytes, {other.identity}, before)"
        if self.part_bytes != other.part_bytes:
            return f"its parts had {other.part_bytes} bytes"
        return None


class Journal:
    """A journal file, held by this process alone. Raises ``ConflictError`` if another works with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _open_locked(path)
        self.header: DownloadHeader | None = None
        self.claims: dict[int, str] = {}
        """Part numbers and what BLAKE3 left of the parts when they were written, as :mod:`.digests` says it."""
        self._boot = boot_id()
        self._marks = 0
        self._lock = threading.Lock()
        self._read()

    def begin(self, header: DownloadHeader) -> None:
        """Starts over: nothing is claimed."""
        os.ftruncate(self._descriptor, 0)
        self.header, self.claims = header, {}
        self._append(
            {
                "format": _FORMAT,
                "identity": header.identity,
                "part_bytes": header.part_bytes,
                "size": header.size,
                "url": header.url,
            }
        )
        self.go_on()

    def go_on(self) -> None:
        """Notes that this boot of the machine writes from here on."""
        self._append({"boot": self._boot})

    def claim(self, number: int, digest: str) -> None:
        """Part ``number`` has been written."""
        self.claims[number] = digest
        self._append({"blake3": digest, "part": number})

    def disown(self, numbers: Iterable[int]) -> None:
        """These parts are not what was claimed."""
        for number in numbers:
            self.claims.pop(number, None)
            self._append({"part": number})

    def mark(self) -> int:
        """Notes a moment; what had been claimed by then can be said to be on the disk by :meth:`synced`."""
        self._marks += 1
        self._append({"mark": self._marks})
        return self._marks

    def synced(self, mark: int) -> None:
        """What had been claimed at ``mark`` is on the disk; afterwards this line is, too."""
        self._append({"synced": mark})
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._descriptor)

    def _append(self, line: dict[str, Any]) -> None:
        with self._lock:
            append_line(self._descriptor, line)

    def _read(self) -> None:
        boot, pending, held = "", dict[int, str](), dict[int, str]()
        marked: dict[int, dict[int, str]] = {}
        end = 0
        try:
            for line, behind in read_lines(self._descriptor):
                if self.header is None:
                    self.header = _header(line)
                elif "boot" in line:
                    if line["boot"] != boot:
                        pending = {}
                    boot = line["boot"]
                elif "mark" in line:
                    self._marks = max(self._marks, int(line["mark"]))
                    marked[int(line["mark"])] = dict(pending)
                elif "synced" in line:
                    held.update(marked.pop(int(line["synced"]), {}))
                elif "blake3" in line:
                    pending[int(line["part"])] = str(line["blake3"])
                else:
                    held.pop(int(line["part"]), None)
                    pending.pop(int(line["part"]), None)
                end = behind
        except (ValueError, KeyError, TypeError):
            pass  # what stands before a line that is foreign still holds
        os.ftruncate(self._descriptor, end)
        if boot and boot == self._boot:
            held.update(pending)
        self.claims = held


def _header(line: dict[str, Any]) -> DownloadHeader:
    if line["format"] != _FORMAT:
        raise ValueError("a journal of another version")
    return DownloadHeader(str(line["url"]), str(line["identity"]), int(line["size"]), int(line["part_bytes"]))


def _open_locked(path: Path) -> int:
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InvalidInputError(f"{path} is no file", hint="Remove it, or name another destination.")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConflictError(
                f"another transfer is at work with {path}",
                hint="Wait for it to end, or name another destination.",
            ) from None
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # its last user removed it just now
