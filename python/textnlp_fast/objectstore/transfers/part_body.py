"""A part of a local file as the body of a request: read while it is sent, never held."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Final

from textnlp_fast.errors import InvalidInputError, SourceChangedError
from textnlp_fast.objectstore.transfers.protocol import Part
from textnlp_fast.tensors import read_into

__all__ = ["PartBody"]

_PIECE_BYTES: Final = 256 << 10


class PartBody:
    """Part ``part`` of the file that is open as ``fd``; its bytes had the CRC-32 ``crc32`` when they were looked at."""

    def __init__(self, fd: int, path: Path, part: Part, crc32: int) -> None:
        self.fd = fd
        self.offset = part.offset
        self._path = path
        self._length = part.length
        self._crc32 = crc32

    def __len__(self) -> int:
        return self._length

    def read_into(self, begin: int, view: memoryview) -> None:
        """Fills ``view`` from byte ``begin`` of the part. ``SourceChangedError`` if the file has become shorter."""
        try:
            read_into(self.fd, self.offset + begin, view)
        except InvalidInputError as error:
            raise SourceChangedError(f"{self._path} became shorter while it was sent") from error

    def read(self, begin: int = 0) -> bytes:
        """All of it from byte ``begin``, for clients that take nothing else."""
        data = bytearray(self._length - begin)
        self.read_into(begin, memoryview(data))
        return bytes(data)

    def check(self) -> None:
        """``SourceChangedError`` if the bytes are no longer those that were looked at."""
        self.md5(checked_only=True)

    def md5(self, *, checked_only: bool = False) -> bytes:
        """The MD5 digest of the bytes, which are checked on the way."""
        crc, md5 = 0, hashlib.md5(usedforsecurity=False)
        piece = memoryview(bytearray(min(_PIECE_BYTES, max(1, self._length))))
        for begin in range(0, self._length, len(piece)):
            view = piece[: min(len(piece), self._length - begin)]
            self.read_into(begin, view)
            crc = zlib.crc32(view, crc)
            if not checked_only:
                md5.update(view)
        if crc != self._crc32:
            raise SourceChangedError(f"{self._path} was written to while it was sent")
        return md5.digest()
