"""Digests of what lies in files, read through small buffers, whole or part by part.

Parts are hashed out of order, by any thread and any run, and what is left of them makes BLAKE3's digest of the whole:
its tree is cut between them. So what vouches for a part while it is moved vouches for all of it in the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from textnlp_fast.contents.windows import BufferPool
from textnlp_fast.hashing import Blake3, Blake3Piece, blake3_hex, blake3_join
from textnlp_fast.objectstore.transfers.protocol import Part
from textnlp_fast.tensors import read_into

__all__ = ["PIECE_BYTES", "PartHasher", "file_digest", "right_parts", "whole_digest"]

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


class PartHasher:
    """BLAKE3 of one part of an object of ``size`` bytes."""

    def __init__(self, part: Part, size: int) -> None:
        self._whole = Blake3() if part.length == size else None
        self._piece = Blake3Piece(part.offset) if self._whole is None else None

    def update(self, data: memoryview) -> None:
        """The part's next bytes."""
        if self._whole is not None:
            self._whole.update(data, threads=1)
        elif self._piece is not None:
            self._piece.update(data, threads=1)

    def claim(self) -> str:
        """What is left of the part, hexadecimal digits: its digest where it is the whole, else roots of subtrees."""
        if self._whole is not None:
            return self._whole.hexdigest()
        assert self._piece is not None  # one of the two is there
        return self._piece.values().hex()


def whole_digest(claims: Sequence[str], size: int, part_bytes: int) -> str:
    """BLAKE3 of an object, hexadecimal digits, by what is left of all its parts, in order."""
    if len(claims) > 1:
        return blake3_join(bytes.fromhex("".join(claims)), size_bytes=size, piece_bytes=part_bytes).hex()
    return claims[0] if claims else blake3_hex(b"")


def right_parts(fd: int, parts: Iterable[Part], claims: dict[int, str], size: int) -> set[int]:
    """Numbers of those parts of a file that are what is claimed; ``size`` is the whole object's."""
    buffers = BufferPool(PIECE_BYTES)
    there = os.fstat(fd).st_size

    def is_right(part: Part) -> bool:
        if part.offset + part.length > there:
            return False
        hasher = PartHasher(part, size)
        with buffers.borrow() as buffer:
            for begin in range(0, part.length, PIECE_BYTES):
                view = buffer[: min(PIECE_BYTES, part.length - begin)]
                read_into(fd, part.offset + begin, view)
                hasher.update(view)
        return hasher.claim() == claims[part.number]

    wanted = list(parts)
    with ThreadPoolExecutor(_HASHERS, thread_name_prefix="textnlp-fast-verify") as pool:
        return {part.number for part, right in zip(wanted, pool.map(is_right, wanted), strict=True) if right}
