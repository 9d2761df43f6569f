"""A folder on the local disk that keeps whole tensors by digest, so that nobody decodes one twice.

`docs/decisions/0012-what-the-local-cache-keeps.md` says why tensors. Layout: ``tensors/<2>/<digest>``, each complete
from its rename on, and hashed whenever it is read; ``locks/<2>``, taken while tensors with such digests are being
made; ``temporary/``. Any number of processes may use it. Whatever is wrong with it, a load goes on without.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from textnlp_fast.contents.folder_room import Entry, files_below, oldest_first
from textnlp_fast.contents.inventory import Held
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.ring import Deadline
from textnlp_fast.telemetry import count

__all__ = ["Claims", "LoadCache"]

_TENSORS: Final = "tensors"
_LOCKS: Final = "locks"
_TEMPORARY: Final = "temporary"
# A temporary file that nobody has written to for so long belongs to a process that was killed.
_STALE_AFTER_S: Final = 3600
_POLL_S: Final = 0.02
# Eviction goes a little below the limit, so that not every new tensor starts one.
_FILL_SHARE: Final = 0.9


@dataclass(slots=True)
class Claims:
    """Digests that this process makes, and those that another is making."""

    mine: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)


class LoadCache:
    """Whole tensors in ``folder``, at most ``limit_bytes`` of them; the ones that were used last stay. Thread-safe.

    ``problem`` says what went wrong with it last, if anything did.
    """

    def __init__(self, folder: str | os.PathLike[str], *, limit_bytes: int = 64 << 30) -> None:
        if limit_bytes < 0:
            raise InvalidInputError(f"limit_bytes is {limit_bytes}")
        self.folder = Path(folder).expanduser().absolute()
        self.limit_bytes = limit_bytes
        self.problem: str | None = None

    # --- reading --------------------------------------------------------------------------------------------------

    def find(self, sizes: dict[str, int]) -> dict[str, Held]:
        """The tensors that are there, of those with these digests and sizes. Their bytes are yet to be verified."""
        found: dict[str, Held] = {}
        for digest, size in sizes.items():
            place = self._place(digest)
            try:
                if place.stat().st_size == size:
                    os.utime(place)  # used now
                    found[digest] = Held(str(place), 0)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._note("look into", error)
        count(cache_hits=len(found), cache_misses=len(sizes) - len(found))
        return found

    def drop(self, digest: str) -> None:
        """Removes a tensor that turned out to be another."""
        try:
            self._place(digest).unlink(missing_ok=True)
        except OSError as error:
            self._note("remove from", error)

    # --- writing --------------------------------------------------------------------------------------------------

    def add(self, digest: str, size: int, parts: Iterable[memoryview]) -> bool:
        """Keeps a tensor, verified by the caller, whose bytes are ``parts``. False if it cannot be kept."""
        if not 0 < size <= self.limit_bytes:
            return False
        temporary = self.folder / _TEMPORARY / f"{os.getpid()}-{secrets.token_hex(8)}"
        place = self._place(digest)
        try:
            if place.exists():
                return True
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(size)
            self._write(temporary, size, parts)
            temporary.replace(place)
            _sync_folder(place.parent)
        except OSError as error:
            self._note("write to", error)
            with suppress(OSError):  # gone, or on the disk that just failed
                temporary.unlink(missing_ok=True)
            return False
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return True

    def _write(self, temporary: Path, size: int, parts: Iterable[memoryview]) -> None:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            written = 0
            for part in parts:
                done = 0
                while done < len(part):
                    done += os.write(descriptor, part[done:])
                written += done
            if written != size:
                raise OSError(errno.EIO, f"{written} bytes of {size} were written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _make_room(self, size: int) -> None:
        """Removes what was used longest ago until ``size`` bytes more stay within the limit."""
        entries = []
        for entry in files_below(self.folder / _TENSORS, 2):
            with suppress(FileNotFoundError):  # another process makes room, too
                status = entry.stat()
                entries.append(Entry(status.st_mtime_ns, status.st_size, entry.path))
        total = sum(entry.size_bytes for entry in entries)
        if total + size <= self.limit_bytes:
            return
        self._remove_stale()
        for old in oldest_first(entries, total, self.limit_bytes * _FILL_SHARE - size):
            Path(old.path).unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        oldest = time.time() - _STALE_AFTER_S
        for entry in files_below(self.folder / _TEMPORARY, 1):
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime < oldest:
                    Path(entry.path).unlink()

    # --- one maker for each tensor ----------------------------------------------------------------------------------

    @contextmanager
    def claim(self, digests: Iterable[str]) -> Iterator[Claims]:
        """For the block: which of them this process makes. Nobody waits; a killed process's claims are free again.

        The kernel holds the locks, so that none can be left behind.
        """
        claims = Claims()
        descriptors: dict[str, int | None] = {}
        try:
            for digest in digests:
                prefix = digest[:2]
                if prefix not in descriptors:
                    descriptors[prefix] = self._lock(prefix)
                (claims.others if descriptors[prefix] is None else claims.mine).add(digest)
            yield claims
        finally:
            for descriptor in descriptors.values():
                if descriptor is not None and descriptor >= 0:
                    os.close(descriptor)

    def wait_for(self, digests: Iterable[str], deadline: Deadline) -> None:
        """Waits until nobody is making any of them any more."""
        for prefix in sorted({digest[:2] for digest in digests}):
            while True:
                deadline.check()
                descriptor = self._lock(prefix)
                if descriptor is not None:
                    if descriptor >= 0:
                        os.close(descriptor)
                    break
                time.sleep(_POLL_S)

    def _lock(self, prefix: str) -> int | None:
        """A descriptor that holds the lock, None if another has it, -1 if there are no locks to be had."""
        try:
            folder = self.folder / _LOCKS
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / prefix, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self._note("lock in", error)
            return -1
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            self._note("lock in", error)
            return -1
        return descriptor

    def _place(self, digest: str) -> Path:
        return self.folder / _TENSORS / digest[:2] / digest

    def _note(self, verb: str, error: OSError) -> None:
        self.problem = f"cannot {verb} the cache at {self.folder}: {error.strerror or error}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
