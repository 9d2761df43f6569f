"""Pieces of objects on the local disk: bounded, shared by processes, whole or absent after a kill at any instant.

``objects/<2>/<digest>`` has an object's bytes where they belong, with holes where pieces are missing;
``objects/<2>/<digest>.map`` has 32 bytes a piece, the digest of what was written there, or zeros. A piece counts only
where the two agree, so nothing has to be on the disk before anything else. ``.values`` is the object's list of values,
which proves itself.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from textnlp_fast.contents.folder_room import Entry, files_below, oldest_first
from textnlp_fast.errors import DigestMismatchError, InvalidInputError
from textnlp_fast.hashing import blake3
from textnlp_fast.objectstore.peers.pieces import Layout, ValueList, key_of

__all__ = ["PieceCache"]

_RECORD: Final = 32
_ABSENT: Final = bytes(_RECORD)
# Eviction goes a little below the limit, and the folder is not looked through for every piece.
_FILL_SHARE: Final = 0.9
_LOOK_AGAIN_BYTES: Final = 64 << 20
_TOUCH_EVERY_S: Final = 5.0
_REMEMBERED: Final = 4096
_LISTS: Final = 512


class PieceCache:
    """Pieces in `folder`, about `limit_bytes` of them; objects that were used last stay. Thread-safe.

    `problem` says what went wrong with it last. Whatever is wrong with it, reading goes on without.
    """

    def __init__(self, folder: str | os.PathLike[str], *, limit_bytes: int = 64 << 30) -> None:
        if limit_bytes < 0:
            raise InvalidInputError(f"limit_bytes is {limit_bytes}")
        self.folder = Path(folder).expanduser().absolute()
        self.limit_bytes = limit_bytes
        self.problem: str | None = None
        self._lock = threading.Lock()
        self._room = 0
        self._until_look = 0
        self._touched: OrderedDict[str, float] = OrderedDict()
        self._lists: OrderedDict[str, ValueList] = OrderedDict()

    def check(self) -> None:
        """Writes and removes a file there: whoever starts a node hears at once of a folder that takes nothing.

        A full disk is none of that: room is made as pieces come. Raises InvalidInputError.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(_RECORD))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise InvalidInputError(
                    f"pieces cannot be kept in {self.folder}: {error.strerror or error}",
                    hint="Name a folder with --cache that this user may write to.",
                ) from None

    # --- reading --------------------------------------------------------------------------------------------

    def get(self, digest: str, layout: Layout, piece: int) -> bytes | None:
        """A piece as it was written; None if it is not there, or not whole."""
        length = layout.length(piece)
        with self._noting("read"), self._opened(digest, os.O_RDONLY) as (data, records):
            if data < 0:
                return None
            record = os.pread(records, _RECORD, piece * _RECORD)
            if len(record) < _RECORD or record == _ABSENT:
                return None
            found = os.pread(data, length, layout.offset(piece))
            if len(found) == length and blake3(found, threads=1) == record:
                self._touch(digest)
                return found
        return None

    def held(self, digest: str, layout: Layout) -> list[bool]:
        """Which pieces are said to be there: a look at the map alone."""
        with self._noting("read"), self._opened(digest, os.O_RDONLY) as (data, records):
            if data >= 0:
                text = os.pread(records, layout.count * _RECORD, 0).ljust(layout.count * _RECORD, b"\0")
                return [text[place : place + _RECORD] != _ABSENT for place in range(0, len(text), _RECORD)]
        return [False] * layout.count

    def values(self, digest: str, layout: Layout) -> ValueList | None:
        """The object's list of values, checked; None if it is not there."""
        if layout.count == 1:
            return ValueList(digest, layout, b"")
        with self._lock:
            known = self._lists.get(digest)
            if known is not None and known.layout.size_bytes == layout.size_bytes:
                self._lists.move_to_end(digest)
                return known
        with self._noting("read"), suppress(FileNotFoundError, DigestMismatchError):
            found = ValueList(digest, layout, self._place(digest, ".values").read_bytes())
            self._remember(found)
            return found
        return None

    # --- writing --------------------------------------------------------------------------------------------

    def add(self, digest: str, layout: Layout, piece: int, data: bytes | memoryview) -> bool:
        """Keeps a piece that the caller knows to be right. False if it cannot be kept."""
        if layout.size_bytes > self.limit_bytes:
            return False
        with self._noting("write to"):
            self._make_room(len(data))
            place = self._place(digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            with self._opened(digest, os.O_RDWR | os.O_CREAT) as (content, records):
                _write_at(content, data, layout.offset(piece))
                _write_at(records, blake3(data, threads=1), piece * _RECORD)
            self._touch(digest)
            return True
        return False

    def add_values(self, values: ValueList) -> None:
        """Keeps a list of values."""
        self._remember(values)
        if values.layout.count == 1 or values.layout.size_bytes > self.limit_bytes:
            return
        with self._noting("write to"):
            place = self._place(values.digest, ".values")
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name}.{os.getpid()}.{threading.get_ident()}")
            temporary.write_bytes(values.values)
            temporary.replace(place)

    def _make_room(self, size_bytes: int) -> None:
        with self._lock:
            self._room -= size_bytes
            self._until_look -= size_bytes
            if self._room >= 0 and self._until_look >= 0:
                return
            total, entries = 0, []
            for entry in files_below(self.folder / "objects", 2):
                if "." in entry.name:
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    taken = status.st_blocks * 512
                    entries.append(Entry(status.st_mtime_ns, taken, entry.path))
                    total += taken
            if total + size_bytes > self.limit_bytes:
                for old in oldest_first(entries, total, self.limit_bytes * _FILL_SHARE - size_bytes):
                    # The map first: a map without its object would speak of what is not there.
                    for path in (f"{old.path}.map", f"{old.path}.values", old.path):
                        Path(path).unlink(missing_ok=True)
                    total -= old.size_bytes
                self._remove_stale()
            self._room = self.limit_bytes - total - size_bytes
            self._until_look = _LOOK_AGAIN_BYTES

    def _remove_stale(self) -> None:
        """What a process that was killed left: lists half written, maps without objects."""
        for entry in files_below(self.folder / "objects", 2):
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime > time.time() - 3600:
                    continue
                whole = Path(entry.path).with_suffix("")
                if entry.name.startswith(".") or (entry.name.endswith(".map") and not whole.exists()):
                    Path(entry.path).unlink()

    # --- files ----------------------------------------------------------------------------------------------

    def _place(self, digest: str, suffix: str = "") -> Path:
        return self.folder / f"{key_of(digest)}{suffix}"

    @contextmanager
    def _opened(self, digest: str, flags: int) -> Iterator[tuple[int, int]]:
        """Descriptors of an object and its map; -1 for both if they are not there."""
        descriptors = [-1, -1]
        try:
            with suppress(FileNotFoundError):
                for index, suffix in enumerate(("", ".map")):
                    descriptors[index] = os.open(self._place(digest, suffix), flags | os.O_CLOEXEC, 0o666)
            yield (descriptors[0], descriptors[1]) if descriptors[1] >= 0 else (-1, -1)
        finally:
            for descriptor in descriptors:
                if descriptor >= 0:
                    os.close(descriptor)

    def _touch(self, digest: str) -> None:
        """Used now: eviction goes by the time of the object's file."""
        now = time.monotonic()
        with self._lock:
            if now - self._touched.get(digest, -_TOUCH_EVERY_S) < _TOUCH_EVERY_S:
                return
            self._touched[digest] = now
            self._touched.move_to_end(digest)
            while len(self._touched) > _REMEMBERED:
                self._touched.popitem(last=False)
        with suppress(FileNotFoundError):
            os.utime(self._place(digest))

    def _remember(self, values: ValueList) -> None:
        with self._lock:
            self._lists[values.digest] = values
            self._lists.move_to_end(values.digest)
            while len(self._lists) > _LISTS:
                self._lists.popitem(last=False)

    @contextmanager
    def _noting(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = f"cannot {verb} the cache at {self.folder}: {error.strerror or error}"


def _write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
