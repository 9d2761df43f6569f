"""A patch as a file: 16 bytes, the index, the payload."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from textnlp_fast.contents.documents import MAX_DOCUMENT_BYTES
from textnlp_fast.contents.staging import disk_errors, staging_folder, sync_folder
from textnlp_fast.contents.windows import OpenFiles, write_exactly
from textnlp_fast.delta.patch import MAGIC, PATCH_FORMAT, Patch, Stored, index_document
from textnlp_fast.delta.patch_reading import parse_index
from textnlp_fast.destinations import file_destination
from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    InternalError,
    InvalidInputError,
    UnsupportedFormatError,
)
from textnlp_fast.hashing import Blake3
from textnlp_fast.tensors import read_into

if TYPE_CHECKING:
    from textnlp_fast.delta.view import PatchedModel

__all__ = ["PatchFile", "PatchWriter", "new_patch", "read_patch"]

_HEAD: Final = struct.Struct("<7sBQ")
_COPY_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class PatchFile:
    """A patch file whose index was read and checked; the payload begins at byte `payload_offset`."""

    path: Path
    patch: Patch
    payload_offset: int

    @property
    def size_bytes(self) -> int:
        return self.payload_offset + self.patch.payload_bytes

    @property
    def contents(self) -> Mapping[str, Stored]:
        """What the payload makes."""
        return self.patch.contents

    @property
    def window_bytes(self) -> int:
        return self.patch.window_bytes

    def coded_bytes(self, digest: str, window: int) -> int:
        """What a coded window takes."""
        return self.patch.contents[digest].extents[window][1]

    def read_coded(self, files: OpenFiles, digest: str, window: int, begin: int, end: int) -> memoryview:
        """Bytes [begin, end) of a coded window."""
        data = memoryview(bytearray(end - begin))
        self.read_payload(files, data, self.patch.contents[digest].extents[window][0] + begin)
        return data

    def check_coded(self, files: OpenFiles, digest: str, window: int) -> None:
        """Like `check_payload`: windows have no digests of their own."""
        self.check_payload(files)

    def read_payload(self, files: OpenFiles, out: memoryview, offset: int) -> None:
        """Fills `out` from byte `offset` of the payload."""
        files.read(str(self.path), out, self.payload_offset + offset)

    def payload_parts(self, files: OpenFiles) -> Iterator[memoryview]:
        """The payload in order; each part is overwritten by the next."""
        buffer = memoryview(bytearray(min(_COPY_BYTES, self.patch.payload_bytes)))
        for offset in range(0, self.patch.payload_bytes, _COPY_BYTES):
            part = buffer[: min(_COPY_BYTES, self.patch.payload_bytes - offset)]
            self.read_payload(files, part, offset)
            yield part

    def check_payload(self, files: OpenFiles) -> None:
        """Raises DigestMismatchError unless the payload's bytes are those that were written."""
        hasher = Blake3()
        for part in self.payload_parts(files):
            hasher.update(part, threads=1)
        if hasher.hexdigest() != self.patch.payload_digest:
            raise DigestMismatchError(
                f"bytes of {self.path} changed since it was written",
                hint="Fetch the patch again, or make it again from its two models.",
            )

    def open(self, source: str | os.PathLike[str], *, check: bool = True, threads: int = 0) -> PatchedModel:
        """The target, readable tensor by tensor and row by row, on top of the source at `source`.

        With `check`, the payload and every content of the source are checked against their digests before
        anything is made of them, each once and when it is first needed. Close it, or use it in a `with`.
        """
        from textnlp_fast.delta.view import PatchedModel  # noqa: PLC0415  (it needs this module)

        return PatchedModel(self, source, check=check, threads=threads)


def read_patch(path: str | os.PathLike[str]) -> PatchFile:
    """Reads and checks the index of a patch file; the payload is left where it is.

    Raises InvalidInputError if there is no such file, CorruptDataError if it is no patch or a damaged one,
    UnsupportedFormatError if it is newer than this code.
    """
    place = Path(path)
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidInputError(f"cannot open {place}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(f"{place} is not a regular file", hint="Name a .tnpatch file.")
        head = bytearray(min(_HEAD.size, status.st_size))
        read_into(descriptor, 0, head)
        length = _index_length(bytes(head), status.st_size, place)
        index = bytearray(length)
        read_into(descriptor, _HEAD.size, index)
    finally:
        os.close(descriptor)
    patch = parse_index(bytes(index), str(place))
    offset = _HEAD.size + length
    if offset + patch.payload_bytes != status.st_size:
        raise CorruptDataError(
            f"{place} has {status.st_size} bytes; its index says {offset + patch.payload_bytes}",
            hint="A copy that was cut short looks like this: fetch the patch again.",
        )
    return PatchFile(place, patch, offset)


def _index_length(head: bytes, file_bytes: int, place: Path) -> int:
    if len(head) < _HEAD.size or not head.startswith(MAGIC):
        raise CorruptDataError(
            f"{place} is not a patch", hint="Patches are made by `textnlp-fast delta create`."
        )
    _, number, length = _HEAD.unpack(head)
    if number != PATCH_FORMAT:
        raise UnsupportedFormatError(
            f"{place} is a patch of format {number}; this textnlp-fast reads format {PATCH_FORMAT}"
        )
    if length > min(MAX_DOCUMENT_BYTES, file_bytes - _HEAD.size):
        raise CorruptDataError(
            f"{place} claims an index of {length} bytes in a file of {file_bytes}",
            hint="A copy that was cut short looks like this: fetch the patch again.",
        )
    return int(length)


class PatchWriter:
    """Takes the payload, then makes the file. Made by `new_patch`."""

    def __init__(self, final: Path, folder: Path, descriptor: int) -> None:
        self.folder = folder
        """For other files that are needed on the way; gone when the patch is there."""
        self._final = final
        self._descriptor = descriptor
        self._hasher = Blake3()
        self.payload_bytes = 0

    def add(self, payload: memoryview) -> tuple[int, int]:
        """Appends a coded window; its extent."""
        extent = (self.payload_bytes, len(payload))
        self.append(payload)
        return extent

    def append(self, data: memoryview) -> None:
        """Appends bytes of the payload."""
        write_exactly(self._descriptor, data, self.payload_bytes)
        self._hasher.update(data, threads=1)
        self.payload_bytes += len(data)

    def finish(self, patch: Patch) -> PatchFile:
        """Writes the file and gives it its name, over a patch that had it. The payload's fields are filled in."""
        patch = replace(patch, payload_bytes=self.payload_bytes, payload_digest=self._hasher.hexdigest())
        index = index_document(patch)
        if len(index) > MAX_DOCUMENT_BYTES:
            raise InvalidInputError(
                f"the index takes {len(index)} bytes; a patch has at most {MAX_DOCUMENT_BYTES}",
                hint="Make a patch for each part of the model.",
            )
        head = _HEAD.pack(MAGIC, PATCH_FORMAT, len(index))
        whole = self.folder / "patch"
        descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        copied = Blake3()
        try:
            offset = 0
            for part in chain((memoryview(head), memoryview(index)), self._parts()):
                write_exactly(descriptor, part, offset)
                offset += len(part)
                if offset > len(head) + len(index):
                    copied.update(part, threads=1)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if copied.hexdigest() != patch.payload_digest:
            raise InternalError(
                f"what was written for {self._final} did not come back from the disk as it was"
            )
        whole.replace(self._final)
        sync_folder(self._final.parent)
        return PatchFile(self._final, patch, _HEAD.size + len(index))

    def _parts(self) -> Iterator[memoryview]:
        """The payload in order; each part is overwritten by the next."""
        buffer = memoryview(bytearray(min(_COPY_BYTES, self.payload_bytes)))
        for offset in range(0, self.payload_bytes, _COPY_BYTES):
            part = buffer[: min(_COPY_BYTES, self.payload_bytes - offset)]
            read_into(self._descriptor, offset, part)
            yield part


@contextmanager
def new_patch(path: str | os.PathLike[str]) -> Iterator[PatchWriter]:
    """A writer for a patch at `path`, where nothing appears before it is complete.

    What is written on the way lies in a hidden folder beside it; the next writer of the same path removes what a
    killed one left. Raises ConflictError if another writer is at work, InvalidInputError if `path` cannot be
    written, OutOfSpaceError if the disk is full.
    """
    if not os.fspath(path):
        raise InvalidInputError("the patch has no name", hint="Name a file: changes.tnpatch.")
    final = file_destination(path)
    with disk_errors(final), staging_folder(final) as folder:
        descriptor = os.open(folder / "payload", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield PatchWriter(final, folder, descriptor)
        finally:
            os.close(descriptor)
