"""Objects as files of a folder, with the promises of a bucket.

* An object appears whole or not at all: bytes go to a file under ``.tmp``, are synced to the disk, and then
  get their name in one step (``link`` where the name must be free, ``rename`` where it may be replaced).
* The folder that got the name is synced too, and those above it that were made for it, so that what was acknowledged
  survives a power cut. A removal is not: an object that a power cut brings back is one that nobody needs, and is
  removed again.
* Compare-and-swap holds an advisory lock of one of a few lock files. The kernel drops it when its holder
  dies.
* Nothing under ``.tmp`` and ``.locks`` is ever listed. What killed writers left in ``.tmp`` goes when the
  folder is opened a day later.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from textnlp_fast.destinations import kind_of
from textnlp_fast.errors import (
    AuthenticationError,
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    OutOfSpaceError,
    StorageUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.objectstore.backend import ObjectMeta, PreconditionFailedError, Version
from textnlp_fast.objectstore.keys import RESERVED_SEGMENTS

__all__ = ["LocalBackend"]

_STALE_AFTER_S = 24 * 3600.0
_LOCKS = 64
_WRITE_BYTES = 8 << 20  # one write call: small enough that a signal or a full disk is noticed soon
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_WRONG_SHAPE = {errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY}


class LocalBackend:
    """Objects in the folder ``root``, which the first write makes if it is not there.

    Lock waits end after ``timeout_s``.
    """

    def __init__(self, root: Path, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        with _os_errors("open", str(root)):
            self._root = root.resolve()
            existing = next(place for place in (self._root, *self._root.parents) if place.exists())
            if not existing.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        self.url = self._root.as_uri()
        self._temporaries = self._root / ".tmp"
        self._lock_files = self._root / ".locks"
        self._staged: dict[str, tuple[bytes, Path]] = {}
        self._staged_lock = threading.Lock()
        with suppress(OSError):  # a folder that is only to be read may belong to somebody else
            self._remove_stale_temporaries()

    # --- reading --------------------------------------------------------------------------------------------

    def get(self, key: str, limit_bytes: int | None) -> tuple[bytes, Version]:
        with self._opened(key) as (fd, size):
            if limit_bytes is not None and size > limit_bytes:
                raise CorruptDataError(
                    f"{key!r} in {self.url} has {size} bytes; at most {limit_bytes} were expected"
                )
            content = _read_at(fd, 0, size)
        return content, _version_of(content)

    def get_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
        with self._opened(key) as (fd, size):
            return [
                memoryview(_read_at(fd, start, max(0, min(length, size - start))))
                for start, length in zip(starts, lengths, strict=True)
            ]

    def head(self, key: str) -> ObjectMeta:
        with _os_errors("look at", key, missing_is=self._missing(key)):
            status = (self._root / key).stat()
        if not stat.S_ISREG(status.st_mode):
            raise self._missing(key)
        return _meta(key, status)

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        yield from self._walk(self._root / prefix, f"{prefix}/" if prefix else "")

    def _walk(self, folder: Path, prefix: str) -> Iterator[ObjectMeta]:
        with _os_errors("list", prefix):
            try:
                with os.scandir(folder) as found:
                    entries = [entry for entry in found if prefix or entry.name not in RESERVED_SEGMENTS]
            except (FileNotFoundError, NotADirectoryError):
                return  # a folder that holds nothing does not exist
            folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        # A folder sorts as its name with the slash that follows in every key below it: "a-b" < "a/b" < "a0".
        entries.sort(key=lambda entry: entry.name + "/" if entry.name in folders else entry.name)
        for entry in entries:
            if entry.name in folders:
                yield from self._walk(folder / entry.name, f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed since the folder was read
                yield _meta(prefix + entry.name, status)

    # --- writing --------------------------------------------------------------------------------------------

    def put(self, key: str, data: memoryview) -> None:
        with self._written(key, data) as (temporary, target):
            temporary.replace(target)

    def put_if_absent(self, key: str, data: bytes) -> Version:
        with self._written(key, data) as (temporary, target):
            try:
                os.link(temporary, target)
            except FileExistsError:
                raise PreconditionFailedError(key) from None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with self._locked(key):  # no hard links here: all writers of ours take the same lock
                    if os.path.lexists(target):
                        raise PreconditionFailedError(key) from None
                    temporary.replace(target)
        return _version_of(data)

    def put_if_version(self, key: str, data: bytes, expected: Version) -> Version:
        with self._written(key, data) as (temporary, target), self._locked(key):
            try:
                current = self.get(key, None)[1]
            except MissingObjectError:
                raise PreconditionFailedError(key) from None
            if current != expected:
                raise PreconditionFailedError(key)
            temporary.replace(target)
        return _version_of(data)

    def stage(self, key: str, data: bytes) -> None:
        with _os_errors("write", key):
            for parent in _make_folder((self._root / key).parent):
                _sync_folder(parent)
            temporary = self._temporary(data)
        with self._staged_lock:
            before, self._staged[key] = self._staged.get(key), (data, temporary)
        if before is not None:
            before[1].unlink(missing_ok=True)

    def unstage(self, key: str) -> None:
        with self._staged_lock:
            found = self._staged.pop(key, None)
        if found is not None:
            with suppress(OSError):  # it goes with the stale ones
                found[1].unlink()

    def delete(self, key: str) -> None:
        target = self._root / key
        try:
            mode = target.lstat().st_mode
        except OSError:
            return  # and make no lock for it, nor a folder
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            return  # a folder, or a device: no object
        with _os_errors("delete", key), self._locked(key):
            try:
                target.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError as error:
                if error.errno in {errno.EISDIR, errno.EPERM} and target.is_dir():
                    return  # a folder is not an object
                raise

    # --- parts ----------------------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[int, int]]:
        """A readable descriptor and the size of the object."""
        with _os_errors("read", key, missing_is=self._missing(key)):
            fd = os.open(self._root / key, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise self._missing(key)
                yield fd, status.st_size
            finally:
                os.close(fd)

    @contextmanager
    def _written(self, key: str, data: bytes | memoryview) -> Iterator[tuple[Path, Path]]:
        """A synced temporary with ``data`` and the name it is to get; afterwards the name is durable."""
        target = self._root / key
        _refuse_others(target)
        with _os_errors("write", key):
            grown = _make_folder(target.parent)
            temporary = self._taken(key, data) or self._temporary(data)
            try:
                yield temporary, target
                # New folders last: where the file system has one journal, the syncs before have done it.
                for folder in (target.parent, *reversed(grown)):
                    _sync_folder(folder)
            finally:
                temporary.unlink(missing_ok=True)

    def _temporary(self, data: bytes | memoryview) -> Path:
        """A file with the bytes, on the disk."""
        _make_folder(self._temporaries)
        temporary = self._temporaries / f"{os.getpid()}-{secrets.token_hex(8)}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                _write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _taken(self, key: str, data: bytes | memoryview) -> Path | None:
        """The file that was staged for this write, if one was."""
        with self._staged_lock:
            staged = self._staged.get(key)
            if staged is None or staged[0] != data:  # another write of the key, of another version of it
                return None
            return self._staged.pop(key)[1]

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock that ``key`` falls on, against other threads and other processes."""
        _make_folder(self._lock_files)
        slot = hashlib.sha256(key.encode()).digest()[0] % _LOCKS
        fd = os.open(self._lock_files / f"{slot:02d}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            deadline = time.monotonic() + self._timeout_s
            pause_s = 0.001
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise StorageUnavailableError(
                            f"another process held the lock of {key!r} for {self._timeout_s:g} s"
                        ) from None
                time.sleep(pause_s)
                pause_s = min(0.05, pause_s * 2)
            yield
        finally:
            os.close(fd)

    def _remove_stale_temporaries(self) -> None:
        if not self._temporaries.is_dir():
            return
        oldest = time.time() - _STALE_AFTER_S
        for entry in os.scandir(self._temporaries):
            with suppress(FileNotFoundError):  # another process cleans up too
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    Path(entry.path).unlink()

    def _missing(self, key: str) -> MissingObjectError:
        return MissingObjectError(f"{self.url} has no object {key!r}")


def _refuse_others(target: Path) -> None:
    """Raises ``InvalidInputError`` for what is no file: a rename would replace a device, a FIFO or a socket."""
    try:
        mode = target.lstat().st_mode
    except OSError:
        return  # nothing is there, or writing says why it cannot
    if stat.S_ISDIR(mode):
        raise InvalidInputError(
            f"cannot write {target}: the folder already has a file and a folder that want the same name"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise InvalidInputError(f"{target} is {kind_of(mode)}, no object: it is not replaced")


def _version_of(content: bytes) -> Version:
    # The content itself, not inode and time: both of those can come again within a clock tick.
    return Version(hashlib.sha256(content).hexdigest())


def _meta(key: str, status: os.stat_result) -> ObjectMeta:
    return ObjectMeta(key, status.st_size, f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}")


def _read_at(fd: int, start: int, length: int) -> bytes:
    """Up to ``length`` bytes from ``start``; fewer only where the file ends."""
    parts: list[bytes] = []
    while length > 0:
        part = os.pread(fd, min(length, 1 << 30), start)
        if not part:
            break
        parts.append(part)
        start += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    with memoryview(data) as view:
        position = 0
        while position < len(view):
            position += os.write(fd, view[position : position + _WRITE_BYTES])


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it. Returns those that got a name, from above, which are to be synced."""
    if folder.is_dir():
        return []
    grown = _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    return [*grown, folder.parent]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot, and order names themselves
            raise
    finally:
        os.close(fd)


@contextmanager
def _os_errors(verb: str, key: str, *, missing_is: TextnlpFastError | None = None) -> Iterator[None]:
    """Turn what the operating system says into what the caller can do."""
    try:
        yield
    except OSError as error:
        reason = f"cannot {verb} {key!r}: {error.strerror or error}"
        if error.errno in _NO_SPACE:
            raise OutOfSpaceError(reason) from error
        if missing_is is not None and error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}:
            raise missing_is from None
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise AuthenticationError(
                reason, hint="Check the permissions of the folder and who runs this."
            ) from error
        if error.errno in {errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV}:
            raise InvalidInputError(
                reason, hint="The folder must be one file system, with short names."
            ) from error
        if error.errno in _WRONG_SHAPE or isinstance(error, FileExistsError):
            raise InvalidInputError(
                f"{reason}: the folder already has a file and a folder that want the same name"
            ) from error
        raise StorageUnavailableError(reason) from error
