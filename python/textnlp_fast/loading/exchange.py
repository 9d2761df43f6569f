"""The steps of a swap: hash what is in memory; overwrite it window by window, with a journal of how to go back; hash
what came out; commit. Any error or cancellation on the way, whatever its kind, puts the old bytes back and hashes
them too.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from textnlp_fast.contents.windows import Progress, ProgressCallback
from textnlp_fast.contents.working import thread_count, workers_for
from textnlp_fast.errors import (
    DeviceError,
    DigestMismatchError,
    NotRestoredError,
    SwapCancelledError,
    TextnlpFastError,
    WrongBaseError,
)
from textnlp_fast.hashing import blake3_hex, blake3_many
from textnlp_fast.loading.memory import Memory
from textnlp_fast.loading.overwrite import BUFFERS, RESTORED, MemoryFiles, Overwrite
from textnlp_fast.loading.resident import Resident
from textnlp_fast.loading.sliced import SLICED_BUFFERS, SlicedOverwrite, SlicedTarget
from textnlp_fast.loading.targets import Match, Target
from textnlp_fast.loading.undo import Journal
from textnlp_fast.loading.updates import Update, some
from textnlp_fast.loading.workers import Workers

__all__ = ["Exchange"]

# Hashed on a device in one launch: enough to keep one busy, and few enough to stop in between.
_TOGETHER_BYTES: Final = 1 << 30


class Exchange:
    """One swap: the state that its steps share."""

    def __init__(
        self,
        update: Update,
        matches: Sequence[Match],
        sliced: Sequence[SlicedTarget],
        *,
        memory_budget_bytes: int,
        undo_budget_bytes: int,
        threads: int,
        cancelled: threading.Event,
        progress: ProgressCallback | None,
    ) -> None:
        self._update = update
        self._matches = matches
        self._sliced = sliced
        self._sliced_before: list[str] = []
        self._targets: list[Target] = []
        processors = thread_count(threads)
        shared = update.shared_bytes(memory_budget_bytes)
        self._workers = Workers(
            workers_for(
                (SLICED_BUFFERS if sliced else BUFFERS) * update.window_bytes + update.room_bytes(),
                max(0, memory_budget_bytes - shared),
                update.most_workers(processors),
            )
        )
        self._threads_each = -(-processors // self._workers.count)
        self._undo_budget_bytes = undo_budget_bytes
        self._cancelled = cancelled
        self._progress = progress
        self._stage = ("", 0, 0)
        self._lock = threading.Lock()

    @property
    def tensors(self) -> int:
        return len(self._matches) + len(self._sliced)

    @property
    def changed(self) -> list[Resident]:
        """What `run` found to change."""
        return [t.resident for t in self._changing] + [t.resident for t in self._sliced if t.changing]

    @property
    def _changing(self) -> list[Target]:
        return [target for target in self._targets if target.changes]

    def run(self, before_commit: Callable[[], None] | None) -> int:
        """Does it; what the journal took."""
        self._update.check_bytes()
        self._find_base()
        with (
            MemoryFiles() as files,
            # What is left of it is no reason to fail: the new weights are in place by then.
            tempfile.TemporaryDirectory(prefix="textnlp-fast-swap-", ignore_cleanup_errors=True) as folder,
            Journal(
                self._undo_budget_bytes, window_bytes=self._update.window_bytes, threads=self._threads_each
            ) as journal,
        ):
            overwrite = Overwrite(
                self._update,
                self._targets,
                files,
                journal,
                workers=self._workers,
                threads=self._threads_each,
                step=self._step,
            )
            try:
                overwrite.prepare(Path(folder))
                self._begin("swap", sum(resident.size for resident in self.changed))
                overwrite.run()
                self._overwrite_slices(files, journal)
                self._check_target()
                if before_commit is not None:
                    before_commit()
                self._stop_if_cancelled()
            except BaseException as error:
                self._go_back(journal, error)
                raise
            finally:
                overwrite.close()
            return journal.payload_bytes

    def _overwrite_slices(self, files: MemoryFiles, journal: Journal) -> None:
        if not any(target.changing for target in self._sliced):
            return
        maker = self._update.maker(files, self._update.source_places(), self._threads_each)
        SlicedOverwrite(
            self._sliced,
            maker,
            journal,
            window_bytes=self._update.window_bytes,
            workers=self._workers,
            step=self._step,
        ).run()

    # --- before and after ---------------------------------------------------------------------------------

    def _find_base(self) -> None:
        """Finds out what memory has. Raises WrongBaseError unless that is what the update starts from."""
        everything = [one.resident.memory for one in self._matches]
        everything += [target.resident.memory for target in self._sliced]
        digests = self._digests("check", everything)
        # Not what anybody wrote down, but what has to come back if it comes to that.
        self._sliced_before = digests[len(self._matches) :]
        digests = digests[: len(self._matches)]
        self._targets = [
            Target(one.resident, digest, one.after, one.dtype)
            for one, digest in zip(self._matches, digests, strict=True)
        ]
        wrong = [
            one.resident.name
            for one, digest in zip(self._matches, digests, strict=True)
            if one.before not in (None, digest)
        ]
        if not wrong:
            return
        already = not self._changing
        error = WrongBaseError(
            f"the weights in memory are not {self._update.label}: {some(wrong)}"
            + (". They are the update's target already" if already else ""),
            hint="There is nothing to do."
            if already
            else "Load the version that the update starts from, or get an update that starts from what is loaded.",
        )
        error.is_target = already
        raise error

    def _check_target(self) -> None:
        digests = self._digests("verify", [target.resident.memory for target in self._targets])
        for target, digest in zip(self._targets, digests, strict=True):
            if digest != target.after:
                raise DigestMismatchError(
                    f"tensor {target.resident.name!r} did not come out as it should", hint=RESTORED
                )

    def _digests(self, stage: str, memories: Sequence[Memory]) -> list[str]:
        """The digests of runs of memory, those on a device many at a time."""
        self._begin(stage, sum(memory.size for memory in memories))
        groups: list[list[int]] = []
        filled: dict[int, int] = {}
        open_group: dict[int, list[int]] = {}
        for number, memory in enumerate(memories):
            device = memory.device
            if device is None or filled.get(device, _TOGETHER_BYTES) + memory.size > _TOGETHER_BYTES:
                groups.append([number])
                if device is not None:
                    open_group[device], filled[device] = groups[-1], memory.size
                continue
            open_group[device].append(number)
            filled[device] += memory.size

        def digest(group: list[int]) -> list[str]:
            self._stop_if_cancelled()
            found = _hash([memories[number] for number in group])
            self._advance(sum(memories[number].size for number in group))
            return found

        answers = [""] * len(memories)
        for group, found in zip(groups, self._workers.run(digest, groups), strict=True):
            for number, name in zip(group, found, strict=True):
                answers[number] = name
        return answers

    # --- back ---------------------------------------------------------------------------------------------

    def _go_back(self, journal: Journal, cause: BaseException) -> None:
        """Restores every byte, in a thread that no interrupt reaches, and proves it."""
        failures: list[BaseException] = []

        def restore() -> None:
            try:
                self._workers.close()
                for _ in journal.restore():
                    pass
                known = [(target.resident, target.before) for target in self._changing]
                known += [(t.resident, d) for t, d in zip(self._sliced, self._sliced_before, strict=True)]
                digests = _hash([resident.memory for resident, _ in known])
                broken = [
                    r.name for (r, before), found in zip(known, digests, strict=True) if found != before
                ]
                if broken:
                    failures.append(_not_restored(broken))
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
            error = known or _not_restored([resident.name for resident in self.changed])
            raise error from (failures[0] if known is None else cause)
        if isinstance(cause, TextnlpFastError) and RESTORED not in cause.hint:
            cause.hint = f"{cause.hint} {RESTORED}".strip()
        if interrupted and not isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from cause

    # --- progress -----------------------------------------------------------------------------------------

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise SwapCancelledError("the swap was cancelled", hint=RESTORED)

    def _step(self, done_bytes: int) -> None:
        """Between windows: counts what was done, and stops if that was asked for."""
        self._stop_if_cancelled()
        self._advance(done_bytes)

    def _begin(self, stage: str, total: int) -> None:
        self._stage = stage, 0, total

    def _advance(self, size: int) -> None:
        if self._progress is None or not size:
            return
        with self._lock:
            stage, done, total = self._stage
            self._stage = stage, done + size, total
            self._progress(Progress(stage, done + size, total))


def _hash(memories: Sequence[Memory]) -> list[str]:
    """Digests by one thread: several of host memory one by one, of a device's in one launch a device."""
    answers: dict[int, str] = {}
    by_device: dict[int, list[int]] = {}
    for number, memory in enumerate(memories):
        if memory.device is None:
            answers[number] = blake3_hex(memory.array, threads=1)
        else:
            by_device.setdefault(memory.device, []).append(number)
    for device, numbers in by_device.items():
        try:
            found = blake3_many([memories[number].array for number in numbers])
        except DeviceError as error:
            raise DeviceError(
                f"hashing weights on device {device}: {error.args[0]}", hint=error.hint
            ) from error
        answers.update((number, digest.hex()) for number, digest in zip(numbers, found, strict=True))
    return [answers[number] for number in range(len(memories))]


def _not_restored(names: Sequence[str]) -> NotRestoredError:
    error = NotRestoredError(f"the swap failed, and these tensors could not be put back: {some(names)}")
    error.tensors = tuple(names)
    return error
