"""Repositories as a read-only file system: `textnlp://` for everything that reads through fsspec.

    with fsspec.open("textnlp://org/model@champion/config.json", repo="s3://bucket/models") as file: ...

The tree has the words of models' names, then `NAME@VERSION` for each version, then its files; a version is found
under its aliases and stages, too, which listings leave out. `NAME` alone is no directory, for what is below it would
not begin with its name: write `NAME@latest`.

Ranges of bytes are read as ranges: the coded windows that hold them are fetched, and the frames that do decoded. What
is read whole is compared with its digest; with `check_parts=True` everything is (`storage/stored_files.py`). A
version never changes, an alias may: a path with one means what it means when it is opened.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import (
    InvalidInputError,
    MissingObjectError,
    MissingPackageError,
    ModelNotFoundError,
    VersionNotFoundError,
)
from textnlp_fast.integrations.urls import SCHEME, ModelURL, Place, open_repository, parse_model_url
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.stored_files import StoredFiles

try:
    from fsspec import register_implementation
    from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
    from fsspec.utils import stringify_path
except ImportError as error:
    raise MissingPackageError("fsspec is not installed", hint="pip install 'textnlp-fast[fsspec]'") from error

__all__ = ["TextnlpFileSystem", "register"]

_MOST_OPEN: Final = 8
_RANGES_AT_A_TIME: Final = 8


def register() -> None:
    """Makes fsspec know `textnlp://` in this process; an installed package is known by its entry point already."""
    register_implementation(SCHEME, TextnlpFileSystem, clobber=True)


class TextnlpFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The versions of one repository and their files. Thread-safe; nothing can be written.

    `repo` is a path, a URL or an open `Repository`; by default what the URL or TEXTNLP_FAST_REPO says.
    """

    protocol = SCHEME
    root_marker = ""
    sep = "/"

    def __init__(self, repo: Place | None = None, *, check_parts: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._place = repo
        self._check_parts = check_parts
        self._opened: Repository | None = None
        self._files: dict[tuple[str, str], StoredFiles] = {}

    # --- names ---------------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = str(stringify_path(path)).removeprefix(f"{SCHEME}://")
        return text.partition("?repo=")[0].strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        repository = path.partition("?repo=")[2]
        return {"repo": repository} if repository else {}

    @property
    def repository(self) -> Repository:
        """The repository, opened when it is first needed."""
        if self._opened is None:
            self._opened = open_repository(ModelURL("any"), self._place)
        return self._opened

    # --- looking -------------------------------------------------------------------------------------------

    def info(self, path: Any, **options: Any) -> dict[str, Any]:
        """Name, size in bytes and type; of a file its digest and exact version, too. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        if "@" not in path:
            if path and not self._children(path):
                raise self._absent(path)
            return _directory(path)
        url, files = self._version(path)
        if url.path in files.entries:
            return self._file(path, files, url.path or "")
        if url.path is not None and not _below(files, url.path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return _directory(path) | {"version": files.manifest.version}

    def ls(self, path: Any, detail: bool = True, **options: Any) -> list[Any]:
        """What is directly below a directory, or the file itself. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        if "@" not in path:
            rows = [_directory(child) for child in self._children(path)]
            if path and not rows:
                raise self._absent(path)
        else:
            url, files = self._version(path)
            if url.path in files.entries:
                rows = [self._file(path, files, url.path or "")]
            else:
                rows = self._listing(path, files, url.path)
        return rows if detail else [row["name"] for row in rows]

    def created(self, path: Any) -> datetime:
        """When the version was published."""
        _, files = self._version(self._strip_protocol(path))
        return datetime.strptime(files.manifest.created_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)

    modified = created

    def ukey(self, path: Any) -> str:
        """What names a file's bytes, whatever it is called: their digest."""
        return str(self._info_of_file(path)["digest"])

    def checksum(self, path: Any) -> int:
        """The same as a number."""
        return int(self.ukey(path), 16)

    # --- reading -------------------------------------------------------------------------------------------

    def cat_file(self, path: Any, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Bytes [start, end) of a file; negative ones count from its end."""
        stripped = self._strip_protocol(path)
        size = self._info_of_file(stripped)["size"]
        begin, until, _ = slice(start, end).indices(size)
        return self._read(stripped, begin, max(begin, until))

    def cat_ranges(
        self,
        paths: list[Any],
        starts: int | list[int],
        ends: int | list[int],
        max_gap: int | None = None,
        on_error: str = "return",
        **options: Any,
    ) -> list[Any]:
        """Many ranges at a time; what cannot be read is raised, or returned in its place."""
        firsts: Sequence[int] = starts if isinstance(starts, list) else [starts] * len(paths)
        lasts: Sequence[int] = ends if isinstance(ends, list) else [ends] * len(paths)
        if len(paths) != len(firsts) or len(paths) != len(lasts):
            raise ValueError("paths, starts and ends are of different lengths")

        def one(what: tuple[Any, int, int]) -> Any:
            try:
                return self.cat_file(*what)
            except Exception as error:
                if on_error == "return":
                    return error
                raise

        with ThreadPoolExecutor(_RANGES_AT_A_TIME) as pool:
            return list(pool.map(one, zip(paths, firsts, lasts, strict=True)))

    def get_file(
        self, rpath: Any, lpath: Any, callback: Any = None, outfile: Any = None, **options: Any
    ) -> None:
        """Copies a file to the local disk, every byte verified; it appears whole."""
        path = self._strip_protocol(rpath)
        if self.isdir(path):
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        info = self._info_of_file(path)
        if callback is not None:
            callback.set_size(info["size"])
        if outfile is not None:
            for block in self._version(path)[1].blocks(self._path_of(path)):
                outfile.write(block)
        else:
            place = Path(lpath)
            place.parent.mkdir(parents=True, exist_ok=True)
            self._version(path)[1].write(self._path_of(path), place)
        if callback is not None:
            callback.absolute_update(info["size"])

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> TextnlpFile:
        if mode != "rb":
            raise OSError(errno.EROFS, "versions are published whole, by a push, and never change", path)
        info = self._info_of_file(path)
        # An alias that moves while the file is open does not move it.
        url = parse_model_url(f"{SCHEME}://{path}")
        exact = f"{url.name}@{info['version']}/{url.path}"
        return TextnlpFile(
            self,
            exact,
            mode,
            block_size or "default",
            autocommit,
            cache_options=cache_options,
            size=info["size"],
            **options,
        )

    # --- what cannot be done -------------------------------------------------------------------------------

    def _read_only(self, path: Any, *args: Any, **options: Any) -> Any:
        raise OSError(errno.EROFS, "versions are published whole, by a push, and never change", str(path))

    mkdir = makedirs = rmdir = rm_file = _rm = rm = cp_file = touch = pipe_file = put_file = mv = _read_only

    # --- how -----------------------------------------------------------------------------------------------

    def _read(self, path: str, begin: int, end: int) -> bytes:
        url, files = self._version(path)
        try:
            return bytes(files.read(url.path or "", begin, end))
        except MissingObjectError:
            # Was its version stored anew, and what was there collected? What was remembered of it goes.
            self._forget()
            url, files = self._version(path)
            return bytes(files.read(url.path or "", begin, end))

    def _forget(self) -> None:
        if not isinstance(self._place, Repository):
            self._opened = None
        self._files = {}

    def _path_of(self, path: str) -> str:
        return parse_model_url(f"{SCHEME}://{path}").path or ""

    def _version(self, path: str) -> tuple[ModelURL, StoredFiles]:
        """What a path with a version in it says, and that version, opened."""
        try:
            url = parse_model_url(f"{SCHEME}://{path}")
            if "@" not in path:
                raise InvalidInputError(f"{path!r} names no version")
            name, version = self.repository.resolve(url.reference)
            files = self._files.get((name, version))
            if files is None:
                files = self.repository.files(name, version, check_parts=self._check_parts)
                while len(self._files) >= _MOST_OPEN:
                    self._files.pop(next(iter(self._files)), None)
                self._files[name, version] = files
            return url, files
        except (ModelNotFoundError, VersionNotFoundError, InvalidInputError) as error:
            raise FileNotFoundError(errno.ENOENT, str(error), path) from error

    def _info_of_file(self, path: Any) -> dict[str, Any]:
        info = self.info(path)
        if info["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), info["name"])
        return info

    def _file(self, name: str, files: StoredFiles, path: str) -> dict[str, Any]:
        entry = files.entries[path]
        return {
            "name": name,
            "size": entry.size,
            "type": "file",
            "digest": entry.digest,
            "model": files.manifest.model,
            "version": files.manifest.version,
            "created": files.manifest.created_at,
        }

    def _listing(self, path: str, files: StoredFiles, below: str | None) -> list[dict[str, Any]]:
        prefix = "" if below is None else below + "/"
        root = path if below is None else path[: -len(below) - 1]
        rows: dict[str, dict[str, Any]] = {}
        for entry in files.entries.values():
            if entry.path.startswith(prefix):
                first, slash, _ = entry.path.removeprefix(prefix).partition("/")
                name = f"{root}/{prefix}{first}"
                rows[name] = _directory(name) if slash else self._file(name, files, entry.path)
        if below is not None and not rows:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return [rows[name] for name in sorted(rows)]

    def _children(self, path: str) -> list[str]:
        """Directories directly below some words of names: further words, and versions."""
        prefix = path + "/" if path else ""
        found: set[str] = set()
        for name, versions in self.repository.models().items():
            if name.startswith(prefix):
                word, slash, _ = name.removeprefix(prefix).partition("/")
                found.update([prefix + word] if slash else [f"{name}@{version}" for version in versions])
        return sorted(found)

    def _absent(self, path: str) -> FileNotFoundError:
        named = path in self.repository.models()
        reason = f"name a version: {path}@latest" if named else os.strerror(errno.ENOENT)
        return FileNotFoundError(errno.ENOENT, reason, path)


class TextnlpFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file of a version, open for reading."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs._read(self.path, start, end))


def _directory(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _below(files: StoredFiles, path: str) -> bool:
    return any(entry.startswith(path + "/") for entry in files.entries)
