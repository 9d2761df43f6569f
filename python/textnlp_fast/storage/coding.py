"""Codes the new contents of a push, window by window, while finished shards are uploaded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

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
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.chunked_transfer import decode_window, fetch_extents
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Content, Extent, chain_of
from textnlp_fast.storage.planning import CodeStep, PushPlan
from textnlp_fast.storage.shard_manager import ShardObject, ShardWriter, Slot

__all__ = ["Coded", "Coder"]

Unit = tuple[Piece, ...]


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
    repository, decoded window by window and checked against its digest before anything is published.
    """

    def __init__(
        self,
        store: ObjectStore,
        plan: PushPlan,
        held: Mapping[str, Held],
        window_bytes: int,
        options: TransferOptions,
    ) -> None:
        self._store = store
        self._steps = plan.steps
        self._reused = plan.reused
        self._held = held
        self._window_bytes = window_bytes
        self._options = options
        threads = options.thread_count
        self._shard_buffers = 3 if options.memory_budget_bytes >= 6 * options.shard_bytes else 2
        # A window in flight holds itself, its base and its coded form, beside what is fetched for the base.
        self._unit_cost = 3 * window_bytes
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

    def run(self, progress: ProgressCallback | None = None) -> Coded:
        """Codes and uploads everything; raises the first error once all threads have stopped."""
        sizes = [step.part.size for step in self._steps]
        total, done = sum(sizes), 0
        slots: list[list[Slot]] = [[] for _ in self._steps]
        needs_base = [False] * len(self._steps)
        with ExitStack() as stack:
            stack.enter_context(self._files)
            writer = stack.enter_context(self._shard_writer())
            coded_units = run_in_order(
                self._code_unit,
                plan_units(sizes, self._window_bytes),
                workers=self._workers,
                cost=self._cost,
                budget_bytes=self._budget_bytes,
            )
            for coded in coded_units:
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

    def _shard_writer(self) -> ShardWriter:
        return ShardWriter(
            self._store,
            self._options.shard_bytes,
            buffers=self._shard_buffers,
            packing=self._options.sharding,
            threads=self._options.thread_count,
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
        """What must be decoded, root first, for the step's base; nothing if it is held or there is none."""
        if step.base is None or step.base in self._held:
            return []
        return chain_of(self._reused, step.base)[::-1]

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
        if not self._options.compression:
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
            held = self._held[step.base]
            self._files.read(held.location, base, held.offset + piece.offset)
        return codec.encode_into(target, out, against, dtype=step.part.coded_as, threads=self._threads_each)
