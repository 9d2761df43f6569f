"""Where a pull builds its files, and how they get their names."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textnlp_fast.errors import ConflictError, InvalidInputError, OutOfSpaceError
from textnlp_fast.storage.manifest import RESERVED_PREFIX, Manifest
from textnlp_fast.storage.pull_record import PullRecord, regular_status, write_record

__all__ = ["check_destination", "disk_errors", "publish", "staging_folder"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_EMPTY = {errno.ENOTEMPTY, errno.EEXIST}


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


def check_destination(final: Path, manifest: Manifest, repository: Path | None) -> None:
    """Raises InvalidInputError if the manifest's files cannot take their places in the destination.

    `repository` is the folder they come from, in which none of them may come to lie.
    """
    if final.exists() and not final.is_dir():
        raise InvalidInputError(f"{final} is not a directory", hint="Give a directory to make or to update.")
    for place in (final, *(final / entry.path for entry in manifest.files)):
        if repository is not None and place.is_relative_to(repository):
            raise InvalidInputError(
                f"{place} is within the repository at {repository}",
                hint="Pull into a directory outside the repository.",
            )
    for entry in manifest.files:
        place = final / entry.path
        between = [folder for folder in place.parents if folder.is_relative_to(final) and folder != final]
        blocked = [
            folder for folder in between if folder.is_symlink() or (folder.exists() and not folder.is_dir())
        ]
        if blocked or (place.is_dir() and not place.is_symlink()):
            raise InvalidInputError(
                f"{(blocked or [place])[0]} is in the way of {entry.path!r}",
                hint="Pull into a new directory.",
            )


@contextmanager
def staging_folder(final: Path) -> Iterator[Path]:
    """An empty folder on the destination's file system, for this process alone; gone afterwards.

    It lies beside a destination that does not exist yet, and inside one that does, which may be a file
    system of its own. What a killed pull left in it is removed first. Raises ConflictError if another pull
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
                f"another pull is at work in {root}",
                hint="Wait for it to end, or pull into another directory.",
            ) from None
        with suppress(FileNotFoundError):
            if (root / "lock").stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # the file was removed between opening and locking


def publish(staging: Path, final: Path, manifest: Manifest, record: PullRecord, location: str) -> None:
    """Gives the staged files their names and removes what an earlier pull wrote and this version lacks."""
    for folder in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
        _sync_folder(folder)
    if not final.exists():
        write_record(staging, manifest, location)
        try:
            staging.rename(final)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
        else:
            _sync_folder(final.parent)
            return
    for entry in manifest.files:
        staged = staging / entry.path
        if staged.exists():  # the others are in place already
            place = final / entry.path
            place.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(place)
            _sync_folder(place.parent)
    wanted = {entry.path for entry in manifest.files}
    for path, recorded in record.files.items():
        status = regular_status(final / path)
        if path not in wanted and status is not None and recorded.matches(status):
            (final / path).unlink()
    write_record(final, manifest, location)
    _sync_folder(final)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)
