"""The files of a version, read by ranges of bytes without pulling it."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.contents.staging import sync_folder
from textnlp_fast.contents.windows import DATA_ERRORS, OpenFiles, with_context, write_exactly
from textnlp_fast.delta.making import Maker
from textnlp_fast.errors import CorruptDataError, InvalidInputError, SafetensorsError
from textnlp_fast.storage.decoding import Sink
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.planning import PullStep
from textnlp_fast.storage.stored_tensors import StoredTensors
from textnlp_fast.tensors import Header, parse_header

__all__ = ["StoredFiles"]

# Contents up to this size are made whole whatever is asked of them: headers, tables, norms.
_SMALL_BYTES: Final = 1 << 20
_KEPT_BYTES: Final = 16 << 20
_BLOCK_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes [begin, end) of a content, which are wanted at `out` of what is read."""

    digest: str
    begin: int
    end: int
    out: int


class StoredFiles:
    """A version, opened for reading files. Thread-safe.

    Contents that are read whole are compared with their digests, and small ones always are; of those the last ones that
    were read in part are kept. Of larger ones the coded windows that hold the bytes are fetched, the frames that do are
    decoded, and nothing proves them beyond the frames' own form; with `check_parts` all of such a content is decoded
    and compared, however little of it is read. Memory beside the result stays within the budget of the options that
    `stored` has.
    """

    def __init__(self, stored: StoredTensors, *, check_parts: bool = False) -> None:
        self._stored = stored
        self._check_parts = check_parts
        self._ends: dict[str, list[int]] = {}
        self._small: OrderedDict[str, bytes] = OrderedDict()
        self._small_bytes = 0
        self._lock = threading.Lock()
        self._files = OpenFiles()
        self._maker: Maker | None = None
        self.entries: Mapping[str, FileEntry] = {entry.path: entry for entry in stored.manifest.files}
        """The version's files by path."""

    @property
    def manifest(self) -> Manifest:
        return self._stored.manifest

    def entry(self, path: str) -> FileEntry:
        """A file of the version. Raises InvalidInputError if there is none of that path."""
        found = self.entries.get(path)
        if found is None:
            version = f"{self.manifest.model}@{self.manifest.version}"
            names = ", ".join(sorted(self.entries)[:10])
            raise InvalidInputError(f"{version} has no file {path!r}", hint=f"It has: {names}.")
        return found

    def header(self, path: str) -> Header:
        """What a safetensors file's header says. Raises InvalidInputError for another file, CorruptDataError."""
        entry = self.entry(path)
        if entry.kind != "safetensors":
            raise InvalidInputError(f"{path!r} is no safetensors file")
        size = self.manifest.contents[entry.parts[0]].size
        try:
            return parse_header(bytes(self.read(path, 0, size)), entry.size)
        except SafetensorsError as error:
            raise CorruptDataError(f"the header of {path!r}: {error.args[0]}") from error

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytearray:
        """Bytes [begin, end) of a file, to its end if None; what lies behind the end is left out.

        Raises InvalidInputError for no file or a range that begins before it, CorruptDataError and its kinds,
        StorageUnavailableError.
        """
        size = self.entry(path).size
        end = size if end is None else min(end, size)
        out = bytearray(max(0, end - begin))
        self.read_into(path, begin, memoryview(out))
        return out

    def read_into(self, path: str, begin: int, out: memoryview) -> None:
        """Fills `out` with the file's bytes from `begin` on; raises what `read` does."""
        entry = self.entry(path)
        if begin < 0 or (len(out) and begin + len(out) > entry.size):
            raise InvalidInputError(f"{path!r} has {entry.size} bytes: not {begin} to {begin + len(out)}")
        whole: dict[str, list[_Piece]] = {}
        for piece in self._pieces(entry, begin, begin + len(out)):
            size = self.manifest.contents[piece.digest].size
            if (piece.begin, piece.end) == (0, size):
                whole.setdefault(piece.digest, []).append(piece)
            elif size <= _SMALL_BYTES:
                data = self._small_content(piece.digest)
                out[piece.out : piece.out + piece.end - piece.begin] = data[piece.begin : piece.end]
            elif self._check_parts:
                whole.setdefault(piece.digest, []).append(piece)
            else:
                self._make_part(piece, out)
        if whole:
            self._make_whole(whole, out)

    def copy(self, path: str, descriptor: int) -> None:
        """Writes a file into an open one, every byte verified; raises what `read` does, and OSError."""
        entry = self.entry(path)
        places: dict[str, list[int]] = {}
        offset = 0
        for digest in entry.parts:
            places.setdefault(digest, []).append(offset)
            offset += self.manifest.contents[digest].size
        os.ftruncate(descriptor, entry.size)

        def sink(step: PullStep, at: int, data: memoryview) -> None:
            for place in places[step.content.digest]:
                write_exactly(descriptor, data, place + at)

        self.make(places, sink)

    def write(self, path: str, place: Path) -> None:
        """Puts a file at a place on the disk in one step, every byte verified; raises what `copy` does."""
        written = place.with_name(f".{place.name}-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            descriptor = os.open(written, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                self.copy(path, descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            written.replace(place)
            sync_folder(place.parent)
        finally:
            written.unlink(missing_ok=True)

    def make(self, digests: Iterable[str], sink: Sink) -> None:
        """Decodes contents, each verified, and hands their bytes to `sink`; raises what `Decoder.run` does."""
        self._stored.decoder().run(self._steps(digests), sink)

    def damaged(self, digests: Iterable[str]) -> list[tuple[str, str]]:
        """Contents that cannot be decoded to what they are called: what each is to a person, and why."""
        wrong = self._stored.decoder().run(self._steps(digests), None, keep_going=True)
        return [(self._stored.names.get(digest, digest), str(error)) for digest, error in wrong.items()]

    def _steps(self, digests: Iterable[str]) -> list[PullStep]:
        return [self._stored.step(digest, {}) for digest in digests if self.manifest.contents[digest].size]

    def blocks(self, path: str, begin: int = 0, end: int | None = None) -> Iterator[bytearray]:
        """A stretch of a file in blocks of bounded size."""
        size = self.entry(path).size
        end = size if end is None else min(end, size)
        for offset in range(begin, end, _BLOCK_BYTES):
            yield self.read(path, offset, min(offset + _BLOCK_BYTES, end))

    # --- how -----------------------------------------------------------------------------------------------

    def _pieces(self, entry: FileEntry, begin: int, end: int) -> Iterator[_Piece]:
        ends = self._ends.get(entry.path)
        if ends is None:
            sizes = (self.manifest.contents[digest].size for digest in entry.parts)
            ends = self._ends[entry.path] = list(accumulate(sizes))
        position = begin
        index = bisect_right(ends, begin)
        while position < end:
            start = ends[index - 1] if index else 0
            until = min(end, ends[index])
            if until > position:
                yield _Piece(entry.parts[index], position - start, until - start, position - begin)
            position = until
            index += 1

    def _small_content(self, digest: str) -> bytes:
        with self._lock:
            kept = self._small.get(digest)
            if kept is not None:
                self._small.move_to_end(digest)
                return kept
        buffer = bytearray(self.manifest.contents[digest].size)
        piece = _Piece(digest, 0, len(buffer), 0)
        self._make_whole({digest: [piece]}, memoryview(buffer))
        data = bytes(buffer)
        with self._lock:
            if digest not in self._small:
                self._small[digest] = data
                self._small_bytes += len(data)
            while self._small_bytes > _KEPT_BYTES:
                self._small_bytes -= len(self._small.popitem(last=False)[1])
        return data

    def _make_whole(self, pieces: Mapping[str, list[_Piece]], out: memoryview) -> None:
        """Decodes contents, verifies them, and keeps what is asked of each."""

        def sink(step: PullStep, at: int, data: memoryview) -> None:
            for piece in pieces[step.content.digest]:
                first, last = max(at, piece.begin), min(at + len(data), piece.end)
                if first < last:
                    to = piece.out + first - piece.begin
                    out[to : to + last - first] = data[first - at : last - at]

        self.make(pieces, sink)

    def _make_part(self, piece: _Piece, out: memoryview) -> None:
        with self._lock:
            if self._maker is None:
                # Nothing local has a part in it, so no file is ever opened: wrong bytes there would go unnoticed.
                self._maker = self._stored.maker(self._files, {}, threads=1)
            maker = self._maker
        what = self._stored.names.get(piece.digest, "a content")
        try:
            maker.read_into(piece.digest, piece.begin, out[piece.out : piece.out + piece.end - piece.begin])
        except InvalidInputError as error:
            raise CorruptDataError(f"{what}: {error.args[0]}") from error
        except DATA_ERRORS as error:
            raise with_context(error, what) from error
