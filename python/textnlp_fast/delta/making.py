"""Makes any stretch of any content of a patch or a version: read from a file that has it, or decoded against what its
recipe gives.

What comes out is checked by the caller, who knows how much of a content was made.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Protocol

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta import codec
from textnlp_fast.delta.recipe import Recipe, Whole
from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError

__all__ = ["Coded", "CodedContents", "Maker"]

# A recipe that asks for a little of a stored content makes the reader decode a frame. Honest patches stay far below.
_SLACK_BYTES = 256 << 20
_MOST_WORK = 64
# For frames that are being decoded because a part of them is wanted, each perhaps for the sake of another.
_MOST_ROOM_BYTES = 512 << 20
# For such frames afterwards.
_KEPT_BYTES = 64 << 20
_MOST_TABLE_ROWS = 1 << 19
_APPLY: Final = "Apply the whole patch: that makes every content once."
# What decoding the smallest frame counts for.
_LEAST_WORK = 1 << 12


@dataclass(frozen=True, slots=True)
class _Frame:
    """Decodes to bytes [begin, end) of its window, from bytes `coded` (begin and end) of the coded window."""

    begin: int
    end: int
    coded: tuple[int, int]


class Coded(Protocol):
    """A content in coded windows: `codec` is `frames`, or `raw` where windows are their own bytes."""

    @property
    def digest(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def base(self) -> Recipe | None: ...

    @property
    def codec(self) -> str: ...


class CodedContents(Protocol):
    """Where coded contents are: the payload of a patch, or the objects of a repository."""

    @property
    def contents(self) -> Mapping[str, Coded]: ...

    @property
    def window_bytes(self) -> int: ...

    def coded_bytes(self, digest: str, window: int) -> int:
        """What a coded window takes."""
        ...

    def read_coded(self, files: OpenFiles, digest: str, window: int, begin: int, end: int) -> memoryview:
        """Bytes [begin, end) of a coded window."""
        ...

    def check_coded(self, files: OpenFiles, digest: str, window: int) -> None:
        """Raises DigestMismatchError unless what a coded window is part of is as it was written."""
        ...


class Maker:
    """Makes contents of `coded`. Thread-safe.

    `places` says where local files have contents; more may be added while it works, and what is there is not
    decoded. With `bounded`, work out of proportion to what was asked for is refused, more than `most_work` bytes
    decoded for each: recipes of recipes can ask for the same frames again and again. `way_out` is what the caller
    can do then. Up to `kept_bytes` of frames are kept that were asked for in part.
    """

    def __init__(
        self,
        coded: CodedContents,
        files: OpenFiles,
        places: MutableMapping[str, Held],
        *,
        threads: int = 1,
        bounded: bool = False,
        most_work: int = _MOST_WORK,
        kept_bytes: int | None = None,
        way_out: str = _APPLY,
    ) -> None:
        self._coded = coded
        self._contents = coded.contents
        self._window_bytes = coded.window_bytes
        self._most_work = most_work
        self._most_kept_bytes = _KEPT_BYTES if kept_bytes is None else kept_bytes
        self._way_out = way_out
        self._files = files
        self._threads = threads
        self._bounded = bounded
        self._lock = threading.Lock()
        self._asked = 0
        self._decoded = 0
        self._taken = 0
        self._kept: OrderedDict[tuple[str, int], bytearray] = OrderedDict()
        self._kept_bytes = 0
        self._tables: dict[tuple[str, int], list[_Frame]] = {}
        self._table_rows = 0
        self.places = places

    def read_into(self, digest: str, begin: int, out: memoryview) -> None:
        """Fills `out` with the content's bytes from `begin` on.

        Raises CorruptDataError if the payload is damaged, UnsupportedFormatError if it is newer than this code.
        """
        with self._lock:
            self._asked += len(out)
        self._read_into(digest, begin, out)

    def read(self, digest: str, begin: int, end: int) -> bytearray:
        """The content's bytes [begin, end); raises what `read_into` does."""
        with self._lock:
            self._asked += end - begin
        return self._held(digest, begin, end)

    def fill_base(self, recipe: Recipe, begin: int, out: memoryview) -> None:
        """Fills `out` with what the recipe gives from byte `begin` on; raises what `read_into` does."""
        with self._lock:
            self._asked += len(out)
        self._fill_base(recipe, begin, out)

    def _read_into(self, digest: str, begin: int, out: memoryview) -> None:
        place = self.places.get(digest)
        if place is not None:
            self._files.read(place.location, out, place.offset + begin)
            return
        stored = self._contents[digest]
        done = 0
        while done < len(out):
            window, inside = divmod(begin + done, self._window_bytes)
            window_begin = window * self._window_bytes
            size = min(self._window_bytes, stored.size - window_begin)
            count = min(size - inside, len(out) - done)
            self._make(stored, window, size, inside, out[done : done + count])
            done += count

    def _make(self, stored: Coded, window: int, size: int, inside: int, out: memoryview) -> None:
        """Bytes from `inside` on of a window of `size` bytes, by decoding the frames that have them."""
        window_begin = window * self._window_bytes
        if stored.codec == "raw":
            out[:] = self._payload(stored, window, (inside, inside + len(out)))
            return
        try:
            if len(out) == size:
                self._decode(stored, self._payload(stored, window), window_begin, out)
                return
            done = 0
            for frame in self._frames(stored, window, size):
                if frame.end <= inside:
                    continue
                if done == len(out):
                    break
                low = inside + done - frame.begin
                count = min(frame.end - frame.begin - low, len(out) - done)
                part = out[done : done + count]
                if count == frame.end - frame.begin:
                    payload = self._payload(stored, window, frame.coded)
                    self._decode(stored, payload, window_begin + frame.begin, part)
                else:
                    part[:] = memoryview(self._kept_frame(stored, window, frame))[low : low + count]
                done += count
        except InvalidInputError as error:  # the call is right, so the frames are not
            raise CorruptDataError(f"frames of content {stored.digest}: {error.args[0]}") from error
        except UnsupportedFormatError:
            # A damaged byte can look like a newer format.
            self._coded.check_coded(self._files, stored.digest, window)
            raise

    def _payload(self, stored: Coded, window: int, coded: tuple[int, int] | None = None) -> memoryview:
        """A coded window, or bytes [begin, end) of it."""
        begin, end = coded or (0, self._coded.coded_bytes(stored.digest, window))
        return self._coded.read_coded(self._files, stored.digest, window, begin, end)

    def _frames(self, stored: Coded, window: int, size: int) -> list[_Frame]:
        """Where the frames of a window are. Found once, for which all of it is read."""
        key = stored.digest, window
        with self._lock:
            found = self._tables.get(key)
        if found is not None:
            return found
        payload = self._payload(stored, window)
        headers = codec.frames(payload)
        ends = list(accumulate(header.decoded_bytes for header in headers))
        coded_ends = list(accumulate(header.encoded_bytes for header in headers))
        if not ends or ends[-1] != size or coded_ends[-1] != len(payload):
            raise CorruptDataError(f"the frames of a window of {size} bytes make {ends[-1] if ends else 0}")
        found = [
            _Frame(begin, end, coded)
            for (begin, end), coded in zip(pairwise([0, *ends]), pairwise([0, *coded_ends]), strict=True)
        ]
        with self._lock:
            if self._table_rows + len(found) > _MOST_TABLE_ROWS:
                self._tables.clear()
                self._table_rows = 0
            if key not in self._tables:
                self._table_rows += len(found)
                self._tables[key] = found
        return found

    def _decode(self, stored: Coded, payload: memoryview, begin: int, out: memoryview) -> None:
        """Decodes whole frames that stand for the content's bytes from `begin` on."""
        self._count(len(out))
        if stored.base is None:
            codec.decode_into(payload, out, threads=self._threads)
            return
        self._fill_base(stored.base, begin, out)
        codec.decode_into(payload, out, out, threads=self._threads)

    def _fill_base(self, recipe: Recipe, begin: int, out: memoryview) -> None:
        if isinstance(recipe, Whole):  # straight into place: a chain of these takes no memory
            self._read_into(recipe.digest, begin, out)
            return
        recipe.read_into(begin, out, self._held)

    def _held(self, digest: str, begin: int, end: int) -> bytearray:
        data = bytearray(end - begin)
        with memoryview(data) as view:
            self._read_into(digest, begin, view)
        return data

    def _kept_frame(self, stored: Coded, window: int, frame: _Frame) -> bytearray:
        """A frame of which a part is wanted. Kept for a while: the next rows, or other recipes, want the rest."""
        begin, size_bytes = window * self._window_bytes + frame.begin, frame.end - frame.begin
        key = stored.digest, begin
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
            self._taken += size_bytes
        try:
            if self._bounded and self._taken > _MOST_ROOM_BYTES:
                raise CorruptDataError(
                    "the recipes take too much memory to be read here and there", hint=self._way_out
                )
            whole = bytearray(size_bytes)
            with memoryview(whole) as view:
                self._decode(stored, self._payload(stored, window, frame.coded), begin, view)
        finally:
            with self._lock:
                self._taken -= size_bytes
        with self._lock:
            if key not in self._kept:
                self._kept[key] = whole
                self._kept_bytes += size_bytes
            while self._kept_bytes > self._most_kept_bytes:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return whole

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self._decoded += max(size_bytes, _LEAST_WORK)
            if self._bounded and self._decoded > self._most_work * self._asked + _SLACK_BYTES:
                raise CorruptDataError(
                    "the recipes ask for the same bytes too often to be read here and there",
                    hint=self._way_out,
                )
