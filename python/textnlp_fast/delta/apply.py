"""Applies a patch: prove the source, make the target in a staging folder, check every digest, rename.

Before the rename the destination is as it was. A destination that exists is updated file by file, with a record of
what is to be done, which the next run finishes if this one is killed on the way.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from textnlp_fast.contents.staging import (
    check_destination,
    disk_errors,
    finish_replacing,
    replace_files,
    staging_folder,
    sync_folder,
)
from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.contents.working import DEFAULT_MEMORY_BYTES, thread_count
from textnlp_fast.delta.filling import Work
from textnlp_fast.delta.patch import LONE_FILE, Patch
from textnlp_fast.delta.patch_file import PatchFile, read_patch
from textnlp_fast.delta.source import check_source, file_places
from textnlp_fast.destinations import file_destination
from textnlp_fast.errors import InvalidInputError, OutOfSpaceError, WrongBaseError

__all__ = ["ApplyReport", "apply_patch"]


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What was done. Sizes in bytes; `raw_bytes` are those of the target."""

    path: str
    source_version: str | None
    target_version: str | None
    target_digest: str
    files: int
    kept_files: int
    """Files that were in place already."""
    raw_bytes: int
    patch_bytes: int
    seconds: float
    finished_earlier_run: bool = False

    @property
    def gigabytes_per_s(self) -> float:
        return self.raw_bytes / max(self.seconds, 1e-9) / 1e9


def apply_patch(
    patch: str | os.PathLike[str] | PatchFile,
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    memory_budget_bytes: int = DEFAULT_MEMORY_BYTES,
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> ApplyReport:
    """Makes `dest` the target of the patch, from the model at `source`; both may be one place.

    `dest` is a .safetensors file, for a target of one file, or a directory. What the patch does not know in a
    directory is left alone. Raises WrongBaseError before anything is written if `source` is not the model that
    the patch starts from, CorruptDataError if the patch is damaged, InvalidInputError if `dest` cannot take the
    target, OutOfSpaceError if the disk is full.
    """
    started = time.monotonic()
    file = patch if isinstance(patch, PatchFile) else read_patch(patch)
    count = thread_count(threads)
    place = _Place.of(dest, file.patch)
    finished = place.finish_interrupted(file.patch)
    kept: frozenset[str] = frozenset()
    if not finished:
        in_place = place.is_at(source)
        before = _stamps(file.patch, source) if in_place else {}
        try:
            held = check_source(file.patch, source, threads=count, progress=progress)
        except WrongBaseError as error:
            if not (in_place and error.is_target):
                raise
            finished = True  # an earlier run came to its end and was killed before it could say so
        else:
            kept = _kept(file.patch) if in_place and not place.lone else frozenset()
            work = Work(file, held, kept, memory_budget_bytes=memory_budget_bytes, threads=count)
            place.fill(work, before, progress)
    target = file.patch.target
    return ApplyReport(
        str(place.final),
        file.patch.source.version,
        target.version,
        target.digest,
        len(target.files),
        len(kept),
        target.raw_bytes,
        file.size_bytes,
        time.monotonic() - started,
        finished,
    )


def _kept(patch: Patch) -> frozenset[str]:
    """Files that both ends have under one path."""
    before = {entry.path: entry.digest for entry in patch.source.files}
    return frozenset(entry.path for entry in patch.target.files if before.get(entry.path) == entry.digest)


def _removed(patch: Patch) -> list[str]:
    wanted = {entry.path for entry in patch.target.files}
    return [entry.path for entry in patch.source.files if entry.path not in wanted]


def _stamps(patch: Patch, source: str | os.PathLike[str]) -> dict[Path, tuple[int, int] | None]:
    """Size and time of the source's files; None for one that is missing."""
    return {place: _stamp(place) for place in file_places(patch.source, source).values()}


def _stamp(place: Path) -> tuple[int, int] | None:
    try:
        status = place.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


# --- where it goes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """The destination: a directory, or a file if `lone`."""

    final: Path
    lone: bool

    @classmethod
    def of(cls, dest: str | os.PathLike[str], patch: Patch) -> _Place:
        if not os.fspath(dest):
            raise InvalidInputError("the destination is empty", hint="Write '.' for the current directory.")
        final = Path(dest).expanduser().resolve()
        paths = [entry.path for entry in patch.target.files]
        lone = not final.is_dir() and final.suffix.lower() == ".safetensors"
        if lone and paths != [LONE_FILE]:
            raise InvalidInputError(
                f"the target has {len(paths)} files, which {final} cannot hold", hint="Name a directory."
            )
        if lone:
            final = file_destination(dest)
        else:
            with disk_errors(final):
                check_destination(final, paths)
        return cls(final, lone)

    def is_at(self, source: str | os.PathLike[str]) -> bool:
        """Whether this is the place of the source: then files that only the source has are to go."""
        return Path(source).expanduser().resolve() == self.final

    def finish_interrupted(self, patch: Patch) -> bool:
        """Whether an earlier run of the same patch was interrupted here and is now complete."""
        if self.lone or not self.final.is_dir():
            return False
        with disk_errors(self.final):
            return finish_replacing(self.final) == _note(patch)

    def fill(
        self,
        work: Work,
        updated: Mapping[Path, tuple[int, int] | None],
        progress: ProgressCallback | None,
    ) -> None:
        """Makes the target and gives it its name.

        `updated` are the files of the source with their stamps, if this is its place: those that the target lacks
        are removed, and none may have changed on the way, for some of them stay.
        """
        with disk_errors(self.final), staging_folder(self.final) as staging:
            free = shutil.disk_usage(staging).free
            if free < work.write_bytes:
                raise OutOfSpaceError(
                    f"{staging.parent.parent} has {free} bytes free; this patch writes {work.write_bytes}"
                )
            scratch = staging.parent / "scratch"
            scratch.unlink(missing_ok=True)
            work.run(staging, scratch, progress)
            changed = next((place for place, stamp in updated.items() if _stamp(place) != stamp), None)
            if changed is not None:
                raise InvalidInputError(
                    f"{changed} changed while the patch was applied; nothing was replaced",
                    hint="Run the command again when nothing else writes to it.",
                )
            if self.lone:
                (staging / LONE_FILE).replace(self.final)
            elif self.final.exists():
                replace_files(staging, self.final, _removed(work.patch) if updated else [], _note(work.patch))
            else:
                for folder in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
                    sync_folder(folder)
                staging.rename(self.final)
            sync_folder(self.final.parent)


def _note(patch: Patch) -> str:
    return f"{patch.source.digest} to {patch.target.digest}"
