"""Codes the new contents of a push, window by window, while finished shards are uploaded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from textnlp_fast.delta import codec
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.chunked_transfer import (
    BufferPool,
    OpenFiles,
    OrderedDigest,
    Progress,
    ProgressCallback,
    check_digest,
    decode_window,
    fetch_extents,
    run_in_order,
)
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Content, Extent, chain_of
from textnlp_fast.storage.planning import CodeStep, Held, Piece, PushPlan, plan_units
from textnlp_fast.storage.shard_manager import ShardObject, ShardWriter, Slot

__all__ = ["Coded", "Coder"]

@dataclass(frozen=True, slots=True)
class Coded:
    slots: list[list[Slot]]
    needs_base: list[bool]
    shards: list[ShardObject]


class Coder:
    """Codes the steps of a plan window by window and hands the windows, in order, to the shard writer."""

    def __init__(
        self,
        store: ObjectStore,
        plan: PushPlan,
        held: Mapping[str, Held],
        window_bytes: int,
        options: TransferOptions,
        progress: ProgressCallback | None,
    ) -> None:
        self._store = store
        self._plan = plan
        self._held = held
        self._window_bytes = window_bytes
        self._options = options
        self._progress = progress
        threads = options.thread_count
        shards = 3 if options.memory_budget_bytes >= 6 * options.shard_bytes else 2
        self._shard_buffers = shards
        # A window in flight holds itself, its base and its coded form, beside what is fetched for the base.
        self._unit_cost = 3 * window_bytes
        self._budget = max(options.memory_budget_bytes - shards * options.shard_bytes, self._unit_cost)
        self._workers = max(1, min(threads, self._budget // self._unit_cost))
        self._threads_each = -(-threads // self._workers)
        self._buffers = BufferPool(window_bytes)
        self._base_digests = {
            number: OrderedDigest() for number, step in enumerate(plan.steps) if step.base not in (None, *held)
        }

    def run(self) -> Coded:
        """Codes and uploads everything; raises the first error once all threads have stopped."""
        steps = self._plan.steps
        sizes = [step.part.size for step in steps]
        total, done = sum(sizes), 0
        slots: list[list[Slot]] = [[] for _ in steps]
        needs_base = [False] * len(steps)
        with ExitStack() as stack:
            self._files = stack.enter_context(OpenFiles())
            writer = stack.enter_context(
                ShardWriter(
                    self._store,
                    self._options.shard_bytes,
                    buffers=self._shard_buffers,
                    packing=self._options.sharding,
                    threads=self._options.thread_count,
                )
            )
            units = plan_units(sizes, self._window_bytes)
            results = run_in_order(
                self._code_unit,
                units,
                workers=self._workers,
                cost=self._cost,
                budget_bytes=self._budget,
            )
            for unit, payloads in results:
                for piece, payload in zip(unit, payloads, strict=True):
                    if piece.length == 0:
                        continue
                    slots[piece.step].append(writer.add(payload))
                    if steps[piece.step].base is not None:
                        needs_base[piece.step] |= codec.scan(payload).needs_base
                done += sum(piece.length for piece in unit)
                if self._progress is not None:
                    self._progress(Progress("push", done, total))
            shards = writer.finish()
        for number, digest in self._base_digests.items():
            base = steps[number].base
            assert base is not None
            check_digest(base, digest.hexdigest, f"the stored base of tensor {steps[number].part.name!r}")
        return Coded(slots, needs_base, shards)

    def _code_unit(self, unit: tuple[Piece, ...]) -> tuple[tuple[Piece, ...], list[bytes]]:
        try:
            with self._buffers.borrow() as target, self._buffers.borrow() as base:
                payloads = fetch_extents(self._store, self._base_extents(unit))
                return unit, [self._code_piece(piece, payloads, target, base) for piece in unit]
        except BaseException:
            for piece in unit:
                if piece.step in self._base_digests:
                    self._base_digests[piece.step].fail()
            raise

    def _cost(self, unit: tuple[Piece, ...]) -> int:
        return self._unit_cost + sum(extent.length for extent in self._base_extents(unit))

    def _base_extents(self, unit: tuple[Piece, ...]) -> list[Extent]:
        wanted: list[Extent] = []
        for piece in unit:
            if piece.step in self._base_digests and piece.length:
                wanted += [link.extents[piece.window] for link in self._base_chain(self._plan.steps[piece.step])]
        return wanted

    def _base_chain(self, step: CodeStep) -> list[Content]:
        assert step.base is not None
        return chain_of(self._plan.reused, step.base)[::-1]

    def _code_piece(
        self, piece: Piece, payloads: Mapping[Extent, memoryview], target: memoryview, base: memoryview
    ) -> bytes:
        if piece.length == 0:
            return b""
        step = self._plan.steps[piece.step]
        target, base = target[: piece.length], base[: piece.length]
        self._files.read(step.location, target, step.part.offset + piece.offset)
        if not self._options.compression:
            return bytes(target)
        against: memoryview | None = None
        if step.base is not None:
            against = base
            held = self._held.get(step.base)
            if held is not None:
                self._files.read(held.location, base, held.offset + piece.offset)
            else:
                decode_window(
                    self._base_chain(step), piece.window, payloads, base, threads=self._threads_each
                )
                self._base_digests[piece.step].update(piece.window, base, threads=self._threads_each)
        return codec.encode(target, against, dtype=step.part.dtype, threads=self._threads_each)
