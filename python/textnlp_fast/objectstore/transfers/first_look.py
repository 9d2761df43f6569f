"""The look at a file before it is sent, for its digest and checks of its parts; all at once, or just ahead of them.

Whoever knows the digest already need not wait: a part is sent as soon as it was looked at, out of the kernel's cache.
The last part is held back until the digest of all is known to be the one that was named.
"""

from __future__ import annotations

import importlib
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from textnlp_fast.errors import DigestMismatchError, InvalidInputError
from textnlp_fast.hashing import Blake3
from textnlp_fast.objectstore.transfers.part_body import PartBody
from textnlp_fast.objectstore.transfers.protocol import Part, PartsDigest, UploadPlan, plan_parts
from textnlp_fast.objectstore.transfers.watch import StoppedError, Watch

__all__ = ["LookAhead", "check_digest", "checked_digest", "look_at"]

_PIECE_BYTES: Final = 4 << 20
_NAP_S: Final = 0.1
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def checked_digest(named: str | None) -> str | None:
    """A digest as a caller names it, in small letters. ``InvalidInputError`` if it is none."""
    if named is None:
        return None
    if not _DIGEST.fullmatch(named.lower()):
        raise InvalidInputError(
            f"{named[:100]!r} is no BLAKE3 digest", hint="Give 64 hexadecimal digits, as `b3sum` prints them."
        )
    return named.lower()


def check_digest(local: Path, found: str, named: str | None) -> None:
    """Raises ``DigestMismatchError`` if a file is not the one that the caller named by its digest."""
    if named is not None and found != named:
        raise DigestMismatchError(
            f"{local} has the digest {found}, not {named}",
            hint="Nothing was published. Send the file that the digest is of, or leave the digest out.",
        )


def look_at(
    fd: int,
    local: Path,
    size: int,
    part_bytes: int,
    *,
    wants_crc32c: bool,
    watch: Watch,
    seen: Callable[[int, int], None] = lambda number, crc32: None,
) -> UploadPlan:
    """Reads a file: digest of the whole on all processors, checks of parts beside it, one piece read ahead.

    ``seen`` is told the number and the CRC-32 of each part once it was read.
    """
    hasher = Blake3()
    whole = PartBody(fd, local, Part(0, 0, size), 0)
    parts = plan_parts(size, part_bytes)
    pieces = [
        (part.number, part.offset + begin, min(_PIECE_BYTES, part.length - begin))
        for part in parts
        for begin in range(0, part.length, _PIECE_BYTES)
    ]
    crc32, crc32c = [0] * len(parts), 0
    hashers = [Blake3() for _ in parts]
    buffers = [memoryview(bytearray(_PIECE_BYTES)) for _ in range(2)]

    def fill(number: int) -> None:
        _, offset, length = pieces[number]
        whole.read_into(offset, buffers[number % 2][:length])

    with ThreadPoolExecutor(4, thread_name_prefix="textnlp-fast-check") as pool:
        following = pool.submit(fill, 0) if pieces else None
        for number, (part_number, offset, length) in enumerate(pieces):
            watch.check()
            assert following is not None
            following.result()
            if number + 1 < len(pieces):
                following = pool.submit(fill, number + 1)
            view = buffers[number % 2][:length]
            first = pool.submit(zlib.crc32, view, crc32[part_number])
            second = pool.submit(_crc32c, crc32c, view) if wants_crc32c else None
            third = pool.submit(hashers[part_number].update, view, threads=1)
            hasher.update(view)
            third.result()
            crc32[part_number] = first.result()
            crc32c = 0 if second is None else second.result()
            if offset + length == parts[part_number].offset + parts[part_number].length:
                seen(part_number, crc32[part_number])
    return UploadPlan(
        size,
        hasher.hexdigest(),
        part_bytes,
        crc32,
        crc32c if wants_crc32c else None,
        PartsDigest.of(part_bytes, (each.digest() for each in hashers)).digest,
    )


class LookAhead:
    """Looks at a file whose ``digest`` the caller named, on a thread, while its parts are sent.

    ``crc32`` grows as parts are looked at. ``done`` is called with all that was found, before the last part may go.
    """

    def __init__(
        self,
        look: Callable[[Callable[[int, int], None]], UploadPlan],
        local: Path,
        digest: str,
        parts: int,
        done: Callable[[UploadPlan], None],
    ) -> None:
        self.crc32 = [0] * parts
        self._look = look
        self._local = local
        self._digest = digest
        self._done = done
        self._changed = threading.Condition()
        self._seen = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="textnlp-fast-look", daemon=True)

    @contextmanager
    def running(self, watch: Watch) -> Iterator[None]:
        """Looks while the block runs. The block's error is the look's, if that failed first."""
        self._thread.start()
        try:
            yield
        except BaseException:
            watch.stop()
            self._thread.join()
            if self._error is not None and not isinstance(self._error, StoppedError):
                raise self._error from None
            raise
        self._thread.join()

    def wait(self, part: Part, watch: Watch) -> None:
        """Waits until a part may be sent."""
        with self._changed:
            while self._seen <= part.number:
                if self._error is not None:
                    raise StoppedError  # the look's own error is the one to report
                self._changed.wait(_NAP_S)
                watch.check()

    def _run(self) -> None:
        try:
            found = self._look(self._part_seen)
            check_digest(self._local, found.digest, self._digest)
            self._done(found)
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits
            self._error = error
            with self._changed:
                self._changed.notify_all()
        else:
            self._let(len(self.crc32))

    def _part_seen(self, number: int, crc32: int) -> None:
        self.crc32[number] = crc32
        if number + 1 < len(self.crc32):
            self._let(number + 1)

    def _let(self, seen: int) -> None:
        with self._changed:
            self._seen = seen
            self._changed.notify_all()


def _crc32c(before: int, data: memoryview) -> int:
    google_crc32c = cast("Any", importlib.import_module("google_crc32c"))  # comes with Google's client
    return int(google_crc32c.extend(before, bytes(data)))
