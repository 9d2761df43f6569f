"""Where a file that a user named may be written: over a file or where nothing is, and never over anything else.

A rename replaces whatever has the name. Over a device, a FIFO or a socket it would leave a file in its place, which as
root breaks the machine: `/dev/full` would be gone until it starts again.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from textnlp_fast.errors import InvalidInputError

__all__ = ["file_destination", "kind_of"]

_LOOKS = 100
_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link"),
)


def kind_of(mode: int) -> str:
    """What a file mode says that something is, for messages: `a device`."""
    return next((name for test, name in _KINDS if test(mode)), "of an unknown kind")


def file_destination(path: str | os.PathLike[str]) -> Path:
    """The file to write when `path` is to be written, absolute: links are followed, so that a link stays a link.

    Raises InvalidInputError if what is there is no file. Opens nothing: a FIFO that nobody reads keeps nobody waiting.
    """
    place = Path(path).expanduser().absolute()
    # Others may replace the file between one look and the next. What has no name has none at any look.
    for _ in range(_LOOKS):
        final = Path(os.path.realpath(place))
        try:
            # The name itself, not where it leads: the links of /proc lead to names that are no files.
            status = os.stat(place)  # noqa: PTH116 - as os.path.samestat takes it
        except FileNotFoundError:
            return final
        except OSError as error:
            raise InvalidInputError(f"cannot write {place}: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(
                f"{place} is {kind_of(status.st_mode)}; only a file is replaced",
                hint="Give the name of a file.",
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(status, final.stat()):
                return final
    raise InvalidInputError(f"{place} is a file without a name", hint="Give the name of a file.")
