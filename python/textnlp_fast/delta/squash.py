"""Several patches that follow each other become one.

Without the models, what an earlier patch makes stays as the base of what a later one makes: residuals are coded in
the context of their base, so they cannot be added up. With the source at hand, the whole way is coded anew.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from textnlp_fast.contents.staging import disk_errors, staging_folder
from textnlp_fast.contents.windows import OpenFiles, Progress, ProgressCallback
from textnlp_fast.contents.working import DEFAULT_MEMORY_BYTES, thread_count
from textnlp_fast.delta.apply import apply_patch
from textnlp_fast.delta.create import PatchReport, create_from, report_on
from textnlp_fast.delta.depth import check_depth
from textnlp_fast.delta.factoring import FactorSearch
from textnlp_fast.delta.patch import FACTOR_STRATEGIES, LONE_FILE, STRATEGIES, Stored, Strategy
from textnlp_fast.delta.patch_file import PatchFile, new_patch, read_patch
from textnlp_fast.delta.source import model_inventory
from textnlp_fast.errors import CorruptDataError, InvalidInputError

__all__ = ["squash_patches"]

_AGAIN = "Pass the model that the first patch starts from (source=, --source): then all is coded anew."


def squash_patches(
    patches: Sequence[str | os.PathLike[str] | PatchFile],
    out: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    memory_budget_bytes: int = DEFAULT_MEMORY_BYTES,
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> PatchReport:
    """Writes at `out` one patch that leads from the source of the first to the target of the last.

    `source` is the model that the first starts from; with it the result is as small as one made from both models,
    and room for two models is needed beside `out` on the way. Raises InvalidInputError if the patches do not
    follow each other, WrongBaseError if `source` is another model, and what `read_patch` raises.
    """
    started = time.monotonic()
    files = [patch if isinstance(patch, PatchFile) else read_patch(patch) for patch in patches]
    _check_ends(files)
    final = Path(out).expanduser().resolve()
    if any(file.path.resolve() == final for file in files):
        raise InvalidInputError(f"{final} is one of the patches", hint="Name another file.")
    if source is None:
        return _join(files, final, started, progress)
    # Locked and removed like what the patch itself is written to, which has a folder of its own.
    room = final.with_name(f"{final.name}.models")
    with disk_errors(final), staging_folder(room) as folder:
        model = _apply_all(files, Path(source), folder, memory_budget_bytes, threads, progress)
        first, last = files[0].patch, files[-1].patch
        count = thread_count(threads)
        known = {entry.path for entry in first.source.files}
        strategy: Strategy = next((name for name in STRATEGIES if name == last.strategy), "auto")
        report = create_from(
            [file for file in model_inventory(source, threads=count) if file.path in known],
            model_inventory(model, threads=count),
            final,
            source_version=first.source.version,
            target_version=last.target.version,
            strategy=strategy,
            search=FactorSearch() if strategy in FACTOR_STRATEGIES else None,
            promise=last.promise,
            metadata=last.metadata,
            window_bytes=first.window_bytes,
            memory_budget_bytes=memory_budget_bytes,
            threads=threads,
            progress=progress,
        )
    return replace(report, seconds=time.monotonic() - started)


def _apply_all(
    files: Sequence[PatchFile],
    model: Path,
    folder: Path,
    memory_budget_bytes: int,
    threads: int,
    progress: ProgressCallback | None,
) -> Path:
    """The last target, below `folder`, where no more than two models are at a time."""
    for number, file in enumerate(files):
        lone = [entry.path for entry in file.patch.target.files] == [LONE_FILE]
        made = folder / (f"{number}.safetensors" if lone else str(number))
        apply_patch(
            file, model, made, memory_budget_bytes=memory_budget_bytes, threads=threads, progress=progress
        )
        if number:
            _remove(model)
        model = made
    return model


def _remove(model: Path) -> None:
    if model.is_dir():
        shutil.rmtree(model)
    else:
        model.unlink()


def _check_ends(files: Sequence[PatchFile]) -> None:
    if len(files) < 2:
        raise InvalidInputError("squashing takes two patches or more", hint="Name them in their order.")
    for before, after in pairwise(files):
        there, here = before.patch.target, after.patch.source
        if there.digest != here.digest:
            raise InvalidInputError(
                f"{after.path} does not follow {before.path}: it starts from {here.label} with digest "
                f"{here.digest}, the one before leads to {there.label} with digest {there.digest}",
                hint="Name the patches in their order; `textnlp-fast delta inspect` shows both ends of each.",
            )


# --- without the models -----------------------------------------------------------------------------------


def _join(
    files: Sequence[PatchFile], final: Path, started: float, progress: ProgressCallback | None
) -> PatchReport:
    first, last = files[0].patch, files[-1].patch
    if any(file.patch.window_bytes != first.window_bytes for file in files):
        raise InvalidInputError("the patches were made with windows of different sizes", hint=_AGAIN)
    stored, homes = _reachable(files)
    try:
        check_depth(stored)
    except CorruptDataError as error:
        raise InvalidInputError(
            f"the patches are too many to be joined: {error.args[0]}", hint=_AGAIN
        ) from error
    total, done = sum(content.stored_bytes for content in stored.values()), 0
    contents: dict[str, Stored] = {}
    with new_patch(final) as writer, OpenFiles() as opened:
        for file in files:
            file.check_payload(opened)
        for digest, content in stored.items():
            extents = []
            for offset, length in content.extents:
                payload = memoryview(bytearray(length))
                homes[digest].read_payload(opened, payload, offset)
                extents.append(writer.add(payload))
                done += length
                if progress is not None:
                    progress(Progress("squash", done, total))
            contents[digest] = replace(content, extents=tuple(extents))
        strategies = {file.patch.strategy for file in files}
        strategy = strategies.pop() if len(strategies) == 1 else "auto"
        patch = replace(last, source=first.source, held=first.held, contents=contents, strategy=strategy)
        return report_on(writer.finish(patch), time.monotonic() - started)


def _reachable(files: Sequence[PatchFile]) -> tuple[dict[str, Stored], dict[str, PatchFile]]:
    """What the last target needs and the first source lacks, in the order of the patches, and whose it is.

    The earliest patch that makes a content wins. Everything it needs is made by that patch or an earlier one, so
    no cycle can close.
    """
    first, last = files[0].patch, files[-1].patch
    homes: dict[str, PatchFile] = {}
    for file in files:
        for digest in file.patch.contents:
            if digest not in first.held:
                homes.setdefault(digest, file)
    needed: set[str] = set()
    waiting = list(last.target.parts())
    while waiting:
        digest = waiting.pop()
        if digest in needed or digest in first.held:
            continue
        needed.add(digest)
        base = homes[digest].patch.contents[digest].base
        waiting += base.source_sizes() if base is not None else ()
    return {digest: homes[digest].patch.contents[digest] for digest in homes if digest in needed}, homes
