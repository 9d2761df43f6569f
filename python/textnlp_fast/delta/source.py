"""The model that a patch starts from: found on disk, and proved to be the right one before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock

from textnlp_fast.contents.inventory import (
    READ_BYTES,
    Held,
    LocalFile,
    digest_of_range,
    file_entry,
    take_inventory,
)
from textnlp_fast.contents.windows import BufferPool, OpenFiles, Progress, ProgressCallback
from textnlp_fast.delta.patch import LONE_FILE, End, Patch, model_digest
from textnlp_fast.errors import InvalidInputError, TextnlpFastError, WrongBaseError

__all__ = ["check_source", "file_places", "held_places", "model_inventory"]


def model_inventory(
    path: str | os.PathLike[str], *, threads: int, progress: ProgressCallback | None = None
) -> list[LocalFile]:
    """The files of a model, hashed, as a patch names them: a model given as one file is called `LONE_FILE`."""
    files = take_inventory(path, threads=threads, progress=progress)
    if Path(path).is_dir():
        return files
    return [replace(file, path=LONE_FILE) for file in files]


def file_places(end: End, root: str | os.PathLike[str]) -> dict[str, Path]:
    """Where the files of a model are, by their path in it; `root` is its directory or its only file.

    Raises InvalidInputError if `root` does not exist.
    """
    place = Path(root).expanduser()
    if not place.exists():
        raise InvalidInputError(f"{place} does not exist", hint="Name the model that the patch starts from.")
    place = place.resolve()
    if place.is_dir():
        return {entry.path: place / entry.path for entry in end.files}
    return {entry.path: place if entry.path == LONE_FILE else place / entry.path for entry in end.files}


def held_places(patch: Patch, root: str | os.PathLike[str]) -> dict[str, Held]:
    """Where the contents of the source are, if `root` is the source: only the sizes of files are looked at.

    Raises WrongBaseError if a file is missing or has another size.
    """
    places = file_places(patch.source, root)
    held: dict[str, Held] = {}
    for entry in patch.source.files:
        place = places[entry.path]
        try:
            size = place.stat().st_size
        except OSError as error:
            raise _wrong(patch, root, f"it has no {entry.path!r}") from error
        if size != entry.size:
            raise _wrong(patch, root, f"its {entry.path!r} has {size} bytes instead of {entry.size}")
        offset = 0
        for digest in entry.parts:
            held.setdefault(digest, Held(str(place), offset))
            offset += patch.held[digest].size
    return held


def check_source(
    patch: Patch,
    root: str | os.PathLike[str],
    *,
    threads: int,
    progress: ProgressCallback | None = None,
) -> dict[str, Held]:
    """Where the contents of the source are, each of them read and checked against its digest.

    Files that the patch does not know are not looked at. Raises WrongBaseError if `root` is another model.
    """
    held = held_places(patch, root)
    places = file_places(patch.source, root)
    total = patch.source.raw_bytes
    done = 0
    lock = Lock()
    buffers = BufferPool(READ_BYTES)
    with OpenFiles() as files:

        def wrong(job: tuple[int, str, int, str]) -> bool:
            nonlocal done
            size, path, offset, digest = job
            different = digest_of_range(files, str(places[path]), offset, size, buffers) != digest
            with lock:
                done += size
                if progress is not None:
                    progress(Progress("hash", done, total))
            return different

        jobs = sorted(_ranges(patch), key=lambda job: -job[0])
        with ThreadPoolExecutor(threads, thread_name_prefix="textnlp-fast-hash") as pool:
            results = pool.map(wrong, jobs)
            try:
                for job, different in zip(jobs, results, strict=True):
                    if different:
                        raise _wrong(patch, root, f"bytes of its {job[1]!r} are others", threads)
            finally:
                pool.shutdown(cancel_futures=True)
    return held


def _ranges(patch: Patch) -> Iterable[tuple[int, str, int, str]]:
    for entry in patch.source.files:
        offset = 0
        for digest in entry.parts:
            size = patch.held[digest].size
            yield size, entry.path, offset, digest
            offset += size


def _wrong(patch: Patch, root: str | os.PathLike[str], why: str, threads: int = 1) -> WrongBaseError:
    """Says what is there instead. Hashing it again costs time that only an error takes."""
    source, target = patch.source, patch.target
    wanted = f"version {source.version}" if source.version else "the model"
    try:
        actual = model_digest(map(file_entry, model_inventory(root, threads=threads)))
    except (TextnlpFastError, OSError):
        actual = ""
    found = f"the one at {os.fspath(root)} has {actual}" if actual else f"{os.fspath(root)} is no whole model"
    text = f"the patch starts from {wanted} with digest {source.digest}; {found}: {why}"
    if actual == target.digest:
        named = f", version {target.version}" if target.version else ""
        error = WrongBaseError(
            f"{text}. That is the patch's target already{named}", hint="There is nothing to do."
        )
        error.is_target = True
        return error
    return WrongBaseError(
        text,
        hint=f"Get {source.label}, or a patch that starts from what you have; "
        "`textnlp-fast delta inspect` shows both ends of a patch.",
    )
