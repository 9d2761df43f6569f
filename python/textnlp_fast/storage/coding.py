"""Codes the new contents of a push, window by window, while finished shards are uploaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import (
    DATA_ERRORS,
    MAX_PIECES,
    BufferPool,
    DigestCheck,
    OpenFiles,
    Piece,
    Progress,
    ProgressCallback,
    plan_units,
    run_in_order,
    with_context,
)
from textnlp_fast.delta import codec
from textnlp_fast.delta.planning import Bases
from textnlp_fast.delta.recipe import Whole
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.extents import decode_window, fetch_extents
from textnlp_fast.storage.manifest import Content, Extent, chain_of
from textnlp_fast.storage.packing import Names, ShardObject, ShardWriter, Slot
from textnlp_fast.storage.planning import CodeStep, PushPlan
from textnlp_fast.storage.scratch import fetched_contents

__all__ = ["Coded", "Coder"]

Unit = tuple[Piece, ...]

# What bases are made of, on the disk at a time; one base may take more.
_BATCH_BYTES: Final = 4 << 30


@dataclass(frozen=True, slots=True)
class Coded:
    """Where each step's windows went, whether any of them needs its base, and the shards by number."""

    slots: list[list[Slot]]
    needs_base: list[bool]
    shards: list[ShardObject]


@dataclass(frozen=True, slots=True)
class _Payloads:
    """The coded pieces of a unit, one after the other in `buffer`."""

    unit: Unit
    buffer: bytearray
    lengths: list[int]


class Coder:
    """Codes the steps of a plan and hands the windows, in order, to the shard writer.

    A base comes from a local file where `held` has it (hashed before by the caller), else from the
    repository, decoded window by window and checked against its digest before anything is published. What a recipe
    needs from the repository is fetched into a temporary file first, a batch of tensors at a time.
    """

    def __init__(
        self,
        store: ObjectStore,
        plan: PushPlan,
        held: Mapping[str, Held],
        window_bytes: int,
        options: TransferOptions,
        names: Names | None = None,
        uncoded: frozenset[str] = frozenset(),
    ) -> None:
        self._store = store
        self._names = names
        self._uncoded = uncoded
        self._steps = plan.steps
        self._reused = plan.reused
        self._held = held
        self._window_bytes = window_bytes
        self._options = options
        threads = options.thread_count
        self._shard_buffers = 3 if options.memory_budget_bytes >= 6 * options.shard_bytes else 2
        # A window in flight holds itself, its base and its coded form, beside what is fetched for the base; and what
        # a recipe makes the base from.
        recipes = any(not self._is_plain(step) for step in plan.steps)
        self._unit_cost = (4 if recipes else 3) * window_bytes
        for_windows = options.memory_budget_bytes - self._shard_buffers * options.shard_bytes
        self._budget_bytes = max(for_windows, self._unit_cost)
        self._workers = max(1, min(threads, self._budget_bytes // self._unit_cost))
        self._threads_each = -(-threads // self._workers)
        self._buffers = BufferPool(window_bytes)
        self._coded_buffers = BufferPool(
            codec.encode_bound(window_bytes) + MAX_PIECES * codec.encode_bound(1)
        )
        self._check = DigestCheck(window_bytes, self._threads_each)
        self._files = OpenFiles()
        self._bases = Bases(self._files, held)

    def run(self, progress: ProgressCallback | None = None) -> Coded:
        """Codes and uploads everything; raises the first error once all threads have stopped."""
        sizes = [step.part.size for step in self._steps]
        total, done = sum(sizes), 0
        slots: list[list[Slot]] = [[] for _ in self._steps]
        needs_base = [False] * len(self._steps)
        with ExitStack() as stack:
            stack.enter_context(self._files)
            writer = stack.enter_context(self._shard_writer())
            for coded in self._code(sizes):
                offset = 0
                for piece, length in zip(coded.unit, coded.lengths, strict=True):
                    payload = memoryview(coded.buffer)[offset : offset + length]
                    offset += length
                    if not length:
                        continue
                    slots[piece.step].append(writer.add(payload))
                    if self._steps[piece.step].base is not None and not needs_base[piece.step]:
                        needs_base[piece.step] = codec.scan(payload).needs_base
                self._coded_buffers.give_back(coded.buffer)
                done += sum(piece.length for piece in coded.unit)
                if progress is not None:
                    progress(Progress("push", done, total))
            shards = writer.finish()
        return Coded(slots, needs_base, shards)

    def _code(self, sizes: list[int]) -> Iterator[_Payloads]:
        """The units of all steps in their order, whatever the batches are."""
        for first, last, sources in self._batches():
            with self._fetched(sources):
                units = (
                    tuple(replace(piece, step=piece.step + first) for piece in unit)
                    for unit in plan_units(sizes[first:last], self._window_bytes)
                )
                yield from run_in_order(
                    self._code_unit,
                    units,
                    workers=self._workers,
                    cost=self._cost,
                    budget_bytes=self._budget_bytes,
                )

    def _batches(self) -> Iterator[tuple[int, int, list[str]]]:
        """Steps [first, last) with what has to be fetched for them."""
        first, sources, size = 0, dict[str, None](), 0
        for number, step in enumerate(self._steps):
            new = [digest for digest in self._to_fetch(step) if digest not in sources]
            new_bytes = sum(self._reused[digest].size for digest in new)
            if sources and new and size + new_bytes > _BATCH_BYTES:
                yield first, number, list(sources)
                first, sources, size = number, {}, 0
                new = self._to_fetch(step)
                new_bytes = sum(self._reused[digest].size for digest in new)
            sources.update(dict.fromkeys(new))
            size += new_bytes
        yield first, len(self._steps), list(sources)

    def _is_plain(self, step: CodeStep) -> bool:
        """Whether windows of the step's base can be decoded alone, in place."""
        base = step.base
        if base is None:
            return True
        if not isinstance(base, Whole):
            return False
        return base.digest in self._held or chain_of(self._reused, base.digest)[-1].base is None

    def _to_fetch(self, step: CodeStep) -> list[str]:
        if step.base is None or self._is_plain(step):
            return []
        return [digest for digest in step.base.source_sizes() if digest not in self._held]

    @contextmanager
    def _fetched(self, sources: Iterable[str]) -> Iterator[None]:
        """Has the contents in local files while the context lasts."""
        names = {
            source: f"the stored base of tensor {step.part.name!r}"
            for step in self._steps
            for source in self._to_fetch(step)
        }
        decoder = Decoder(self._store, self._reused, self._window_bytes, self._options, names)
        with fetched_contents(decoder, self._reused, sources, self._held) as places, OpenFiles() as files:
            self._bases = Bases(files, {**self._held, **places})
            yield

    def _shard_writer(self) -> ShardWriter:
        return ShardWriter(
            self._store,
            self._options.shard_bytes,
            buffers=self._shard_buffers,
            packing=self._options.sharding,
            threads=self._options.thread_count,
            names=self._names,
        )

    def _code_unit(self, unit: Unit) -> _Payloads:
        try:
            with self._buffers.borrow() as target, self._buffers.borrow() as base:
                fetched = fetch_extents(self._store, self._base_extents(unit))
                buffer = self._coded_buffers.take()
                lengths: list[int] = []
                with memoryview(buffer) as out:
                    for piece in unit:
                        place = out[sum(lengths) :]
                        lengths.append(self._code_piece(piece, fetched, target, base, place))
                return _Payloads(unit, buffer, lengths)
        except BaseException:
            for piece in unit:
                self._check.fail(piece.step)
            raise

    def _cost(self, unit: Unit) -> int:
        return self._unit_cost + sum(extent.length for extent in self._base_extents(unit))

    def _base_extents(self, unit: Unit) -> list[Extent]:
        return [
            link.extents[piece.window]
            for piece in unit
            if piece.length
            for link in self._base_chain(self._steps[piece.step])
        ]

    def _base_chain(self, step: CodeStep) -> list[Content]:
        """What must be decoded, root first, for the step's base; nothing if it is at hand or there is none."""
        base = step.base
        if not isinstance(base, Whole) or base.digest in self._held or not self._is_plain(step):
            return []
        return chain_of(self._reused, base.digest)[::-1]

    def _code_piece(
        self,
        piece: Piece,
        fetched: Mapping[Extent, memoryview],
        target: memoryview,
        base: memoryview,
        out: memoryview,
    ) -> int:
        if piece.length == 0:
            return 0
        step = self._steps[piece.step]
        target, base = target[: piece.length], base[: piece.length]
        self._files.read(step.location, target, step.part.offset + piece.offset)
        if step.part.digest in self._uncoded:
            out[: piece.length] = target
            return piece.length
        against = base if step.base is not None else None
        chain = self._base_chain(step)
        if chain:
            try:
                decode_window(self._store, chain, piece.window, fetched, base, threads=self._threads_each)
                self._check.update(piece.step, chain[-1], piece.window, base)
            except DATA_ERRORS as error:
                raise with_context(
                    error, f"the stored base of tensor {step.part.name!r} is damaged"
                ) from error
        elif step.base is not None:
            self._bases.read_into(step.base, piece.offset, base)
        return codec.encode_into(target, out, against, dtype=step.part.coded_as, threads=self._threads_each)
