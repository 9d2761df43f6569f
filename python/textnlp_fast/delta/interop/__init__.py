"""Deltas in other projects' layouts, made into patches and out of them.

A layout is a file: `slime` and `sparse`. What stands in each, and where that was read, is in docs/guide/interop.md.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final, Literal

from textnlp_fast.contents.inventory import scan_model
from textnlp_fast.contents.staging import disk_errors, staging_folder, sync_folder
from textnlp_fast.contents.windows import OpenFiles, ProgressCallback
from textnlp_fast.contents.working import DEFAULT_MEMORY_BYTES, thread_count
from textnlp_fast.delta.create import PatchReport, create_patch
from textnlp_fast.delta.interop import slime, sparse
from textnlp_fast.delta.interop.changes import apply_changes, tensor_places
from textnlp_fast.delta.interop.updates import changed_tensors, left_out
from textnlp_fast.delta.patch_file import PatchFile, read_patch
from textnlp_fast.delta.source import check_source
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.tensors import ModelFiles

__all__ = ["LAYOUTS", "ForeignReport", "Layout", "read_foreign", "write_foreign"]

Layout = Literal["slime", "sparse"]
LAYOUTS: Final[tuple[Layout, ...]] = ("slime", "sparse")


@dataclass(frozen=True, slots=True)
class ForeignReport:
    """What was written: sizes in bytes. `left_out` are files that change and that the layout cannot carry."""

    path: str
    layout: str
    changed_tensors: int
    foreign_bytes: int
    left_out: list[str]


def read_foreign(
    layout: Layout,
    foreign: str | os.PathLike[str],
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    source_version: str | None = None,
    target_version: str | None = None,
    memory_budget_bytes: int = DEFAULT_MEMORY_BYTES,
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> PatchReport:
    """Writes at `out` a patch that does to the model at `source` what the delta at `foreign` does.

    The new model is made in a hidden folder beside `out` on the way, and gone afterwards: the disk needs room for
    it. Memory is a few windows and what `create_patch` takes, whatever the sizes of the tensors.

    Raises InvalidInputError if the delta is not one or is for another model, CorruptDataError if it breaks its
    layout or a checksum, UnsupportedFormatError for what is not known of a layout, MissingPackageError if
    `textnlp-fast[interop]` is needed, and what `create_patch` raises.
    """
    _check_layout(layout)
    change = slime.changes if layout == "slime" else sparse.changes
    given = Path(foreign).expanduser()
    final = Path(out).expanduser().resolve()
    model = scan_model(Path(source).expanduser())
    places = tensor_places(model)
    target = final.with_name(f"{final.name}.target")
    with disk_errors(target), staging_folder(target) as folder, OpenFiles() as files:
        lone = not Path(source).expanduser().is_dir()
        _copy(model, folder)
        apply_changes(folder, change(given, places, files))
        return create_patch(
            source,
            folder / model.safetensors[0].name if lone else folder,
            out,
            source_version=source_version,
            target_version=target_version,
            metadata={"layout": layout},
            memory_budget_bytes=memory_budget_bytes,
            threads=threads,
            progress=progress,
        )


def write_foreign(
    layout: Layout,
    patch: str | os.PathLike[str] | PatchFile,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    version: int = 1,
    checksum: str | None = None,
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> ForeignReport:
    """Writes in the new directory `out` the delta of another layout that does what the patch does to `source`.

    `version` is the number of the target where versions are counted; the source is the one before. `checksum` is
    one of `slime.CHECKSUMS`, for that layout. Memory: two windows, or two rows of a tensor where those are larger.
    Nothing appears at `out` before it is complete.

    Raises InvalidInputError if the layout cannot say what the patch does (a tensor is new, gone, or has another
    type or shape) or `out` is there already, WrongBaseError if `source` is not what the patch starts from,
    CorruptDataError if either is damaged, MissingPackageError if `textnlp-fast[interop]` is needed.
    """
    _check_layout(layout)
    if checksum is not None and layout != "slime":
        raise InvalidInputError(f"layout {layout!r} has no checksums", hint="Leave the checksum out.")
    if version < 1:
        raise InvalidInputError(f"version is {version}; versions are counted from 1")
    final = Path(out).expanduser().resolve()
    if final.exists():
        raise InvalidInputError(f"{final} exists already", hint="Name a new directory.")
    file = patch if isinstance(patch, PatchFile) else read_patch(patch)
    places = tensor_places(scan_model(Path(source).expanduser()))
    check_source(file.patch, source, threads=thread_count(threads), progress=progress)
    # The source is proved, and each tensor is held against its digest behind its last window.
    with file.open(source, check=False, threads=threads) as target, OpenFiles() as files, disk_errors(final):
        found = list(changed_tensors(file.patch, target, places, files))
        with staging_folder(final) as folder:
            if layout == "slime":
                slime.write(folder, iter(found), version=version, checksum=checksum)
            else:
                elements = sum(prod(place.tensor.shape) for place in places.values())
                sparse.write(folder, iter(found), version=version, elements=elements)
            size = sum(path.stat().st_size for path in folder.iterdir())
            _sync(folder)
            folder.rename(final)
            sync_folder(final.parent)
    return ForeignReport(str(final), layout, len(found), size, left_out(file.patch))


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise InvalidInputError(f"unknown layout {layout!r}", hint=f"Use one of {', '.join(LAYOUTS)}.")


def _copy(model: ModelFiles, folder: Path) -> None:
    places = {file.name: file.path for file in model.safetensors}
    places |= {file.name: file.path for file in model.others}
    for name, path in places.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
