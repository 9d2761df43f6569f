"""Objects in pieces, each of which can be checked by itself against the object's name.

An object is named by its BLAKE3 digest, the root of a tree over its chunks. A piece is a whole subtree of that tree,
and its value is that subtree's root. The values of all pieces join to the digest, so a list of them needs nobody's
word, and with a list any piece can be checked, whoever sent it.
"""

from __future__ import annotations

import re
from typing import Final

from textnlp_fast.errors import DigestMismatchError, InvalidInputError
from textnlp_fast.hashing import Blake3Piece, blake3_hex, blake3_join

__all__ = ["LEAST_PIECE_BYTES", "MOST_PIECES", "Layout", "ValueList", "digest_of_key", "key_of", "values_of"]

# Smaller ones cost more requests than they spare bytes.
LEAST_PIECE_BYTES = 1 << 20
MOST_PIECES: Final = 1024
_VALUE_BYTES: Final = 32
_MOST_OBJECT_BYTES: Final = 1 << 44
_KEY = re.compile(r"objects/([0-9a-f]{2})/(\1[0-9a-f]{62})\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def digest_of_key(key: str) -> str | None:
    """The digest that an immutable object's key names; None for keys of other kinds."""
    found = _KEY.match(key)
    return None if found is None else found[2]


def key_of(digest: str) -> str:
    """The key of an immutable object. Raises InvalidInputError for what is no digest."""
    if not _DIGEST.match(digest):
        raise InvalidInputError(f"{digest[:80]!r} is no digest of an object")
    return f"objects/{digest[:2]}/{digest}"


class Layout:
    """How an object of `size_bytes` is cut: the same everywhere, for it follows from the size alone.

    Pieces are a power of two of bytes, at least 1 MiB, and at most 1024 of them.
    """

    __slots__ = ("count", "piece_bytes", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        if not 0 < size_bytes <= _MOST_OBJECT_BYTES:
            raise InvalidInputError(f"an object of {size_bytes} bytes is not cut into pieces")
        self.size_bytes = size_bytes
        self.piece_bytes = LEAST_PIECE_BYTES
        while self.piece_bytes * MOST_PIECES < size_bytes:
            self.piece_bytes *= 2
        self.count = -(-size_bytes // self.piece_bytes)

    def offset(self, piece: int) -> int:
        """Where a piece begins in the object."""
        return piece * self.piece_bytes

    def length(self, piece: int) -> int:
        """Bytes of a piece: the last one is shorter. Raises InvalidInputError for a number that no piece has."""
        if not 0 <= piece < self.count:
            raise InvalidInputError(f"piece {piece} of {self.count}")
        return min(self.piece_bytes, self.size_bytes - self.offset(piece))

    def covering(self, start: int, length: int) -> range:
        """The pieces that bytes [start, start + length) lie in, as far as there are such bytes."""
        end = min(start + length, self.size_bytes)
        if start >= end:
            return range(0)
        return range(start // self.piece_bytes, (end - 1) // self.piece_bytes + 1)


def values_of(data: bytes | memoryview, offset: int) -> bytes:
    """The value of a piece that begins at byte `offset`: 32 bytes, or a few times that where it is the last one."""
    hasher = Blake3Piece(offset)
    hasher.update(data)
    return hasher.values()


class ValueList:
    """The values of all pieces of an object, true by construction.

    Raises DigestMismatchError where `values` do not join to the digest. An object of one piece has no list: its piece
    is checked against the digest itself.
    """

    def __init__(self, digest: str, layout: Layout, values: bytes) -> None:
        if layout.count > 1:
            try:
                joined = blake3_join(
                    values, size_bytes=layout.size_bytes, piece_bytes=layout.piece_bytes
                ).hex()
            except InvalidInputError as error:
                raise DigestMismatchError(f"the values of {digest} are none: {error.args[0]}") from None
            if joined != digest:
                raise DigestMismatchError(f"the values of {digest} are those of another object")
        self.digest = digest
        self.layout = layout
        self.values = values if layout.count > 1 else b""

    def of(self, piece: int) -> bytes:
        """The value of one piece."""
        # All but the last are one subtree each.
        start = piece * _VALUE_BYTES
        return (
            self.values[start:]
            if piece == self.layout.count - 1
            else self.values[start : start + _VALUE_BYTES]
        )

    def holds(self, piece: int, data: bytes | memoryview) -> bool:
        """Whether `data` is that piece."""
        if len(data) != self.layout.length(piece):
            return False
        if self.layout.count == 1:
            return blake3_hex(data, threads=1) == self.digest
        return values_of(data, self.layout.offset(piece)) == self.of(piece)
