"""The look at a file before it is sent, for its digest and checks of its parts; all at once, or just ahead of them.

Whoever knows the digest already need not wait: a part is sent as soon as it was looked at, out of the kernel's cache.
The last part is held back until the digest of all is known to be the one that was named.
"""

from __future__ import annotations

import os
import re
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from textnlp_fast.contents.windows import BufferPool
from textnlp_fast.errors import DigestMismatchError, InvalidInputError
from textnlp_fast.objectstore.transfers.crc32c import crc32c, joined_crc32c
from textnlp_fast.objectstore.transfers.digests import PIECE_BYTES, PartHasher, whole_digest
from textnlp_fast.objectstore.transfers.part_body import PartBody
from textnlp_fast.objectstore.transfers.protocol import Part, UploadPlan, plan_parts
from textnlp_fast.objectstore.transfers.watch import StoppedError, Watch

__all__ = ["LookAhead", "check_digest", "checked_digest", "look_at"]

_LOOKERS: Final = min(4, os.cpu_count() or 1)
_AHEAD: Final = 32
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
    """Reads a file in parts side by side: their checks, and the digest of the whole.

    ``seen`` is told the number and the CRC-32 of each part once it was read, in order.
    """
    parts = plan_parts(size, part_bytes)
    whole = PartBody(fd, local, Part(0, 0, size), 0)
    buffers = BufferPool(PIECE_BYTES)
    crc32, crc32c_, claims = list[int](), list[tuple[int, int]](), list[str]()

    def look(part: Part) -> tuple[str, int, int]:
        hasher, checked, also = PartHasher(part, size), 0, 0
        with buffers.borrow() as buffer:
            for begin in range(0, part.length, PIECE_BYTES):
                watch.check()
                view = buffer[: min(PIECE_BYTES, part.length - begin)]
                whole.read_into(part.offset + begin, view)
                hasher.update(view)
                checked = zlib.crc32(view, checked)
                if wants_crc32c:
                    also = crc32c(also, view)
        return hasher.claim(), checked, also

    with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="textnlp-fast-check") as pool:
        # No further ahead of `seen`, which may take its time, than keeps them busy.
        running = deque(pool.submit(look, part) for part in parts[: 2 * _LOOKERS])
        for part in parts:
            watch.check()
            claim, checked, also = running.popleft().result()
            running.extend(pool.submit(look, next_) for next_ in parts[part.number + 2 * _LOOKERS :][:1])
            claims.append(claim)
            crc32.append(checked)
            crc32c_.append((also, part.length))
            seen(part.number, checked)
    return UploadPlan(
        size,
        whole_digest(claims, size, part_bytes),
        part_bytes,
        crc32,
        joined_crc32c(crc32c_) if wants_crc32c else None,
    )


class LookAhead:
    """Looks at a file whose ``digest`` the caller named, on a thread, while its parts are sent.

    ``crc32`` grows as parts are looked at, no more than a few ahead of those that are to be sent: they shall still be
    in the kernel's cache then. ``done`` is called with all that was found, before the last part may go.
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
        self._wanted = 0
        self._watch: Watch | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="textnlp-fast-look", daemon=True)

    @contextmanager
    def running(self, watch: Watch) -> Iterator[None]:
        """Looks while the block runs. The block's error is the look's, if that failed first."""
        self._watch = watch
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
            self._wanted = max(self._wanted, part.number)
            self._changed.notify_all()
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
        with self._changed:
            while number >= self._wanted + _AHEAD:
                self._changed.wait(_NAP_S)
                assert self._watch is not None  # it was there before the thread was
                self._watch.check()

    def _let(self, seen: int) -> None:
        with self._changed:
            self._seen = seen
            self._changed.notify_all()
