"""Measures, on a few slices, how much a push will store: against the bases of its plan, and without them.

Where the slices lie follows from the plan alone, and coding is the same everywhere: a push that is repeated measures
the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import BufferPool, OpenFiles, run_in_order
from textnlp_fast.delta import codec
from textnlp_fast.delta.recipe import Whole
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.extents import decode_window, fetch_extents
from textnlp_fast.storage.manifest import Content, Extent, chain_of
from textnlp_fast.storage.planning import CodeStep, PushPlan

__all__ = ["SampledSizes", "based_steps", "sample_sizes"]

# Of each sampled place one frame is coded, twice; but the whole window of its base has to be decoded.
_SLICE_BYTES: Final = 1 << 20
_FEWEST_SLICES: Final = 8
_MOST_SLICES: Final = 64
# Windows of bases: a quarter of all, but within these.
_FEWEST_BYTES: Final = 4 << 20
_MOST_BYTES: Final = 384 << 20
# 2^64 over the golden ratio. Its multiples, modulo 2^64, spread evenly whatever their number, and do not keep step with
# layers that repeat, as equal distances do.
_GOLDEN: Final = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class SampledSizes:
    """Of the new tensors that have a base: their bytes, and what they will take whole and against it (estimates)."""

    tensor_bytes: int
    whole_bytes: int
    delta_bytes: int


def based_steps(plan: PushPlan) -> list[tuple[CodeStep, str]]:
    """The steps that are coded against a content as it is, and that content.

    Not those whose chains end in a recipe: a window of these is not decoded in place.
    """
    return [
        (step, step.base.digest)
        for step in plan.steps
        if isinstance(step.base, Whole)
        and step.part.size
        and chain_of(plan.reused, step.base.digest)[-1].base is None
    ]


@dataclass(frozen=True, slots=True)
class _Slice:
    step: CodeStep
    base: str
    window: int
    window_size: int
    begin: int
    """Within the window."""
    size: int


def _slices(steps: list[tuple[CodeStep, str]], window_bytes: int) -> list[_Slice]:
    """Slices spread over the bytes of all steps, until the windows that they lie in are enough."""
    ends = list(accumulate(step.part.size for step, _ in steps))
    enough = max(_FEWEST_BYTES, min(_MOST_BYTES, ends[-1] // 4))
    found: dict[tuple[int, int, int], _Slice] = {}
    for number in range(_MOST_SLICES):
        at = (number * _GOLDEN % (1 << 64)) * ends[-1] >> 64
        place = bisect_right(ends, at)
        step, base = steps[place]
        window, inside = divmod(at - (ends[place] - step.part.size), window_bytes)
        window_size = min(window_bytes, step.part.size - window * window_bytes)
        begin = inside // _SLICE_BYTES * _SLICE_BYTES
        size = min(_SLICE_BYTES, window_size - begin)
        found[place, window, begin] = _Slice(step, base, window, window_size, begin, size)
        if len(found) >= _FEWEST_SLICES and sum(one.window_size for one in found.values()) >= enough:
            break
    return list(found.values())


def sample_sizes(
    store: ObjectStore,
    plan: PushPlan,
    held: Mapping[str, Held],
    window_bytes: int,
    options: TransferOptions,
) -> SampledSizes | None:
    """What the plan's steps with a base will take; None if there are none.

    A base is read where `held` has it, else from the repository: some 400 MB of windows and their chains, as many at
    a time as the memory budget has room for. Raises CorruptDataError and its kinds for bases that cannot be decoded.
    """
    steps = based_steps(plan)
    if not steps:
        return None
    work = _Sampling(store, plan.reused, held, window_bytes)
    slices = _slices(steps, window_bytes)
    budget_bytes = max(options.memory_budget_bytes, *map(work.cost, slices))
    with work.files:
        pairs = list(
            run_in_order(
                work.measure,
                slices,
                workers=min(options.thread_count, len(slices)),
                cost=work.cost,
                budget_bytes=budget_bytes,
            )
        )
    total, seen = sum(step.part.size for step, _ in steps), sum(one.size for one in slices)
    # In integers, rounded up: the same on every machine.
    whole, delta = (-(-sum(sizes) * total // seen) for sizes in zip(*pairs, strict=True))
    return SampledSizes(total, whole, delta)


class _Sampling:
    def __init__(
        self,
        store: ObjectStore,
        reused: Mapping[str, Content],
        held: Mapping[str, Held],
        window_bytes: int,
    ) -> None:
        self.files = OpenFiles()
        self._store = store
        self._reused = reused
        self._held = held
        self._window_bytes = window_bytes
        self._windows = BufferPool(window_bytes)
        self._slices = BufferPool(_SLICE_BYTES)
        self._coded = BufferPool(codec.encode_bound(_SLICE_BYTES))

    def _chain(self, one: _Slice) -> list[Content]:
        return [] if one.base in self._held else chain_of(self._reused, one.base)[::-1]

    def _extents(self, one: _Slice) -> list[Extent]:
        return [link.extents[one.window] for link in self._chain(one)]

    def cost(self, one: _Slice) -> int:
        """Bytes in use while a slice is measured."""
        fetched = sum(extent.length for extent in self._extents(one))
        return one.window_size + 3 * _SLICE_BYTES + fetched

    def measure(self, one: _Slice) -> tuple[int, int]:
        """Bytes of the slice when coded by itself, and against its base."""
        with (
            self._windows.borrow() as window,
            self._slices.borrow() as buffer,
            self._coded.borrow() as out,
        ):
            base = self._base(one, window[: one.window_size])
            target = buffer[: one.size]
            first = one.window * self._window_bytes + one.begin
            self.files.read(one.step.location, target, one.step.part.offset + first)
            dtype = one.step.part.coded_as
            whole = codec.encode_into(target, out, None, dtype=dtype, threads=1)
            return whole, codec.encode_into(target, out, base, dtype=dtype, threads=1)

    def _base(self, one: _Slice, window: memoryview) -> memoryview:
        """The base's bytes for the slice."""
        wanted = window[one.begin : one.begin + one.size]
        held = self._held.get(one.base)
        if held is not None:
            first = one.window * self._window_bytes + one.begin
            self.files.read(held.location, wanted, held.offset + first)
            return wanted
        fetched = fetch_extents(self._store, self._extents(one))
        decode_window(self._store, self._chain(one), one.window, fetched, window, threads=1)
        return wanted
