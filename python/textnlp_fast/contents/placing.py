"""Files get their places below a directory, and nowhere else, whatever links lie in it or come to lie in it meanwhile.

A path is walked folder by folder, each opened in the one before and never through a link, so that no check is made of
a name that means something else a moment later.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textnlp_fast.errors import InvalidInputError

__all__ = ["move_into", "open_own", "remove_from"]

_LINKS = {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}


def move_into(staged: Path, final: Path, path: str) -> None:
    """Gives a complete file its place `path` below `final`, by one rename that lasts.

    What has the name already, a file or a link, is replaced. Raises InvalidInputError if a folder on the way is a link.
    """
    with _folder_of(final, path, make=True) as (folder, name):
        os.replace(staged, name, dst_dir_fd=folder)
        _sync(folder)


def remove_from(final: Path, path: str) -> None:
    """Removes a file or a link below `final`; no error if it is not there. Raises as `move_into`."""
    with suppress(FileNotFoundError), _folder_of(final, path, make=False) as (folder, name):
        os.unlink(name, dir_fd=folder)


def open_own(path: Path, flags: int) -> int:
    """Opens a file that this package keeps for itself. Raises InvalidInputError if somebody put a link in its place."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in _LINKS:
            raise
        raise _in_the_way(path) from error


@contextmanager
def _folder_of(final: Path, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
    """The folder that `path` lies in, opened, and the last part of the path."""
    *between, name = path.split("/")
    folder = os.open(final, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        walked = final
        for part in between:
            walked /= part
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
            try:
                below = os.open(
                    part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
                )
            except OSError as error:
                if error.errno not in _LINKS:
                    raise
                raise _in_the_way(walked) from error
            os.close(folder)
            folder = below
        yield folder, name
    finally:
        os.close(folder)


def _in_the_way(path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"{path} is in the way: it is a link, or no folder", hint="Name a new directory, or remove it."
    )


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise
