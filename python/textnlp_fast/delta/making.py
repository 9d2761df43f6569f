"""Makes any stretch of any content of a patch: read from a file that has it, or decoded against what its recipe gives.

What comes out is checked by the caller, who knows how much of a content was made.
"""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from itertools import accumulate

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta import codec
from textnlp_fast.delta.patch import Stored
from textnlp_fast.delta.patch_file import PatchFile
from textnlp_fast.delta.recipe import Recipe, Whole
from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError

__all__ = ["Maker"]

# A recipe that asks for a little of a stored content makes the reader decode a frame. Honest patches stay far below.
_SLACK_BYTES = 256 << 20
_MOST_WORK = 64
# What decoding the smallest frame counts for.
_LEAST_WORK = 1 << 12


class Maker:
    """Makes contents of `patch_file`. Thread-safe.

    `places` says where local files have contents; more may be added while it works, and what is there is not
    decoded. With `bounded`, work out of proportion to what was asked for is refused: recipes of recipes can ask
    for the same frames again and again.
    """

    def __init__(
        self,
        patch_file: PatchFile,
        files: OpenFiles,
        places: MutableMapping[str, Held],
        *,
        threads: int = 1,
        bounded: bool = False,
    ) -> None:
        self._file = patch_file
        self._contents = patch_file.patch.contents
        self._window_bytes = patch_file.patch.window_bytes
        self._files = files
        self._threads = threads
        self._bounded = bounded
        self._lock = threading.Lock()
        self._asked = 0
        self._decoded = 0
        self.places = places

    def read_into(self, digest: str, begin: int, out: memoryview) -> None:
        """Fills `out` with the content's bytes from `begin` on.

        Raises CorruptDataError if the payload is damaged, UnsupportedFormatError if it is newer than this code.
        """
        with self._lock:
            self._asked += len(out)
        self._read_into(digest, begin, out)

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

    def _make(self, stored: Stored, window: int, size: int, inside: int, out: memoryview) -> None:
        """Bytes from `inside` on of a window of `size` bytes, by decoding the frames that have them."""
        offset, length = stored.extents[window]
        payload = memoryview(bytearray(length))
        self._file.read_payload(self._files, payload, offset)
        window_begin = window * self._window_bytes
        try:
            if len(out) == size:
                self._decode(stored, payload, window_begin, out)
                return
            found = codec.frames(payload)
            ends = list(accumulate(frame.decoded_bytes for frame in found))
            if not ends or ends[-1] != size:
                raise CorruptDataError(
                    f"the frames of a window of {size} bytes make {ends[-1] if ends else 0}"
                )
            coded_end = 0
            done = 0
            for frame, end in zip(found, ends, strict=True):
                coded_begin, coded_end = coded_end, coded_end + frame.encoded_bytes
                begin = end - frame.decoded_bytes
                if end <= inside or done == len(out):
                    continue
                low = inside + done - begin
                count = min(frame.decoded_bytes - low, len(out) - done)
                part = payload[coded_begin:coded_end]
                if count == frame.decoded_bytes:
                    self._decode(stored, part, window_begin + begin, out[done : done + count])
                else:
                    whole = memoryview(bytearray(frame.decoded_bytes))
                    self._decode(stored, part, window_begin + begin, whole)
                    out[done : done + count] = whole[low : low + count]
                done += count
        except InvalidInputError as error:  # the call is right, so the frames are not
            raise CorruptDataError(f"frames of content {stored.digest}: {error.args[0]}") from error
        except UnsupportedFormatError:
            self._file.check_payload(self._files)  # a damaged byte can look like a newer format
            raise

    def _decode(self, stored: Stored, payload: memoryview, begin: int, out: memoryview) -> None:
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

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self._decoded += max(size_bytes, _LEAST_WORK)
            if self._bounded and self._decoded > _MOST_WORK * self._asked + _SLACK_BYTES:
                raise CorruptDataError(
                    "the recipes of this patch ask for the same bytes too often to be read here and there",
                    hint="Apply the whole patch: that makes every content once.",
                )
