"""Makes contents out of what is held and what the repository stores, and checks each against its digest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import (
    DATA_ERRORS,
    BufferPool,
    Cancelled,
    DataError,
    DigestCheck,
    OpenFiles,
    Piece,
    plan_units,
    run_in_order,
    with_context,
)
from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.extents import decode_window, fetch_extents
from textnlp_fast.storage.manifest import Content, Extent
from textnlp_fast.storage.object_windows import new_maker, working_bytes
from textnlp_fast.storage.planning import PullStep
from textnlp_fast.storage.pull_progress import PullProgress

__all__ = ["Decoder", "Room", "Sink", "made_from"]

Sink = Callable[[PullStep, int, memoryview], None]
"""Takes the bytes of a step's content from an offset on, before the whole content is verified."""

Room = Callable[[PullStep, int, int], "memoryview | None"]
"""The memory to make bytes of a step's content in, from an offset on and so many; None: a buffer of the decoder's."""


# A recipe's window takes what it is made of, and that takes its coded form, beside itself.
_RECIPE_WINDOWS: Final = 3


class Decoder:
    """Runs steps of a pull plan on a few threads within the memory budget of `options`.

    `contents` are those of the manifest that the plan is for, closed under bases; `names` say what they are, for
    errors. Where there are recipes, eight windows are taken at least.
    """

    def __init__(
        self,
        store: ObjectStore,
        contents: Mapping[str, Content],
        window_bytes: int,
        options: TransferOptions,
        names: Mapping[str, str],
    ) -> None:
        self._store = store
        self._contents = contents
        self._window_bytes = window_bytes
        self._names = names
        self._budget_bytes = max(options.memory_budget_bytes, 2 * window_bytes)
        threads = options.thread_count
        # Twice the processors: while some decode, others wait for the network.
        self._workers = min(max(4, 2 * threads), 16, max(1, self._budget_bytes // (2 * window_bytes)))
        self._threads_each = -(-threads // self._workers)
        self._buffers = BufferPool(window_bytes)
        self._lock = threading.Lock()
        self.fetched_bytes = 0

    def run(
        self,
        steps: Sequence[PullStep],
        sink: Sink | None,
        *,
        held: Mapping[str, Held] | None = None,
        keep_going: bool = False,
        done: Callable[[int], None] | None = None,
        room: Room | None = None,
        earlier: PullProgress | None = None,
    ) -> dict[str, DataError]:
        """Makes the content of every step and hands its windows to `sink`; `done` counts bytes.

        With `room` they are made where the caller wants them. `held` is what the steps were planned with. Windows that
        `earlier` has are taken from there, and it is told of new ones. Returns, by digest, the contents that came out
        wrong: those that were made of local bytes, and with `keep_going` all others too. Else the first error is
        raised.
        """
        with OpenFiles() as files:
            run = _Run(self, files, steps, sink, keep_going, held or {}, room, earlier)
            budget = self._budget_bytes
            if any(step.recipe is not None for step in steps):
                budget = max(budget - working_bytes(self._window_bytes, budget), 2 * self._window_bytes)
            units = run_in_order(
                run.make_unit,
                plan_units([step.content.size for step in steps], self._window_bytes),
                workers=self._workers,
                cost=run.cost,
                budget_bytes=budget,
            )
            for size in units:
                if done is not None:
                    done(size)
            return run.failures

    def fetch(self, extents: Iterable[Extent]) -> dict[Extent, memoryview]:
        """Reads extents and counts their bytes."""
        fetched = fetch_extents(self._store, extents)
        self.count_fetched(sum(extent.length for extent in fetched))
        return fetched

    def count_fetched(self, size_bytes: int) -> None:
        with self._lock:
            self.fetched_bytes += size_bytes


class _Run:
    """One call of `Decoder.run`."""

    def __init__(
        self,
        decoder: Decoder,
        files: OpenFiles,
        steps: Sequence[PullStep],
        sink: Sink | None,
        keep_going: bool,
        held: Mapping[str, Held],
        room: Room | None,
        earlier: PullProgress | None,
    ) -> None:
        self._decoder = decoder
        self._earlier = earlier
        self._room = room
        self._maker = new_maker(
            decoder._store,
            decoder._contents,
            decoder._window_bytes,
            files,
            dict(held),
            budget_bytes=decoder._budget_bytes,
            threads=decoder._threads_each,
            fetched=decoder.count_fetched,
        )
        self._files = files
        self._steps = steps
        self._sink = sink
        self._keep_going = keep_going
        self._check = DigestCheck(decoder._window_bytes, decoder._threads_each)
        self._lock = threading.Lock()
        self.failures: dict[str, DataError] = {}

    def cost(self, unit: tuple[Piece, ...]) -> int:
        recipe = any(self._steps[piece.step].recipe is not None for piece in unit)
        windows = 1 + _RECIPE_WINDOWS * recipe
        return windows * self._decoder._window_bytes + sum(extent.length for extent in self._extents(unit))

    def _is_there(self, piece: Piece) -> bool:
        """Whether an interrupted run made this window."""
        return self._earlier is not None and self._earlier.has(self._steps[piece.step], piece.window)

    def _extents(self, unit: Iterable[Piece]) -> list[Extent]:
        return [link.extents[piece.window] for piece in unit for link in self._steps[piece.step].chain]

    def make_unit(self, unit: tuple[Piece, ...]) -> int:
        """Makes the pieces of a unit; the bytes made."""
        try:
            with self._decoder._buffers.borrow() as buffer:
                self._make_pieces(unit, buffer)
        except BaseException:
            for piece in unit:
                self._check.fail(piece.step)
            raise
        if self._earlier is not None:
            self._earlier.made(
                (self._steps[piece.step].content.digest, piece.window)
                for piece in unit
                if self._steps[piece.step].content.digest not in self.failures and not self._is_there(piece)
            )
        return sum(piece.length for piece in unit)

    def _make_pieces(self, unit: tuple[Piece, ...], buffer: memoryview) -> None:
        try:
            fetched = self._decoder.fetch(self._extents([p for p in unit if not self._is_there(p)]))
        except CorruptDataError as error:
            if len(unit) > 1:
                for piece in unit:  # find out which of them it is
                    self._make_pieces((piece,), buffer)
            else:
                self._note(unit[0], error)
            return
        for piece in unit:
            try:
                self._make_piece(piece, fetched, buffer[: piece.length])
            except DATA_ERRORS as error:
                self._note(piece, error)
            except Cancelled:
                continue

    def _make_piece(self, piece: Piece, fetched: Mapping[Extent, memoryview], out: memoryview) -> None:
        step = self._steps[piece.step]
        if self._is_there(piece) and self._earlier is not None:
            if not self._earlier.read(step, piece.offset, out):
                raise CorruptDataError("what an interrupted pull left cannot be read")
            if self._sink is not None:
                self._sink(step, piece.offset, out)
            self._check.update(piece.step, step.content, piece.window, out)
            return
        given = None if self._room is None else self._room(step, piece.offset, piece.length)
        out = out if given is None else given
        if step.start is not None:
            try:
                self._files.read(step.start.location, out, step.start.offset + piece.offset)
            except (OSError, InvalidInputError) as error:
                raise CorruptDataError(f"{step.start.location} cannot be read: {error}") from error
        if step.recipe is not None:
            try:
                self._maker.fill_base(step.recipe, piece.offset, out)
            except (OSError, InvalidInputError) as error:
                raise CorruptDataError(f"what it is made of cannot be read: {error}") from error
        decode_window(
            self._decoder._store, step.chain, piece.window, fetched, out, threads=self._decoder._threads_each
        )
        if self._sink is not None:
            self._sink(step, piece.offset, out)
        self._check.update(piece.step, step.content, piece.window, out)

    def _note(self, piece: Piece, error: DataError) -> None:
        """Keeps the error of a content, or raises it."""
        self._check.fail(piece.step)
        step = self._steps[piece.step]
        digest = step.content.digest
        what = self._decoder._names.get(digest, f"content {digest}")
        is_local = step.is_local or (self._earlier is not None and self._earlier.has_some(digest))
        if not is_local and not self._keep_going:
            raise made_from(with_context(error, what), step) from error
        with self._lock:
            self.failures.setdefault(digest, with_context(error, what))


def made_from(error: DataError, step: PullStep) -> DataError:
    """The same error, naming the objects that the content was made of, unless it names one already."""
    objects = sorted({extent.object for link in (*step.chain, *step.sources) for extent in link.extents})
    if not isinstance(error, CorruptDataError) or any(name in error.args[0] for name in objects):
        return error
    more = f" or {len(objects) - 4} more" if len(objects) > 4 else ""
    renewed = type(error)(
        f"{error.args[0]}; it was read from object {' or '.join(objects[:4])}{more}",
        hint="Run `textnlp-fast verify`: it names the damaged objects. Restore them from a copy.",
    )
    renewed.position = error.position
    return renewed
