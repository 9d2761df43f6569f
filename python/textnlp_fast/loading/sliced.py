"""Tensors in memory that are parts of a checkpoint's: slices of tensor-parallel ranks, and several fused into one.

A slice has no digest of its own that anybody wrote down. So the whole tensors pass by window by window, old beside new,
both are hashed, and the slice is compared with the old one before it is overwritten with its part of the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from textnlp_fast.contents.windows import DATA_ERRORS, BufferPool, with_context
from textnlp_fast.delta.making import Maker
from textnlp_fast.errors import CorruptDataError, DigestMismatchError, InvalidInputError, WrongBaseError
from textnlp_fast.hashing import Blake3
from textnlp_fast.loading.memory import Bytes
from textnlp_fast.loading.resident import Resident
from textnlp_fast.loading.undo import Journal
from textnlp_fast.loading.updates import Kind, Update, some
from textnlp_fast.loading.workers import Workers
from textnlp_fast.tensors.slices import Cut, Slice, cut_of

__all__ = ["SLICED_BUFFERS", "Layout", "Part", "SlicedOverwrite", "SlicedTarget", "find_sliced"]


# Of a window: old and new bytes, the coded window, what memory has, its part, and the journal's two.
SLICED_BUFFERS: Final = 7


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the checkpoint, or ``slice`` of it."""

    tensor: str
    slice: Slice | None = None


Layout = Mapping[str, Sequence[Part]]
"""By the name of a tensor in memory, the parts whose bytes follow each other in it: fused along their first axis."""


@dataclass(frozen=True, slots=True)
class PartTarget:
    """``cut`` says which bytes of the tensor are the part; they begin at ``offset`` of the tensor in memory."""

    tensor: str
    cut: Cut
    offset: int
    size: int
    before: str
    after: str
    dtype: str


@dataclass(frozen=True, slots=True)
class SlicedTarget:
    """A tensor in memory and what it is made of."""

    resident: Resident
    parts: tuple[PartTarget, ...]

    @property
    def changing(self) -> list[PartTarget]:
        return [part for part in self.parts if part.before != part.after]


def find_sliced(update: Update, residents: Sequence[Resident], layout: Layout) -> list[SlicedTarget]:
    """The tensors of ``residents`` that the layout speaks of.

    Raises InvalidInputError where the two do not fit: no such tensor, other sizes, shapes that change.
    """
    if not layout:
        return []
    known = {name: resident for resident in residents for name in resident.names}
    missing = sorted(layout.keys() - known.keys())
    if missing:
        raise InvalidInputError(
            f"the layout speaks of {missing[0]!r}, which is not in memory",
            hint="Its keys are the names of the tensors in memory; its parts name those of the checkpoint.",
        )
    if update.old is None:
        raise InvalidInputError(
            "slices are checked against the version that they were cut from",
            hint="Pass from_version=, the version that is loaded.",
        )
    kinds = update.kinds()
    targets: dict[int, SlicedTarget] = {}
    for name, parts in layout.items():
        resident = known[name]
        if _is_left_to_its_twin(resident, name, layout, update):
            continue
        found = _parts(update, kinds, name, parts, resident.size)
        twin = targets.setdefault(id(resident), SlicedTarget(resident, found))
        if [_what(part) for part in twin.parts] != [_what(part) for part in found]:
            raise InvalidInputError(
                f"tensors {some(resident.names)} share their memory; the new weights give them different bytes",
                hint="Untie them in the model, or make a version in which they are the same.",
            )
    return list(targets.values())


def _is_left_to_its_twin(resident: Resident, name: str, layout: Layout, update: Update) -> bool:
    """Whether this is the name of tied weights that the checkpoint does not use: the output layer's, mostly."""

    def is_known(each: str) -> bool:
        return all(part.tensor in update.new for part in layout.get(each, ()))

    return not is_known(name) and any(is_known(each) for each in resident.names if each in layout)


def _parts(
    update: Update,
    kinds: Mapping[str, tuple[Kind, Kind]],
    name: str,
    parts: Sequence[Part],
    size_bytes: int,
) -> tuple[PartTarget, ...]:
    """Where the parts of the tensor ``name`` are, which has ``size_bytes`` in memory."""
    old = update.old or {}
    found = []
    begin = 0
    for part in parts:
        for side, names in (("new weights", update.new), ("old weights", old), ("headers", kinds)):
            if part.tensor not in names:
                raise InvalidInputError(f"the {side} have no tensor {part.tensor!r}, a part of {name!r}")
        before, after = kinds[part.tensor]
        if before != after:
            raise InvalidInputError(
                f"tensor {part.tensor!r} is {before[0]} {list(before[1])} and becomes {after[0]} {list(after[1])}",
                hint="Load the new version with the model's own loader.",
            )
        cut = cut_of(part.tensor, after[1], after[0], part.slice)
        digest = update.new[part.tensor]
        size = update.size_of(digest)
        found.append(
            PartTarget(part.tensor, cut, begin, size, old[part.tensor], digest, update.dtype_of(digest))
        )
        begin += cut.size_bytes
    if begin != size_bytes:
        raise InvalidInputError(
            f"tensor {name!r} has {size_bytes} bytes in memory; its parts have {begin}",
            hint="Keep the weights in the type of the checkpoint, and name all parts in their order.",
        )
    return tuple(found)


def _what(part: PartTarget) -> tuple[Cut, int, str, str]:
    """All but the tensor's name."""
    return part.cut, part.offset, part.before, part.after


class SlicedOverwrite:
    """Overwrites parts; what is over, the journal can take back. `step` hears of the bytes, and may end it."""

    def __init__(
        self,
        targets: Sequence[SlicedTarget],
        maker: Maker,
        journal: Journal,
        *,
        window_bytes: int,
        workers: Workers,
        step: Callable[[int], None],
    ) -> None:
        self._targets = targets
        self._maker = maker
        self._journal = journal
        self._window = window_bytes
        self._workers = workers
        self._step = step
        self._buffers = BufferPool(window_bytes)

    def run(self) -> None:
        """Raises WrongBaseError for a slice that is not of the old tensor, CorruptDataError for tensors that are not
        what their digests say; what was written by then is to be taken back."""
        self._workers.run(self._overwrite, [t for t in self._targets if t.changing])

    def _overwrite(self, target: SlicedTarget) -> None:
        for part in target.changing:
            try:
                self._overwrite_part(target.resident, part)
            except DATA_ERRORS as error:
                self._check_old(part)  # frames do not decode against what they were not coded against
                raise with_context(error, f"tensor {target.resident.name!r}") from error

    def _overwrite_part(self, resident: Resident, part: PartTarget) -> None:
        old_hash, new_hash = Blake3(), Blake3()
        with (
            self._buffers.borrow() as first,
            self._buffers.borrow() as second,
            self._buffers.borrow() as third,
        ):
            for begin in range(0, part.size, self._window):
                self._step(0)
                count = min(self._window, part.size - begin)
                old, new = first[:count], second[:count]
                self._maker.read_into(part.before, begin, old)
                self._maker.read_into(part.after, begin, new)
                old_hash.update(old, threads=1)
                new_hash.update(new, threads=1)
                if old != new:
                    self._overwrite_window(resident, part, begin, old, new, third)
                self._step(_taken(part.cut, begin, old)[1])
        if old_hash.hexdigest() != part.before:
            raise _not_the_source(part)
        if new_hash.hexdigest() != part.after:
            raise DigestMismatchError(f"tensor {part.tensor!r} did not come out as it should")

    def _check_old(self, part: PartTarget) -> None:
        found = Blake3()
        with self._buffers.borrow() as buffer:
            for begin in range(0, part.size, self._window):
                old = buffer[: min(self._window, part.size - begin)]
                self._maker.read_into(part.before, begin, old)
                found.update(old, threads=1)
        if found.hexdigest() != part.before:
            raise _not_the_source(part)

    def _overwrite_window(
        self,
        resident: Resident,
        part: PartTarget,
        begin: int,
        old: memoryview,
        new: memoryview,
        room: memoryview,
    ) -> None:
        at, size = _taken(part.cut, begin, old)
        if not size:
            return
        place = resident.memory.window(part.offset + at, part.offset + at + size)
        found = np.frombuffer(room, np.uint8)[:size]
        wanted = np.empty(size, np.uint8)
        place.read(room[:size])
        _gather(part.cut, begin, old, at, wanted)
        if not np.array_equal(found, wanted):
            raise WrongBaseError(
                f"tensor {resident.name!r} in memory is not its part of {part.tensor!r} as the update starts from it",
                hint="Load the version that the update starts from, and check the layout.",
            )
        _gather(part.cut, begin, new, at, wanted)
        self._journal.write(place, wanted.data, part.dtype)
        place.read(room[:size])
        if not np.array_equal(found, wanted):
            raise CorruptDataError(f"tensor {resident.name!r} does not keep what is written to it")


def _not_the_source(part: PartTarget) -> WrongBaseError:
    return WrongBaseError(
        f"what was taken for the old tensor {part.tensor!r} is another",
        hint="source= is not the version that is loaded.",
    )


def _taken(cut: Cut, begin: int, window: memoryview) -> tuple[int, int]:
    """Where the bytes of a window that belong to the part begin in it, and how many these are: they lie together."""
    pieces = [(at, view.size) for at, view in cut.within(begin, np.frombuffer(window, np.uint8))]
    return (pieces[0][0], sum(size for _, size in pieces)) if pieces else (0, 0)


def _gather(cut: Cut, begin: int, window: memoryview, at: int, out: Bytes) -> None:
    for place, view in cut.within(begin, np.frombuffer(window, np.uint8)):
        out[place - at : place - at + view.size].reshape(view.shape)[:] = view
