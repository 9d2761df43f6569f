"""Pull: plan from what the machine holds, read ranges, decode, verify every digest, rename into place.

Files are made in a hidden folder beside the destination. A destination that does not exist appears whole,
by one rename. In one that exists each file is replaced by one rename, after all of them are complete and
verified: a reader sees the old file or the new one, never a mixture within a file.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from textnlp_fast.contents.entries import FileEntry, content_names
from textnlp_fast.contents.inventory import READ_BYTES, Held, digest_of_range, take_inventory
from textnlp_fast.contents.staging import check_destination, disk_errors, staging_folder
from textnlp_fast.contents.windows import BufferPool, OpenFiles, Progress, ProgressCallback, write_exactly
from textnlp_fast.errors import (
    InvalidInputError,
    OutOfSpaceError,
    StorageUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.objectstore import ObjectStore, local_folder
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.planning import PullPlan, PullStep, plan_pull
from textnlp_fast.storage.pull_progress import PullProgress
from textnlp_fast.storage.pull_record import PullRecord, read_record, regular_status
from textnlp_fast.storage.staging import publish

__all__ = ["PullReport", "pull_model"]


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull did. Sizes in bytes; `fetched_bytes` were read from the repository, manifest aside."""

    model: str
    version: str
    path: str
    files: int
    kept_files: int
    raw_bytes: int
    fetched_bytes: int
    seconds: float

    @property
    def gigabytes_per_s(self) -> float:
        return self.raw_bytes / max(self.seconds, 1e-9) / 1e9


def pull_model(
    store: ObjectStore,
    manifest: Manifest,
    destination: str | os.PathLike[str],
    options: TransferOptions,
    *,
    have: Sequence[str | os.PathLike[str]] = (),
    progress: ProgressCallback | None = None,
) -> PullReport:
    """Makes `destination` a directory with the files of the version.

    What the destination and the models at `have` hold already is used where its digests agree. Files in the
    destination that an earlier pull wrote there and this version lacks are removed; files of others are left. One that
    was killed, interrupted or cut off from the store is gone on with, where the same version is pulled.
    Nothing in the destination changes before everything is there and verified.
    """
    started = time.monotonic()
    if not os.fspath(destination):
        raise InvalidInputError("the destination is empty", hint="Write '.' for the current directory.")
    final = Path(destination).expanduser().resolve()
    with disk_errors(final):
        check_destination(final, (entry.path for entry in manifest.files), local_folder(store.url))
        with staging_folder(
            final,
            goes_on=lambda root: PullProgress.is_of(root, manifest),
            kept_after=(StorageUnavailableError, KeyboardInterrupt),
        ) as staging:
            record = read_record(final)
            kept = _files_in_place(final, manifest, record, options)
            held = _held(final, manifest, record, have, options)
            plan = plan_pull(manifest, held, skip=frozenset(kept))
            names = content_names(manifest.files)
            decoder = Decoder(store, manifest.contents, manifest.window_bytes, options, names)
            earlier = PullProgress(staging.parent, manifest)
            try:
                earlier.go_on(plan)
                _check_space(staging, plan, earlier.staged_bytes())
                _fill(decoder, manifest, plan, held, earlier, staging, progress)
            finally:
                earlier.close()
            publish(staging, final, manifest, record, store.url)
    return PullReport(
        manifest.model,
        manifest.version,
        str(final),
        len(manifest.files),
        len(kept),
        manifest.raw_bytes,
        decoder.fetched_bytes,
        time.monotonic() - started,
    )


def _files_in_place(
    final: Path, manifest: Manifest, record: PullRecord, options: TransferOptions
) -> set[str]:
    """Paths of files that the destination has already, every byte of them hashed."""
    candidates = []
    for entry in manifest.files:
        status = regular_status(final / entry.path)
        if status is None or status.st_size != entry.size:
            continue
        known = record.files.get(entry.path)
        # What an earlier pull noted spares hashing files that are surely others.
        if known is None or not known.matches(status) or known.digests == entry.parts:
            candidates.append(entry)
    buffers = BufferPool(READ_BYTES)
    with OpenFiles() as files, ThreadPoolExecutor(options.thread_count) as pool:

        def same(entry: FileEntry) -> bool:
            offset = 0
            for digest in entry.parts:
                size = manifest.contents[digest].size
                if digest_of_range(files, str(final / entry.path), offset, size, buffers) != digest:
                    return False
                offset += size
            return True

        found = pool.map(same, candidates)
        return {entry.path for entry, is_same in zip(candidates, found, strict=True) if is_same}


def _held(
    final: Path,
    manifest: Manifest,
    record: PullRecord,
    have: Sequence[str | os.PathLike[str]],
    options: TransferOptions,
) -> dict[str, Held]:
    """Contents by digest in local files. They are believed only for now: what is made of them is verified."""
    held: dict[str, Held] = {}
    for given in have:
        path = Path(given).expanduser().resolve()
        held.update(read_record(path).held(path) or _hashed(path, manifest, options))
    own = record.held(final)
    if not own and final.is_dir():
        try:
            own = _hashed(final, manifest, options)
        except TextnlpFastError:
            own = {}  # the destination may hold anything; what is no model is no help
    held.update(own)
    return held


def _hashed(path: Path, manifest: Manifest, options: TransferOptions) -> dict[str, Held]:
    sizes = frozenset(content.size for content in manifest.contents.values())
    files = take_inventory(path, threads=options.thread_count, sizes=sizes)
    return {part.digest: Held(file.location, part.offset) for file in files for part in file.parts}


def _check_space(staging: Path, plan: PullPlan, staged_bytes: int) -> None:
    free, wanted = shutil.disk_usage(staging).free, max(0, plan.write_bytes - staged_bytes)
    if free < wanted:
        raise OutOfSpaceError(f"{staging.parent} has {free} bytes free; this pull writes {wanted}")


def _check_distinct(descriptors: Sequence[int]) -> None:
    """Raises InvalidInputError if two files became one: names that differ in case only, where case does not count."""
    places = {(status.st_dev, status.st_ino) for status in map(os.fstat, descriptors)}
    if len(places) < len(descriptors):
        raise InvalidInputError(
            "two files of this version have one name in the destination, which does not tell letters' case apart",
            hint="Pull into a directory on another file system.",
        )


def _fill(
    decoder: Decoder,
    manifest: Manifest,
    plan: PullPlan,
    held: Mapping[str, Held],
    earlier: PullProgress,
    staging: Path,
    progress: ProgressCallback | None,
) -> None:
    """Writes, verifies and syncs every file of the plan below `staging`."""
    descriptors: list[int] = []
    total = sum(step.content.size for step in plan.steps)
    made = 0

    def sink(step: PullStep, offset: int, data: memoryview) -> None:
        for number, place in step.targets:
            write_exactly(descriptors[number], data, place + offset)

    def done(size: int) -> None:
        nonlocal made
        made = min(total, made + size)
        if progress is not None:
            progress(Progress("pull", made, total))

    try:
        for entry in plan.files:
            path = staging / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o666)
            descriptors.append(descriptor)
            os.truncate(descriptor, entry.size)
        _check_distinct(descriptors)
        suspects = decoder.run(plan.steps, sink, held=held, done=done, earlier=earlier)
        if suspects:
            # A local file was not what it was believed to be: take the repository's road instead.
            kept = frozenset(entry.path for entry in manifest.files) - {entry.path for entry in plan.files}
            again = [
                step for step in plan_pull(manifest, {}, skip=kept).steps if step.content.digest in suspects
            ]
            decoder.run(again, sink)
        for descriptor in descriptors:
            os.fsync(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
