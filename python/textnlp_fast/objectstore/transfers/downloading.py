"""One object into one file: ranges, many at once, into a file that has its size from the start.

``model.bin.part`` is filled, ``model.bin.part.journal`` says with what. When all parts are there the whole is checked
against the object's digest, if it has one, and gets its name by one rename.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from textnlp_fast.contents.staging import disk_errors, sync_folder
from textnlp_fast.contents.windows import BufferPool, write_exactly
from textnlp_fast.destinations import file_destination
from textnlp_fast.errors import (
    DigestMismatchError,
    InvalidInputError,
    MissingObjectError,
    ObjectNotFoundError,
    OutOfSpaceError,
    SourceChangedError,
    TransferCancelledError,
)
from textnlp_fast.objectstore.transfers.digests import (
    PIECE_BYTES,
    PartHasher,
    file_digest,
    right_parts,
    whole_digest,
)
from textnlp_fast.objectstore.transfers.engine import retrying, run_parts
from textnlp_fast.objectstore.transfers.journal import DownloadHeader, Journal
from textnlp_fast.objectstore.transfers.progress import Meter
from textnlp_fast.objectstore.transfers.protocol import (
    Part,
    RangeSource,
    SourceState,
    plan_parts,
    whole_chunks,
)
from textnlp_fast.objectstore.transfers.settings import TransferSettings
from textnlp_fast.objectstore.transfers.watch import Watch

__all__ = ["DownloadReport", "download_file"]

_PART_BYTES: Final = 16 << 20
_MOST_PARTS: Final = 20_000
_SYNC_EVERY_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class DownloadReport:
    """What a download did. Sizes in bytes; ``moved_bytes`` came over the network in this run, ``resumed_bytes`` were
    there from an earlier one. ``digest`` is what the whole was checked against, ``None`` where nobody knew one.
    ``restarted`` says why an unfinished file was not gone on with, where there was one."""

    url: str
    path: str
    size: int
    moved_bytes: int
    resumed_bytes: int
    digest: str | None
    restarted: str | None
    retries: int
    seconds: float


def download_file(
    source: RangeSource,
    destination: str | os.PathLike[str],
    settings: TransferSettings | None = None,
    *,
    digest: str | None = None,
    part_path: Path | None = None,
) -> DownloadReport:
    """Makes ``destination`` a file with the bytes of ``source``, going on where an earlier run stopped.

    ``digest``: what the caller knows of the content (BLAKE3, hexadecimal digits), beside what the object says of
    itself. ``part_path``: where the unfinished file lies, by default beside the destination. Raises
    ``ObjectNotFoundError``, ``SourceChangedError`` if the object was replaced meanwhile, ``DigestMismatchError``
    (nothing is kept then), ``TransferCancelledError``, ``TransferTimeoutError``, ``StorageUnavailableError``,
    ``OutOfSpaceError``, ``ConflictError`` if another process downloads to the same place, and ``InvalidInputError`` if
    the destination is there and no file; an existing destination is then as it was. A link is followed: the file that
    it leads to is replaced.
    """
    settings = settings or TransferSettings()
    started = time.monotonic()
    final = file_destination(destination)
    try:
        state = retrying(source.look, Watch(settings, Meter(0, 0), started=started))
    except MissingObjectError as error:
        raise ObjectNotFoundError(str(error.args[0]), hint=error.hint) from error
    expected = _expected(state, digest, source.url)
    with disk_errors(final):
        part_path = part_path or final.with_name(f"{final.name}.part")
        part_path.parent.mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        journal = Journal(part_path.with_name(f"{part_path.name}.journal"))
        try:
            run = _Download(source, state, final, part_path, journal, settings, expected, started)
            run.run()
        finally:
            journal.close()
    return DownloadReport(
        source.url,
        str(final),
        state.size,
        run.meter.moved_bytes,
        run.resumed_bytes,
        expected,
        run.restarted,
        run.meter.retries,
        time.monotonic() - started,
    )


def _expected(state: SourceState, digest: str | None, url: str) -> str | None:
    if digest is not None and state.digest is not None and digest != state.digest:
        raise DigestMismatchError(
            f"{url} says that its content has the digest {state.digest}, not {digest}",
            hint="Check which object you want.",
        )
    return digest or state.digest


class _Download:
    def __init__(
        self,
        source: RangeSource,
        state: SourceState,
        final: Path,
        part_path: Path,
        journal: Journal,
        settings: TransferSettings,
        expected: str | None,
        started: float,
    ) -> None:
        self._started = started
        self._source = source
        self._state = state
        self._final = final
        self._part_path = part_path
        self._journal = journal
        self._settings = settings
        self._expected = expected
        part_bytes = whole_chunks(max(settings.part_bytes or _PART_BYTES, -(-state.size // _MOST_PARTS)))
        self._header = DownloadHeader(source.url, state.identity, state.size, part_bytes)
        self._parts = plan_parts(state.size, part_bytes)
        self._buffers = BufferPool(PIECE_BYTES)
        self.meter = Meter(state.size, len(self._parts))
        self.restarted: str | None = None
        self.resumed_bytes = 0

    def run(self) -> None:
        known = self._journal.header
        why = None if known is None else self._header.difference(known)
        if known is None or why is not None:
            self.restarted = why
            self._journal.begin(self._header)
        if self._is_there():
            self.resumed_bytes = self._state.size
            self.meter.resumed(len(self._parts), self._state.size)
            self._tell()
            self._journal.remove()
            self._part_path.unlink(missing_ok=True)
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._part_path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InvalidInputError(f"{self._part_path} is no file", hint="Remove it.")
            self._fill(fd)
        except (TransferCancelledError, KeyboardInterrupt) as error:
            if self._settings.on_cancel == "discard":
                self._discard()
            elif isinstance(error, TransferCancelledError):
                error.kept = True
                error.hint = "Run the transfer again: it goes on where it stood."
            raise
        except SourceChangedError:
            self._discard()
            raise
        finally:
            os.close(fd)
        self._part_path.replace(self._final)
        sync_folder(self._final.parent)
        self._journal.remove()
        self._tell()

    def _fill(self, fd: int) -> None:
        """All parts into the file, checked and on the disk."""
        there = self._believed(fd)
        missing = [part for part in self._parts if part.number not in there]
        held = os.fstat(fd)
        new_bytes = self._state.size - (held.st_blocks * 512 if there else 0)
        if new_bytes > shutil.disk_usage(self._part_path.parent).free:
            raise OutOfSpaceError(
                f"{self._part_path.parent} has too little room: this download writes {new_bytes} bytes",
                hint="Free space, or name another destination; what was moved is kept.",
            )
        if not there:
            os.ftruncate(fd, 0)  # what is not claimed is a hole, which zeros need not be written to
            self._journal.begin(self._header)
        else:
            self._journal.go_on()
        os.ftruncate(fd, self._state.size)
        self.resumed_bytes = sum(part.length for part in self._parts if part.number in there)
        self.meter.resumed(len(there), self.resumed_bytes)
        watch = Watch(self._settings, self.meter, started=self._started)
        unsynced = 0

        def job(part: Part) -> _RangeJob:
            return _RangeJob(self._source, self._state, part, fd, self._buffers, watch, fresh=not there)

        def claim(part: Part, digest: str) -> None:
            self._journal.claim(part.number, digest)

        def done(part: Part) -> None:
            nonlocal unsynced
            unsynced += part.length
            if self._settings.sync and unsynced >= _SYNC_EVERY_BYTES:
                mark = self._journal.mark()
                os.fdatasync(fd)
                self._journal.synced(mark)
                unsynced = 0

        run_parts(missing, job, claim, done=done, watch=watch, settings=self._settings)
        if self._expected is not None and self._digest() != self._expected:
            self._discard()
            raise DigestMismatchError(
                f"what came from {self._source.url} does not make the digest {self._expected}",
                hint="Nothing was kept. Run the transfer again; if it stays so, the object is damaged.",
            )
        if self._settings.sync:
            os.fsync(fd)

    def _digest(self) -> str:
        """What the parts make, all of which were claimed."""
        claims = [self._journal.claims[part.number] for part in self._parts]
        return whole_digest(claims, self._state.size, self._header.part_bytes)

    def _believed(self, fd: int) -> set[int]:
        """Numbers of the parts that are claimed and whose bytes are what was claimed."""
        claims = self._journal.claims
        claimed = [part for part in self._parts if part.number in claims]
        right = right_parts(fd, claimed, claims, self._state.size)
        if len(right) < len(claims):
            self._journal.disown([number for number in claims if number not in right])
        return right

    def _is_there(self) -> bool:
        """Whether the destination is complete already: an earlier run did it, or was killed after the rename."""
        try:
            fd = os.open(self._final, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(fd).st_size != self._state.size:
                return False
            if self._expected is not None:
                return file_digest(self._final) == self._expected
            if self._part_path.exists() or len(self._journal.claims) < len(self._parts) or not self._parts:
                return False
            right = right_parts(fd, self._parts, self._journal.claims, self._state.size)
            return len(right) == len(self._parts)
        finally:
            os.close(fd)

    def _discard(self) -> None:
        self._part_path.unlink(missing_ok=True)
        self._journal.remove()

    def _tell(self) -> None:
        if self._settings.progress is not None:
            self._settings.progress(self.meter.now())


class _RangeJob:
    """One part: a range read into the file, its digest on the way. Goes on where a try before it broke off."""

    def __init__(
        self,
        source: RangeSource,
        state: SourceState,
        part: Part,
        fd: int,
        buffers: BufferPool,
        watch: Watch,
        *,
        fresh: bool,
    ) -> None:
        self._source = source
        self._state = state
        self._part = part
        self._fd = fd
        self._buffers = buffers
        self._watch = watch
        self._fresh = fresh
        self._hasher = PartHasher(part, state.size)
        self.moved_bytes = 0

    def run(self) -> str:
        part, base = self._part, self.moved_bytes

        def take(offset: int, data: memoryview) -> None:
            self._hasher.update(data)
            # A hole reads as zeros: a sparse file stays one.
            if not self._fresh or not _is_zero(data):
                write_exactly(self._fd, data, part.offset + base + offset)
            self.moved_bytes = base + offset + len(data)

        with self._buffers.borrow() as buffer:
            self._source.read(
                self._state, part.offset + base, part.length - base, buffer, take, self._watch.stream()
            )
        return self._hasher.claim()


def _is_zero(data: memoryview) -> bool:
    return not any(data[:64]) and not np.frombuffer(data, np.uint8).any()
