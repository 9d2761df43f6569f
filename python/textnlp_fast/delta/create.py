"""Makes a patch from two models: hash both, match what is new with what is held, code it window by window.

The payload goes to a temporary file as it is made; the index, which comes first in the patch, is known last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from textnlp_fast.contents.documents import canonical
from textnlp_fast.contents.entries import MAX_WINDOW_BYTES, MIN_WINDOW_BYTES
from textnlp_fast.contents.inventory import (
    Held,
    LocalFile,
    check_unchanged,
    file_entry,
)
from textnlp_fast.contents.windows import (
    OpenFiles,
    ProgressCallback,
)
from textnlp_fast.contents.working import DEFAULT_MEMORY_BYTES, thread_count
from textnlp_fast.delta import approximate as approximate_room
from textnlp_fast.delta.approximate import Approximation, parse
from textnlp_fast.delta.approximating import approximate_steps
from textnlp_fast.delta.coding import Coder
from textnlp_fast.delta.factoring import FactorSearch
from textnlp_fast.delta.made_contents import MadeContents
from textnlp_fast.delta.patch import (
    FACTOR_STRATEGIES,
    STRATEGIES,
    End,
    Patch,
    Strategy,
    check_version_name,
)
from textnlp_fast.delta.patch_file import PatchFile, new_patch
from textnlp_fast.delta.patch_promise import PatchPromise
from textnlp_fast.delta.planning import Bases, choose, plan_patch
from textnlp_fast.delta.source import model_inventory
from textnlp_fast.errors import InvalidInputError

__all__ = ["DEFAULT_WINDOW_BYTES", "PatchReport", "create_from", "create_patch", "report_on"]

DEFAULT_WINDOW_BYTES: Final = 16 << 20
# Approximations that are recipes of their own, added to contents of the source.
ADDITIONS: Final = (approximate_room.LowRank, approximate_room.SignScale)


@dataclass(frozen=True, slots=True)
class PatchReport:
    """What was made. Sizes in bytes; `raw_bytes` are those of the target, `patch_bytes` those of the file."""

    path: str
    source_version: str | None
    target_version: str | None
    source_digest: str
    target_digest: str
    strategy: str
    raw_bytes: int
    patch_bytes: int
    held_contents: int
    """Contents of the target that the source has."""
    stored_contents: int
    seconds: float
    approximate: str | None = None
    """What was asked for, where the target is approximate."""
    max_ulp: int = 0
    dropped_share: float = 0.0
    """Of the change, by L2 norms."""
    unsearched_matrices: int = 0
    """Matrices that may have changed by a low rank and were too large to find that out within the memory."""

    @property
    def ratio(self) -> float:
        """Raw bytes per byte of the patch."""
        return self.raw_bytes / self.patch_bytes

    @property
    def gigabytes_per_s(self) -> float:
        return self.raw_bytes / max(self.seconds, 1e-9) / 1e9


def create_patch(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    source_version: str | None = None,
    target_version: str | None = None,
    strategy: Strategy = "auto",
    adapter: str | os.PathLike[str] | None = None,
    effort: str = "default",
    approximate: str | None = None,
    metadata: Mapping[str, str] | None = None,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
    memory_budget_bytes: int = DEFAULT_MEMORY_BYTES,
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> PatchReport:
    """Writes at `out` what makes `new` out of `old`, bit by bit. Both are safetensors files or model directories.

    Strategies `auto` and `low_rank` look for merged adapters: `adapter` is the directory of one that is known to
    have been merged, `effort` ("fast", "default" or "max") the work that goes into finding others.

    `approximate` (`max_ulp=2`; see the guide *Approximations*) makes a patch to something near `new` instead, with
    a promise of how far off that is at most. `old` must then be what readers hold.

    The same arguments make the same bytes, whatever the threads and the memory, but for merged adapters: what is
    found of those depends on the processor's linear algebra, and the largest matrices need memory. Nothing appears
    at `out` before it is complete. Raises InvalidInputError for a wrong argument or input, UnsupportedFormatError
    for an adapter that is no plain LoRA, ConflictError if another command writes to `out`, OutOfSpaceError if the
    disk is full.
    """
    started = time.monotonic()
    check_version_name(source_version)
    check_version_name(target_version)
    search = _search(strategy, adapter, effort)
    asked = None if approximate is None else parse(approximate)
    if adapter is not None and isinstance(asked, ADDITIONS):
        raise InvalidInputError(
            f"an adapter is exact, {asked} is not", hint="Leave the adapter or the approximation out."
        )
    _check_metadata(metadata or {})
    if not MIN_WINDOW_BYTES <= window_bytes <= MAX_WINDOW_BYTES or window_bytes % 64:
        raise InvalidInputError(
            f"window_bytes is {window_bytes}; windows have {MIN_WINDOW_BYTES} to {MAX_WINDOW_BYTES} bytes, "
            "a multiple of 64"
        )
    _check_output(out, (old, new))
    count = thread_count(threads)
    report = create_from(
        model_inventory(old, threads=count, progress=progress),
        model_inventory(new, threads=count, progress=progress),
        out,
        source_version=source_version,
        target_version=target_version,
        strategy=strategy,
        search=None if isinstance(asked, ADDITIONS) else search,
        asked=asked,
        metadata=metadata,
        window_bytes=window_bytes,
        memory_budget_bytes=memory_budget_bytes,
        threads=threads,
        progress=progress,
    )
    return replace(report, seconds=time.monotonic() - started)


def create_from(
    source: Sequence[LocalFile],
    target: Sequence[LocalFile],
    out: str | os.PathLike[str],
    *,
    source_version: str | None,
    target_version: str | None,
    strategy: Strategy,
    search: FactorSearch | None,
    asked: Approximation | None = None,
    promise: PatchPromise | None = None,
    metadata: Mapping[str, str] | None,
    window_bytes: int,
    memory_budget_bytes: int,
    threads: int,
    progress: ProgressCallback | None,
) -> PatchReport:
    """Like `create_patch`, of models whose files are known.

    `search`, where given, looks for merged adapters. `promise` is that of a target which is approximate already.
    """
    started = time.monotonic()
    count = thread_count(threads)
    places = {part.digest: Held(file.location, part.offset) for file in source for part in file.parts}
    with new_patch(out) as writer, OpenFiles() as files:
        bases = Bases(files, places)
        coder = Coder(files, bases, window_bytes, memory_budget_bytes, count)
        held, steps = plan_patch(source, target, files, strategy)
        if strategy == "auto":
            steps = choose(steps, files, bases, sample_bytes=window_bytes, threads=coder.workers)
        with MadeContents(writer.folder / "made", places) as made:
            if search is not None:
                steps = search.run(
                    steps,
                    target,
                    bases,
                    made,
                    memory_budget_bytes=memory_budget_bytes,
                    threads=count,
                    progress=progress,
                )
            originals = [*source, *target]
            if asked is not None:
                near = approximate_steps(
                    asked,
                    steps,
                    target,
                    held,
                    bases,
                    made,
                    writer.folder / "approximate",
                    memory_budget_bytes=memory_budget_bytes,
                    threads=count,
                    progress=progress,
                )
                steps, target, promise = near.steps, near.target, PatchPromise(asked, near.promise)
                if strategy == "auto":  # fewer weights change than did, so other frames may be smaller
                    steps = choose(steps, files, bases, sample_bytes=window_bytes, threads=coder.workers)
            contents = coder.run([*made.needed(steps), *steps], writer, progress)
        check_unchanged(originals)
        before = End(source_version, tuple(map(file_entry, source)))
        after = End(target_version, tuple(map(file_entry, target)))
        notes = dict(metadata or {})
        patch = Patch(before, after, held, contents, window_bytes, 0, "", strategy, notes, promise)
        report = report_on(writer.finish(patch), time.monotonic() - started)
        return replace(report, unsearched_matrices=0 if search is None else search.too_large)


def report_on(file: PatchFile, seconds: float) -> PatchReport:
    """What there is to say of a patch that took `seconds` to make."""
    patch, promise = file.patch, file.patch.promise
    wanted = patch.target.parts().keys()
    return PatchReport(
        str(file.path),
        patch.source.version,
        patch.target.version,
        patch.source.digest,
        patch.target.digest,
        patch.strategy,
        patch.target.raw_bytes,
        file.size_bytes,
        len(wanted - patch.contents.keys()),
        len(patch.contents),
        seconds,
        None if promise is None else str(promise.asked),
        0 if promise is None else promise.tensors.max_ulp,
        0.0 if promise is None else promise.dropped_share,
    )


def _search(strategy: str, adapter: str | os.PathLike[str] | None, effort: str) -> FactorSearch | None:
    if strategy not in STRATEGIES:
        raise InvalidInputError(f"unknown strategy {strategy!r}", hint=f"Use one of {', '.join(STRATEGIES)}.")
    search = FactorSearch(adapter=adapter, effort=effort)
    if strategy in FACTOR_STRATEGIES:
        return search
    if adapter is not None:
        raise InvalidInputError(
            f"strategy {strategy!r} makes no use of an adapter",
            hint=f"Use one of {', '.join(FACTOR_STRATEGIES)}, or leave the adapter out.",
        )
    return None


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items()):
        raise InvalidInputError("metadata maps text to text")
    try:
        canonical(dict(metadata))
    except UnicodeEncodeError as error:
        raise InvalidInputError("metadata holds half a surrogate pair") from error


def _check_output(out: str | os.PathLike[str], models: Sequence[str | os.PathLike[str]]) -> None:
    final = Path(out).expanduser().resolve()
    for model in models:
        place = Path(model).expanduser().resolve()
        if final == place:
            raise InvalidInputError(
                f"{os.fspath(out)} is one of the two models", hint="Name another file: changes.tnpatch."
            )
        if place.is_dir() and final.is_relative_to(place):
            raise InvalidInputError(
                f"{os.fspath(out)} would become a file of the model {os.fspath(model)}",
                hint="Put the patch beside the model's directory.",
            )
