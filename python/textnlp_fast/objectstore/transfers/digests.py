"""Digests of what lies in files, whole or part by part, read through small buffers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from textnlp_fast.contents.windows import BufferPool
from textnlp_fast.hashing import Blake3
from textnlp_fast.objectstore.transfers.protocol import Part
from textnlp_fast.tensors import read_into

__all__ = ["PIECE_BYTES", "WholeDigest", "file_digest", "right_parts"]

PIECE_BYTES: Final = 256 << 10  # in the second-level cache from the socket to the file, hashed on the way
_HASHERS: Final = 4


def file_digest(path: str | os.PathLike[str]) -> str:
    """BLAKE3 of a file, hexadecimal digits."""
    hasher = Blake3()
    buffer = memoryview(bytearray(PIECE_BYTES))
    with Path(path).open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count], threads=1)
    return hasher.hexdigest()


def right_parts(fd: int, parts: Iterable[Part], claims: dict[int, str]) -> set[int]:
    """Numbers of those parts of a file that have the digests claimed."""
    buffers = BufferPool(PIECE_BYTES)
    size = os.fstat(fd).st_size

    def is_right(part: Part) -> bool:
        if part.offset + part.length > size:
            return False
        hasher = Blake3()
        with buffers.borrow() as buffer:
            _hash_part(fd, part, buffer, hasher)
        return hasher.hexdigest() == claims[part.number]

    wanted = list(parts)
    with ThreadPoolExecutor(_HASHERS, thread_name_prefix="textnlp-fast-verify") as pool:
        return {part.number for part, right in zip(wanted, pool.map(is_right, wanted), strict=True) if right}


def _hash_part(fd: int, part: Part, buffer: memoryview, hasher: Blake3) -> None:
    for begin in range(0, part.length, PIECE_BYTES):
        view = buffer[: min(PIECE_BYTES, part.length - begin)]
        read_into(fd, part.offset + begin, view)
        hasher.update(view, threads=1)


class WholeDigest:
    """Digest of the whole, made behind the parts as they close up: what was just written is still in the cache."""

    def __init__(self, fd: int, parts: list[Part], there: set[int]) -> None:
        self._fd = fd
        self._parts = parts
        self._there = set(there)
        self._changed = threading.Condition()
        self._stopped = False
        self._hasher = Blake3()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._follow, name="textnlp-fast-digest", daemon=True)
        self._thread.start()

    def add(self, number: int) -> None:
        """Part ``number`` is there."""
        with self._changed:
            self._there.add(number)
            self._changed.notify()

    def result(self) -> str:
        """The digest, once all parts were added."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._hasher.hexdigest()

    def stop(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _follow(self) -> None:
        buffer = memoryview(bytearray(PIECE_BYTES))
        try:
            for part in self._parts:
                with self._changed:
                    while part.number not in self._there and not self._stopped:
                        self._changed.wait()
                    if self._stopped:
                        return
                _hash_part(self._fd, part, buffer, self._hasher)
        except OSError as error:
            self._error = error
