"""Carries a plan out: files in a staging folder beside the result, filled, synced, and renamed into place at once.

Killed at any instant, the result is there whole or not at all; the next run removes what was left and starts again,
and where the result is there already, it says so and changes nothing.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from textnlp_fast.contents.documents import canonical, seal_document
from textnlp_fast.contents.entries import RESERVED_PREFIX
from textnlp_fast.contents.staging import disk_errors, staging_folder, sync_folder
from textnlp_fast.contents.windows import Progress, ProgressCallback
from textnlp_fast.errors import InvalidInputError, OutOfSpaceError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.storage.sharding.descriptors import Descriptors
from textnlp_fast.storage.sharding.layout import INDEX_NAME, index_document
from textnlp_fast.storage.sharding.model import FilePlan, ShardPlan, ShardSource, SourceFile
from textnlp_fast.storage.sharding.record import RECORD_NAME, Digests, record_bytes

__all__ = ["Fill", "Filled", "Written", "check_unchanged", "write_plan"]

_MADE_FROM: Final = f"{RESERVED_PREFIX}-sharded.json"


@dataclass(frozen=True, slots=True)
class Filled:
    """What filling took, in bytes that were written by this process and not by the kernel; and what came out."""

    windowed_bytes: int
    digests: Digests


Fill = Callable[[Path, Descriptors, Callable[[int], None]], Filled]
"""Fills files behind their headers: the staging folder, the plan's files in it, and who hears of bytes."""


@dataclass(frozen=True, slots=True)
class Written:
    """What carrying out a plan took: bytes that this process wrote itself, or that it was done before."""

    windowed_bytes: int
    already_there: bool = False


def write_plan(
    plan: ShardPlan,
    source: ShardSource,
    output: Path,
    fill: Fill,
    *,
    model_id: str,
    progress: ProgressCallback | None = None,
) -> Written:
    """Makes `output` a directory with the plan's files, the model's other files, an index and a record.

    Raises InvalidInputError if `output` is there with anything else, OutOfSpaceError, and what filling raises; then
    nothing is there.
    """
    documents = _documents(plan, source, model_id)
    with disk_errors(output):
        if _is_there(output, plan, source, documents):
            return Written(0, already_there=True)
        total = sum(file.size - len(file.header) for file in plan.files)
        counter = _Counter(total, progress)
        with staging_folder(output) as staging:
            _check_space(staging, plan, source)
            with _created(staging, plan.files) as targets:
                filled = fill(staging, targets, counter.add)
                for number in range(len(plan.files)):
                    with targets.use(number) as descriptor:
                        os.fsync(descriptor)
            for name, content in documents.items():
                known = RECORD_NAME if plan.strategy != "merge" else None
                made = record_bytes(plan, source, model_id, filled.digests) if name == known else content
                _write(staging / name, made)
            _write(staging / _MADE_FROM, _made_from(source, documents))
            for folder in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
                sync_folder(folder)
            staging.rename(output)
            sync_folder(output.parent)
    return Written(filled.windowed_bytes)


def check_unchanged(files: Sequence[SourceFile]) -> None:
    """Raises InvalidInputError if a source was written to since its header was read."""
    for file in files:
        if file.path is None:
            continue
        try:
            status = file.path.stat()
            same = (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
        except OSError:
            same = False
        if not same:
            raise InvalidInputError(
                f"{file.path} changed while it was read; nothing was written",
                hint="Run the command again when nothing writes to it.",
            )


def _documents(plan: ShardPlan, source: ShardSource, model_id: str) -> dict[str, bytes]:
    """Files that say where the tensors are. A merged model has none that it did not have before."""
    documents: dict[str, bytes] = {}
    folders: dict[str, list[FilePlan]] = {}
    for file in plan.files:
        folders.setdefault(file.path.rpartition("/")[0], []).append(file)
    for folder, files in folders.items():
        if len(files) > 1:
            documents[f"{folder}/{INDEX_NAME}" if folder else INDEX_NAME] = index_document(files)
    if plan.strategy == "merge" and source.originals and source.index is not None:
        documents[INDEX_NAME] = source.index
    if plan.strategy != "merge":
        documents[RECORD_NAME] = record_bytes(plan, source, model_id)
    taken = {*documents, *(file.path for file in plan.files)} & source.others.keys()
    if taken:
        raise InvalidInputError(f"{source.name} has a file {min(taken)!r} already, which the shards need")
    return documents


def _is_there(output: Path, plan: ShardPlan, source: ShardSource, documents: Mapping[str, bytes]) -> bool:
    """Whether this very plan was carried out here. Raises InvalidInputError if something else is in the way."""
    if not output.exists():
        return False
    if not output.is_dir():
        raise InvalidInputError(f"{output} is not a directory", hint="Name a directory to make.")
    if not any(output.iterdir()):
        output.rmdir()
        return False
    note = output / _MADE_FROM
    if note.is_file() and note.read_bytes() == _made_from(source, documents):
        sizes = {file.path: file.size for file in plan.files}
        # The record has the digests of what was made as well, which nobody knows before.
        sizes |= {name: len(content) for name, content in documents.items() if name != RECORD_NAME}
        places = {output / name: size for name, size in sizes.items()}
        whole = RECORD_NAME not in documents or (output / RECORD_NAME).is_file()
        if whole and all(place.is_file() and place.stat().st_size == size for place, size in places.items()):
            return True
    raise InvalidInputError(
        f"{output} is not empty", hint="Name a directory that does not exist yet, or remove this one."
    )


def _made_from(source: ShardSource, documents: Mapping[str, bytes]) -> bytes:
    """For the next run: which plan was carried out, and on which files as they were then."""
    files = [[str(file.path or file.name), file.size, file.mtime_ns] for file in source.files]
    plan = blake3_hex(canonical({name: content.decode() for name, content in documents.items()}))
    return seal_document({"files": files, "format": 1, "plan": plan, "source": source.name})


def _check_space(staging: Path, plan: ShardPlan, source: ShardSource) -> None:
    """Raises OutOfSpaceError where the files cannot fit. What is mostly holes takes less than its size."""
    paths = [file.path for file in source.files if file.path is not None]
    needed = sum(file.size for file in plan.files)
    if paths:
        blocks = sum(path.stat().st_blocks * 512 for path in paths)
        whole = max(1, sum(file.size for file in source.files))
        needed = min(needed, needed * blocks // whole)
    free = shutil.disk_usage(staging).free
    if free < needed:
        raise OutOfSpaceError(f"{staging.parent} has {free} bytes free; the shards take {needed}")


@contextmanager
def _created(staging: Path, files: Sequence[FilePlan]) -> Iterator[Descriptors]:
    """New files of their sizes, with their headers, open for writing."""
    for file in files:
        path = staging / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as new:
            new.write(file.header)
            new.truncate(file.size)
    with Descriptors(lambda number: staging / files[number].path, os.O_RDWR) as targets:
        yield targets


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


class _Counter:
    def __init__(self, total: int, progress: ProgressCallback | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._done = min(self._total, self._done + size)
            if self._progress is not None:
                self._progress(Progress("shard", self._done, self._total))
