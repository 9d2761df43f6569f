"""A folder as a place to move files to and from: the same parts and journals, without a network."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from textnlp_fast.destinations import kind_of
from textnlp_fast.errors import InvalidInputError, MissingObjectError, SourceChangedError
from textnlp_fast.objectstore.transfers.protocol import SourceState

if TYPE_CHECKING:
    from textnlp_fast.objectstore.transfers.protocol import Take
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["FileSource"]


class FileSource:
    """A file. Its identity is what changes when somebody writes to it."""

    def __init__(self, path: Path) -> None:
        self.url = path.as_uri()
        self._path = path

    def look(self) -> SourceState:
        try:
            status = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise MissingObjectError(f"there is no {self._path}", hint="Check the name.") from None
        except OSError as error:
            raise InvalidInputError(f"cannot read {self._path}: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(f"{self._path} is {kind_of(status.st_mode)}, no file")
        identity = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
        return SourceState(status.st_size, identity)

    def read(
        self, state: SourceState, offset: int, length: int, buffer: memoryview, take: Take, watch: StreamWatch
    ) -> None:
        with self._path.open("rb", buffering=0) as file:
            done = 0
            while done < length:
                view = buffer[: min(len(buffer), length - done)]
                count = os.preadv(file.fileno(), [view], offset + done)
                if not count:
                    raise SourceChangedError(f"{self._path} became shorter while it was read")
                take(done, view[:count])
                done += count
                watch.passed(count)
        if self.look() != state:
            raise SourceChangedError(f"{self._path} was written to while it was read")

    def close(self) -> None:
        """Nothing is open."""
