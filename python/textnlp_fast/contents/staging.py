"""Where files are built before they get their names."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textnlp_fast.contents.documents import parse_document, seal_document
from textnlp_fast.contents.entries import RESERVED_PREFIX, check_path
from textnlp_fast.contents.placing import move_into, open_own, remove_from
from textnlp_fast.contents.windows import write_exactly
from textnlp_fast.errors import ConflictError, InvalidInputError, OutOfSpaceError, TextnlpFastError

__all__ = [
    "check_destination",
    "disk_errors",
    "finish_replacing",
    "replace_files",
    "staging_folder",
    "sync_folder",
]

# In a staging folder: every file beside it is complete, and where they go.
COMMIT_NAME = "commit"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def disk_errors(final: Path) -> Iterator[None]:
    """Turns what the operating system says about the destination into what the caller can do."""
    try:
        yield
    except TextnlpFastError:
        raise  # some of ours are timeouts, hence OSErrors
    except OSError as error:
        reason = f"cannot write {final}: {error.strerror or error}"
        if error.errno in _FULL:
            raise OutOfSpaceError(reason) from error
        raise InvalidInputError(reason, hint="Check the path and its permissions.") from error


def check_destination(final: Path, paths: Iterable[str], repository: Path | None = None) -> None:
    """Raises InvalidInputError if files of these relative paths cannot take their places in the destination.

    `repository` is the folder they come from, if one is, in which none of them may come to lie.
    """
    if final.exists() and not final.is_dir():
        raise InvalidInputError(f"{final} is not a directory", hint="Give a directory to make or to update.")
    _check_outside(final, repository)
    for path in paths:
        place = final / path
        _check_outside(place, repository)
        between = [folder for folder in place.parents if folder.is_relative_to(final) and folder != final]
        blocked = [
            folder for folder in between if folder.is_symlink() or (folder.exists() and not folder.is_dir())
        ]
        if blocked or _is_other(place):
            raise InvalidInputError(
                f"{(blocked or [place])[0]} is in the way of {path!r}",
                hint="Name a new directory.",
            )


def _is_other(place: Path) -> bool:
    """Whether something is there that is neither a file nor a link: it is not ours to replace."""
    try:
        mode = place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISLNK(mode))


def _check_outside(place: Path, repository: Path | None) -> None:
    if repository is not None and place.is_relative_to(repository):
        raise InvalidInputError(
            f"{place} is within the repository at {repository}",
            hint="Pull into a directory outside the repository.",
        )


@contextmanager
def staging_folder(
    final: Path,
    *,
    goes_on: Callable[[Path], bool] | None = None,
    kept_after: tuple[type[BaseException], ...] = (),
) -> Iterator[Path]:
    """A folder on the destination's file system, for this process alone; empty, and gone afterwards.

    It lies inside a destination that is a directory, which may be a file system of its own, and beside any
    other. What a killed run left in it is removed first, unless `goes_on`, asked with the folder above it, wants to go
    on with it; after an error of `kept_after` it is left for that. Raises ConflictError if another run works there.
    """
    if final.is_dir():
        root = final / f"{RESERVED_PREFIX}-partial"
    else:
        root = final.parent / f".{final.name}{RESERVED_PREFIX}-partial"
        final.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(root)
    try:
        (root / COMMIT_NAME).unlink(missing_ok=True)
        files = root / "files"
        if files.exists() and not (goes_on is not None and goes_on(root)):
            shutil.rmtree(files)
        files.mkdir(exist_ok=True)
        leaves = False
        try:
            yield files
        except kept_after:
            leaves = True
            raise
        finally:
            # With a commit the files are on their way to their places.
            if not leaves and not (root / COMMIT_NAME).exists():
                shutil.rmtree(root, ignore_errors=True)
    finally:
        os.close(lock)


def replace_files(staging: Path, final: Path, removed: Iterable[str], note: str) -> None:
    """Moves the staged files, which are complete, to their places in a directory and removes others.

    Every file is replaced by one rename. A commit is written first, so that `finish_replacing` can do what is
    left if this is interrupted. `note` says for whom it is.
    """
    moved = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
    for folder in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
        sync_folder(folder)
    gone = sorted(removed)
    commit = {"format": 1, "moved": moved, "note": note, "removed": gone}
    written = staging.parent / f"{COMMIT_NAME}.new"
    descriptor = open_own(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_exactly(descriptor, memoryview(seal_document(commit)), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(written, staging.parent / COMMIT_NAME)  # noqa: PTH105 - one call for every step, which tests count
    sync_folder(staging.parent)
    _replace(staging, final, moved, gone)


def finish_replacing(final: Path) -> str | None:
    """Ends what an interrupted `replace_files` left half done in a directory: its note; None if there was nothing.

    Raises ConflictError if another command works there.
    """
    root = final / f"{RESERVED_PREFIX}-partial"
    if not (root / COMMIT_NAME).exists():
        return None
    lock = _lock(root)
    try:
        try:
            commit = parse_document((root / COMMIT_NAME).read_bytes(), str(root / COMMIT_NAME))
        except FileNotFoundError:
            return None  # another process ended it
        moved, removed = ([check_path(path) for path in commit[key]] for key in ("moved", "removed"))
        _replace(root / "files", final, moved, removed)
        return str(commit["note"])
    finally:
        os.close(lock)


def _replace(staging: Path, final: Path, moved: Iterable[str], removed: Iterable[str]) -> None:
    for path in moved:
        if (staging / path).exists():
            move_into(staging / path, final, path)
    for path in removed:
        remove_from(final, path)
    sync_folder(final)
    (staging.parent / COMMIT_NAME).unlink()
    shutil.rmtree(staging.parent, ignore_errors=True)


def _lock(root: Path) -> int:
    while True:
        root.mkdir(exist_ok=True)
        if root.is_symlink():  # all below it would be made, and removed, somewhere else
            raise InvalidInputError(f"{root} is in the way: it is a link", hint="Remove it.")
        try:
            descriptor = open_own(root / "lock", os.O_RDWR | os.O_CREAT)
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
