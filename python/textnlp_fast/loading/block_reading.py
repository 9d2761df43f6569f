"""Blocks of files: out of the page cache where they are in it, else past it, straight from the disk.

Measured (`benches/load.py`): a copy out of the cache is several times as fast as the disk, and reading through a cold
cache takes about twice as long as reading past it. What the kernel cannot do, older ones or some file systems, is read
as usual.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from typing import Final

from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.tensors import read_into

__all__ = ["ALIGNMENT_BYTES", "BlockFiles"]

#: What reads past the cache are aligned to, in the file and in memory: no disk's block is larger.
ALIGNMENT_BYTES: Final = 4096

_NOT_CACHED: Final = frozenset({errno.EAGAIN})
_CANNOT: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


class BlockFiles(OpenFiles):
    """Read-only files, opened once each, and a second time for reads past the cache. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._direct: dict[str, int | None] = {}
        self._opening = threading.Lock()
        self._asks_cache = hasattr(os, "RWF_NOWAIT")

    def __enter__(self) -> BlockFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        for descriptor in self._direct.values():
            if descriptor is not None:
                os.close(descriptor)
        self._direct.clear()
        super().__exit__(*exception)

    def read_cached(self, location: str, views: Sequence[memoryview], offset: int) -> bool:
        """Fills at most 1024 views from byte ``offset`` on if that takes no disk; else they hold nothing of use.

        Where the kernel does not tell, it is read as usual.
        """
        if self._asks_cache:
            try:
                count = os.preadv(self.descriptor(location), views, offset, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno in _NOT_CACHED:
                    return False
                if error.errno not in _CANNOT:
                    raise
                self._asks_cache = False
            else:
                return count == sum(map(len, views))
        self.read_scattered(location, views, offset)
        return True

    def read_block(self, location: str, room: memoryview, offset: int, size: int) -> int:
        """Reads ``size`` bytes at ``offset`` into ``room``, page-aligned memory of two alignments more than that.

        Returns where in ``room`` they begin. Raises InvalidInputError if the file ends before.
        """
        before = offset % ALIGNMENT_BYTES
        view = room[before : before + size]
        if self.read_cached(location, [view], offset):
            return before
        done = self._read_past_cache(location, room, offset - before, before + size)
        if done < before + size:
            have = max(0, done - before)
            read_into(self.descriptor(location), offset + have, view[have:])
        return before

    def _read_past_cache(self, location: str, room: memoryview, begin: int, size: int) -> int:
        """Reads what it can of ``size`` bytes from an aligned place on; returns how much."""
        descriptor = self._direct_descriptor(location)
        if descriptor is None:
            return 0
        rounded = -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        try:
            return min(size, os.preadv(descriptor, [room[:rounded]], begin))
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return 0

    def _direct_descriptor(self, location: str) -> int | None:
        with self._opening:
            if location not in self._direct:
                try:
                    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT
                    self._direct[location] = os.open(location, flags)
                except OSError as error:
                    if error.errno not in _CANNOT:
                        raise
                    self._direct[location] = None
            return self._direct[location]
