"""New weights in the memory of a running process: all of them, or the old ones again.

`docs/guide/swap.md` says what a server does around it. The steps: read what the patch and the memory are; hash the
resident tensors; overwrite them window by window, with a journal of how to go back; hash what came out; commit. Any
error or cancellation on the way, whatever its kind, puts the old bytes back and hashes them too.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import (
    DATA_ERRORS,
    BufferPool,
    OpenFiles,
    Progress,
    ProgressCallback,
    with_context,
)
from textnlp_fast.contents.working import DEFAULT_MEMORY_BYTES, thread_count, workers_for
from textnlp_fast.delta.filling import make_first, room_bytes
from textnlp_fast.delta.making import Maker
from textnlp_fast.delta.patch import Patch
from textnlp_fast.delta.patch_file import PatchFile, read_patch
from textnlp_fast.delta.source import check_source
from textnlp_fast.errors import (
    DigestMismatchError,
    InvalidInputError,
    NotRestoredError,
    SwapCancelledError,
    TextnlpFastError,
    WrongBaseError,
)
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.loading.overwriting import Needs, in_order, needs_of
from textnlp_fast.loading.resident import Bytes, Module, find_residents
from textnlp_fast.loading.targets import Target, find_targets
from textnlp_fast.loading.undo import Journal

__all__ = ["SwapReport", "swap"]

DEFAULT_UNDO_BYTES: Final = 256 << 20
# Of a window: new bytes, old ones, the delta between them, the coded window.
_BUFFERS: Final = 4
_RESIDENT: Final = "resident:"
_KEPT: Final = "kept:"
_RESTORED: Final = "The old weights are in place again, bit by bit, and were checked."

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What a swap did. Sizes in bytes."""

    source_version: str | None
    target_version: str | None
    target_digest: str
    tensors: int
    """Tensors of the model that were checked."""
    changed_tensors: int
    changed_bytes: int
    undo_bytes: int
    """What the way back took, had it been needed."""
    seconds: float


def swap(
    model: Mapping[str, Any] | Module,
    patch: str | os.PathLike[str] | PatchFile,
    *,
    partial: bool = False,
    source: str | os.PathLike[str] | None = None,
    memory_budget_bytes: int = DEFAULT_MEMORY_BYTES,
    undo_budget_bytes: int = DEFAULT_UNDO_BYTES,
    threads: int = 0,
    before_commit: Callable[[], None] | None = None,
    cancelled: threading.Event | None = None,
    progress: ProgressCallback | None = None,
) -> SwapReport:
    """Makes the tensors of ``model`` those of the patch's target, where they lie.

    ``model`` is a dict of torch tensors (on the CPU) or numpy arrays by the names that the checkpoint gives them, or a
    module; tied weights may have several names. Nobody may use the tensors until this returns: `docs/guide/swap.md`.
    With ``partial`` it may hold some of the tensors only. ``source`` is a copy of the old model on disk, needed
    where the patch changes a file's header, or makes tensors of others that are not in ``model``. Up to
    ``undo_budget_bytes`` of the way back are kept in memory, what is more in a temporary file. ``before_commit`` is
    called when all is in place and checked; what it raises is taken as a failure.

    Raises WrongBaseError, before anything is written, if the tensors are not those that the patch starts from;
    InvalidInputError if the two do not fit each other; CorruptDataError if the patch is damaged; SwapCancelledError
    once ``cancelled`` is set. Whatever is raised, the old bytes are in place again, but for NotRestoredError, which
    names the tensors that are not whole.
    """
    started = time.monotonic()
    file = patch if isinstance(patch, PatchFile) else read_patch(patch)
    residents = find_residents(model)
    targets = find_targets(file, residents, partial=partial, source=source)
    run = _Swap(
        file,
        targets,
        source,
        memory_budget_bytes=memory_budget_bytes,
        undo_budget_bytes=undo_budget_bytes,
        threads=thread_count(threads),
        cancelled=cancelled or threading.Event(),
        progress=progress,
    )
    undo_bytes = run.run(before_commit)
    changed = [target for target in targets if target.changes]
    end = file.patch.target
    return SwapReport(
        file.patch.source.version,
        end.version,
        end.digest,
        len(targets),
        len(changed),
        sum(target.resident.size for target in changed),
        undo_bytes,
        time.monotonic() - started,
    )


class _Memory(OpenFiles):
    """Files, and memory by names that no file has."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[str, Bytes] = {}

    def __enter__(self) -> _Memory:
        return self

    def read(self, location: str, view: memoryview, offset: int) -> None:
        data = self.memory.get(location)
        if data is None:
            super().read(location, view, offset)
        else:
            view[:] = data.data[offset : offset + len(view)]


class _Swap:
    """One swap: the state that its steps share."""

    def __init__(
        self,
        file: PatchFile,
        targets: Sequence[Target],
        source: str | os.PathLike[str] | None,
        *,
        memory_budget_bytes: int,
        undo_budget_bytes: int,
        threads: int,
        cancelled: threading.Event,
        progress: ProgressCallback | None,
    ) -> None:
        self._file = file
        self._patch: Patch = file.patch
        self._targets = targets
        self._changing = [target for target in targets if target.changes]
        self._source = source
        self._window = self._patch.window_bytes
        unit = _BUFFERS * self._window + room_bytes(self._patch)
        self._workers = workers_for(unit, memory_budget_bytes, threads)
        self._threads = threads
        self._undo_budget_bytes = undo_budget_bytes
        self._buffers = BufferPool(self._window)
        self._holders: dict[str, list[str]] = {}
        self._cancelled = cancelled
        self._progress = progress
        self._stage = ("", 0, 0)
        self._lock = threading.Lock()
        self._at_work = 0
        self._closed = False
        self._quiet = threading.Condition()

    def run(self, before_commit: Callable[[], None] | None) -> int:
        """Does it; what the journal took."""
        with OpenFiles() as files:
            self._file.check_payload(files)
        self._check_base()
        with (
            _Memory() as files,
            tempfile.TemporaryDirectory(prefix="textnlp-fast-swap-") as folder,
            Journal(
                self._undo_budget_bytes,
                window_bytes=self._window,
                threads=-(-self._threads // self._workers),
            ) as journal,
        ):
            try:
                self._overwrite(files, Path(folder), journal)
                self._check_target()
                if before_commit is not None:
                    before_commit()
                self._stop_if_cancelled()
            except BaseException as error:
                self._go_back(journal, error)
                raise
            return journal.payload_bytes

    # --- before -------------------------------------------------------------------------------------------

    def _check_base(self) -> None:
        """Raises WrongBaseError unless every tensor has the bytes that the patch starts from."""
        wrong = self._differing("check", lambda target: target.before)
        if not wrong:
            return
        names = ", ".join(repr(target.resident.name) for target in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        already = not self._differing("check", lambda target: target.after)
        error = WrongBaseError(
            f"the weights in memory are not {self._patch.source.label}, which the patch starts from: {names}{more}"
            + (". They are the patch's target already" if already else ""),
            hint="There is nothing to do."
            if already
            else "Load the version that the patch starts from, or get a patch that starts from what is loaded.",
        )
        error.is_target = already
        raise error

    def _differing(self, stage: str, digest: Callable[[Target], str]) -> list[Target]:
        """Targets whose memory has another digest."""
        self._begin(stage, sum(target.resident.size for target in self._targets))

        def differs(target: Target) -> bool:
            self._stop_if_cancelled()
            found = blake3_hex(target.resident.data, threads=1) != digest(target)
            self._advance(target.resident.size)
            return found

        return [
            target
            for target, other in zip(self._targets, self._on_threads(differs, self._targets), strict=True)
            if other
        ]

    # --- the change ---------------------------------------------------------------------------------------

    def _overwrite(self, files: _Memory, folder: Path, journal: Journal) -> None:
        needs = [needs_of(self._patch, target.after) for target in self._changing]
        groups = in_order(
            [target.before for target in self._changing],
            needs,
            [target.resident.size for target in self._changing],
        )
        places = self._places(files, needs)
        maker = Maker(self._file, files, places, threads=-(-self._threads // self._workers))
        self._make_first(maker, files, folder)
        self._begin("swap", sum(target.resident.size for target in self._changing))
        for group in groups:
            chosen = [self._changing[turn.number] for turn in group]
            for turn, target in zip(group, chosen, strict=True):
                if turn.keep:
                    files.memory[_KEPT + target.before] = target.resident.data.copy()
                    places[target.before] = Held(_KEPT + target.before, 0)
            self._make_way(files, places, chosen)
            self._overwrite_group(maker, journal, chosen)
            for target in chosen:
                del files.memory[_RESIDENT + target.resident.name]

    def _places(self, files: _Memory, needs: Sequence[Needs]) -> dict[str, Held]:
        """Where the contents of the source are: in memory, or in the copy on disk."""
        places: dict[str, Held] = {}
        for target in self._targets:
            name = _RESIDENT + target.resident.name
            files.memory[name] = target.resident.data
            places.setdefault(target.before, Held(name, 0))
            self._holders.setdefault(target.before, []).append(name)
        wanted = {name for need in needs for name in (*need.elsewhere, need.aligned) if name is not None}
        on_disk = wanted - places.keys()
        if on_disk:
            places.update(self._on_disk(on_disk))
        return places

    def _on_disk(self, wanted: set[str]) -> dict[str, Held]:
        if self._source is None:
            raise InvalidInputError(
                f"new tensors are made of {len(wanted)} old ones that are not in memory",
                hint="Pass source=, the directory or file of the model that is loaded.",
            )
        held = check_source(self._patch, self._source, threads=self._threads)
        return {name: held[name] for name in wanted}

    def _make_first(self, maker: Maker, files: _Memory, folder: Path) -> None:
        """Contents that others are made of here and there (factors of adapters) are decoded once, into a file."""
        groups = make_first(self._patch, (target.after for target in self._changing))
        path = folder / "made"
        offset = 0
        with path.open("wb") as out:
            for digest in (digest for group in groups for digest in group):
                size = self._patch.size_of(digest)
                for begin in range(0, size, self._window):
                    self._stop_if_cancelled()
                    part = bytearray(min(self._window, size - begin))
                    maker.read_into(digest, begin, memoryview(part))
                    out.write(part)
                out.flush()
                maker.places[digest] = Held(str(path), offset)
                offset += size

    def _make_way(self, files: _Memory, places: dict[str, Held], chosen: Sequence[Target]) -> None:
        """Contents whose memory is about to be overwritten are read from elsewhere, if anything else has them."""
        leaving = {_RESIDENT + target.resident.name for target in chosen}
        for target in chosen:
            if places[target.before].location not in leaving:
                continue
            for name in self._holders[target.before]:
                if name in files.memory and name not in leaving:
                    places[target.before] = Held(name, 0)
                    break

    def _overwrite_group(self, maker: Maker, journal: Journal, chosen: Sequence[Target]) -> None:
        def one(job: tuple[Target, int]) -> None:
            target, begin = job
            self._stop_if_cancelled()
            memory = target.resident.data[begin : begin + self._window]
            with self._buffers.borrow() as buffer:
                new = buffer[: memory.nbytes]
                try:
                    maker.read_into(target.after, begin, new)
                except DATA_ERRORS as error:
                    raise with_context(error, f"tensor {target.resident.name!r}", hint=_RESTORED) from error
                journal.write(memory, new, target.dtype)
            self._advance(memory.nbytes)

        self._on_threads(
            one,
            [(target, begin) for target in chosen for begin in range(0, target.resident.size, self._window)],
        )

    def _check_target(self) -> None:
        wrong = self._differing("verify", lambda target: target.after)
        if wrong:
            raise DigestMismatchError(
                f"tensor {wrong[0].resident.name!r} did not come out as the patch says", hint=_RESTORED
            )

    # --- back ---------------------------------------------------------------------------------------------

    def _go_back(self, journal: Journal, cause: BaseException) -> None:
        """Restores every byte, in a thread that no interrupt reaches, and proves it."""
        failures: list[BaseException] = []

        def restore() -> None:
            try:
                # An interrupt can end the wait for threads before these have ended.
                with self._quiet:
                    self._closed = True
                    self._quiet.wait_for(lambda: self._at_work == 0)
                for _ in journal.restore():
                    pass
                broken = [t for t in self._changing if blake3_hex(t.resident.data, threads=1) != t.before]
                if broken:
                    failures.append(_not_restored([target.resident.name for target in broken]))
            except BaseException as error:  # noqa: BLE001  (it is raised by the thread that waits)
                failures.append(error)

        thread = threading.Thread(target=restore, name="textnlp-fast-restore")
        thread.start()
        interrupted = False
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt:
                interrupted = True
        if failures:
            known = failures[0] if isinstance(failures[0], NotRestoredError) else None
            error = known or _not_restored([target.resident.name for target in self._changing])
            raise error from (failures[0] if known is None else cause)
        if isinstance(cause, TextnlpFastError) and _RESTORED not in cause.hint:
            cause.hint = f"{cause.hint} {_RESTORED}".strip()
        if interrupted and not isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from cause

    # --- threads ------------------------------------------------------------------------------------------

    def _on_threads(self, work: Callable[[Any], Result], items: Sequence[Any]) -> list[Result]:
        """Results in order. The first error ends it: what has not begun then never does."""

        def one(item: Any) -> Result:
            with self._quiet:
                if self._closed:
                    raise SwapCancelledError("another part of the swap failed")
                self._at_work += 1
            try:
                return work(item)
            finally:
                with self._quiet:
                    self._at_work -= 1
                    self._quiet.notify_all()

        with ThreadPoolExecutor(self._workers, thread_name_prefix="textnlp-fast-swap") as pool:
            futures = [pool.submit(one, item) for item in items]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = [error for future in futures if future in done and (error := future.exception())]
                if failed:
                    raise failed[0]
                return [future.result() for future in futures]
            finally:
                pool.shutdown(cancel_futures=True)

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise SwapCancelledError("the swap was cancelled", hint=_RESTORED)

    def _begin(self, stage: str, total: int) -> None:
        self._stage = stage, 0, total

    def _advance(self, size: int) -> None:
        if self._progress is None:
            return
        with self._lock:
            stage, done, total = self._stage
            self._stage = stage, done + size, total
            self._progress(Progress(stage, done + size, total))


def _not_restored(names: Sequence[str]) -> NotRestoredError:
    shown = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    error = NotRestoredError(f"the swap failed, and these tensors could not be put back: {shown}")
    error.tensors = tuple(names)
    return error
