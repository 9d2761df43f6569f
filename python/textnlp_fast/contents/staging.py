"""Where files are built before they get their names."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textnlp_fast.contents.entries import RESERVED_PREFIX
from textnlp_fast.errors import ConflictError, InvalidInputError, OutOfSpaceError

__all__ = ["check_destination", "disk_errors", "staging_folder", "sync_folder"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def disk_errors(final: Path) -> Iterator[None]:
    """Turns what the operating system says about the destination into what the caller can do."""
    try:
        yield
    except OSError as error:
        reason = f"cannot write {final}: {error.strerror or error}"
        if error.errno in _FULL:
            raise OutOfSpaceError(reason) from error
        raise InvalidInputError(reason, hint="Check the path and its permissions.") from error


def check_destination(final: Path, paths: Iterable[str]) -> None:
    """Raises InvalidInputError if files of these relative paths cannot take their places in the destination."""
    if final.exists() and not final.is_dir():
        raise InvalidInputError(f"{final} is not a directory", hint="Give a directory to make or to update.")
    for path in paths:
        place = final / path
        between = [folder for folder in place.parents if folder.is_relative_to(final) and folder != final]
        blocked = [
            folder for folder in between if folder.is_symlink() or (folder.exists() and not folder.is_dir())
        ]
        if blocked or (place.is_dir() and not place.is_symlink()):
            raise InvalidInputError(
                f"{(blocked or [place])[0]} is in the way of {path!r}",
                hint="Name a new directory.",
            )


@contextmanager
def staging_folder(final: Path) -> Iterator[Path]:
    """An empty folder on the destination's file system, for this process alone; gone afterwards.

    It lies beside a destination that does not exist yet, and inside one that does, which may be a file
    system of its own. What a killed run left in it is removed first. Raises ConflictError if another run
    works there.
    """
    if final.exists():
        root = final / f"{RESERVED_PREFIX}-partial"
    else:
        root = final.parent / f".{final.name}{RESERVED_PREFIX}-partial"
        final.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(root)
    try:
        files = root / "files"
        if files.exists():
            shutil.rmtree(files)
        files.mkdir()
        yield files
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


def _lock(root: Path) -> int:
    while True:
        root.mkdir(exist_ok=True)
        try:
            descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # its last user removed the folder just now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConflictError(
                f"another command is at work in {root}",
                hint="Wait for it to end, or name another destination.",
            ) from None
        with suppress(FileNotFoundError):
            if (root / "lock").stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # the file was removed between opening and locking


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last: those of files that were renamed into it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)
