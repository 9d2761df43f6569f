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
    MAX_PIECES,
    BufferPool,
    OpenFiles,
    Piece,
    Progress,
    ProgressCallback,
    plan_units,
    run_in_order,
)
from textnlp_fast.contents.working import DEFAULT_MEMORY_BYTES, thread_count, workers_for
from textnlp_fast.delta import codec
from textnlp_fast.delta.factoring import FactorSearch
from textnlp_fast.delta.made_contents import MadeContents
from textnlp_fast.delta.patch import (
    FACTOR_STRATEGIES,
    STRATEGIES,
    End,
    Patch,
    Stored,
    Strategy,
    check_version_name,
)
from textnlp_fast.delta.patch_file import PatchFile, PatchWriter, new_patch
from textnlp_fast.delta.planning import LEAST_FRAME_BYTES, Bases, Step, choose, plan_patch
from textnlp_fast.delta.recipe import LowRank
from textnlp_fast.delta.source import model_inventory
from textnlp_fast.errors import InvalidInputError

__all__ = ["DEFAULT_WINDOW_BYTES", "PatchReport", "create_from", "create_patch", "report_on"]

DEFAULT_WINDOW_BYTES: Final = 16 << 20
# A window in flight: itself, its base, what a recipe makes the base from, its coded form.
_BUFFERS: Final = 4


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
    metadata: Mapping[str, str] | None = None,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
    memory_budget_bytes: int = DEFAULT_MEMORY_BYTES,
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> PatchReport:
    """Writes at `out` what makes `new` out of `old`, bit by bit. Both are safetensors files or model directories.

    Strategies `auto` and `low_rank` look for merged adapters: `adapter` is the directory of one that is known to
    have been merged, `effort` ("fast", "default" or "max") the work that goes into finding others.

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
        search=search,
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
    metadata: Mapping[str, str] | None,
    window_bytes: int,
    memory_budget_bytes: int,
    threads: int,
    progress: ProgressCallback | None,
) -> PatchReport:
    """Like `create_patch`, of models whose files are known. `search`, where given, looks for merged adapters."""
    started = time.monotonic()
    count = thread_count(threads)
    places = {part.digest: Held(file.location, part.offset) for file in source for part in file.parts}
    with new_patch(out) as writer, OpenFiles() as files:
        bases = Bases(files, places)
        coder = _Coder(files, bases, window_bytes, memory_budget_bytes, count)
        held, steps = plan_patch(source, target, files, strategy)
        if strategy == "auto":
            steps = choose(steps, files, bases, sample_bytes=window_bytes, threads=coder.workers)
        with MadeContents(writer.folder / "made", places) as made:
            if search is not None:
                steps = search.run(
                    steps,
                    target,
                    files,
                    places,
                    made,
                    memory_budget_bytes=memory_budget_bytes,
                    threads=count,
                    progress=progress,
                )
            contents = coder.run([*made.steps, *steps], writer, progress)
        check_unchanged([*source, *target])
        patch = Patch(
            End(source_version, tuple(map(file_entry, source))),
            End(target_version, tuple(map(file_entry, target))),
            held,
            contents,
            window_bytes,
            0,
            "",
            strategy,
            dict(metadata or {}),
        )
        report = report_on(writer.finish(patch), time.monotonic() - started)
        return replace(report, unsearched_matrices=0 if search is None else search.too_large)


def report_on(file: PatchFile, seconds: float) -> PatchReport:
    """What there is to say of a patch that took `seconds` to make."""
    patch = file.patch
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


# --- coding -----------------------------------------------------------------------------------------------


class _Coder:
    """Codes steps on a few threads and hands the windows, in order, to the writer."""

    def __init__(
        self,
        files: OpenFiles,
        bases: Bases,
        window_bytes: int,
        memory_budget_bytes: int,
        threads: int,
    ) -> None:
        self._steps: Sequence[Step] = ()
        self._files = files
        self._bases = bases
        self._window_bytes = window_bytes
        self._budget_bytes = memory_budget_bytes
        self._unit_bytes = _BUFFERS * window_bytes
        self.workers = workers_for(self._unit_bytes, memory_budget_bytes, threads)
        self._threads_each = -(-threads // self.workers)
        self._buffers = BufferPool(window_bytes)
        # Frames are at least this large, so no bound is larger.
        bound = codec.encode_bound(window_bytes, frame_size_bytes=LEAST_FRAME_BYTES)
        self._coded = BufferPool(bound + MAX_PIECES * codec.encode_bound(1))

    def run(
        self, steps: Sequence[Step], writer: PatchWriter, progress: ProgressCallback | None
    ) -> dict[str, Stored]:
        """Codes everything; raises the first error once all threads have stopped."""
        self._steps = steps
        sizes = [step.part.size for step in self._steps]
        total, done = sum(sizes), 0
        extents: list[list[tuple[int, int]]] = [[] for _ in self._steps]
        needs_base = [False] * len(self._steps)
        coded_units = run_in_order(
            self._code_unit,
            plan_units(sizes, self._window_bytes),
            workers=self.workers,
            cost=lambda _: self._unit_bytes,
            budget_bytes=self._budget_bytes,
        )
        for unit, buffer, lengths in coded_units:
            offset = 0
            for piece, length in zip(unit, lengths, strict=True):
                payload = memoryview(buffer)[offset : offset + length]
                offset += length
                if length:
                    extents[piece.step].append(writer.add(payload))
                    needs_base[piece.step] |= codec.scan(payload).needs_base
            self._coded.give_back(buffer)
            done += sum(piece.length for piece in unit)
            if progress is not None:
                progress(Progress("create", done, total))
        # Factors are in the payload already, so what names them keeps naming them.
        needs_base = [
            needed or isinstance(step.base, LowRank)
            for step, needed in zip(self._steps, needs_base, strict=True)
        ]
        return {
            step.part.digest: Stored(
                step.part.digest, step.part.size, step.part.dtype, step.base if needed else None, tuple(rows)
            )
            for step, rows, needed in zip(self._steps, extents, needs_base, strict=True)
        }

    def _code_unit(self, unit: tuple[Piece, ...]) -> tuple[tuple[Piece, ...], bytearray, list[int]]:
        buffer = self._coded.take()
        lengths: list[int] = []
        used = 0
        with self._buffers.borrow() as target, self._buffers.borrow() as base, memoryview(buffer) as out:
            for piece in unit:
                lengths.append(
                    self._code_piece(piece, target[: piece.length], base[: piece.length], out[used:])
                )
                used += lengths[-1]
        return unit, buffer, lengths

    def _code_piece(self, piece: Piece, target: memoryview, base: memoryview, out: memoryview) -> int:
        if piece.length == 0:
            return 0
        step = self._steps[piece.step]
        self._files.read(step.location, target, step.part.offset + piece.offset)
        if step.base is not None:
            self._bases.read_into(step.base, piece.offset, base)
        against = base if step.base is not None else None
        return codec.encode_into(
            target,
            out,
            against,
            dtype=step.part.dtype,
            frame_size_bytes=step.frame_bytes,
            threads=self._threads_each,
        )
