"""Which new contents coding would not make smaller: these are stored as they are, and nobody codes or decodes them.

What is compressed already (images, archives, most packed numbers) takes a processor's time and gives nothing back. A
few slices of each content tell; of small ones a few slices of all that lie in one file. Where the slices lie follows
from the plan alone, so a push that is repeated decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from textnlp_fast.contents.windows import BufferPool, OpenFiles
from textnlp_fast.delta import codec
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.planning import CodeStep
from textnlp_fast.telemetry import adopting

__all__ = ["LEAST_SAVING", "plain_contents"]

#: Of a content's bytes: what coding saves less of is not worth coding.
LEAST_SAVING: Final = 0.01
# Below this much, looking takes as long as coding.
_LEAST_BYTES: Final = 1 << 20
_SLICE_BYTES: Final = 64 << 10
_SLICES: Final = 4
# Small contents tell less each, and there may be very many.
_SLICES_OF_SMALL: Final = 16


@dataclass(frozen=True, slots=True)
class _Slice:
    step: CodeStep
    begin: int
    size: int


def plain_contents(
    steps: Sequence[CodeStep], options: TransferOptions, *, existing: Manifest | None = None
) -> frozenset[str]:
    """Digests of the steps' contents that are to be stored as they are.

    `existing` is the version that is pushed again, if one is: its objects come out the same only if it is stored as it
    was.
    """
    if not options.compression:
        return frozenset(step.part.digest for step in steps)
    if existing is not None:
        stored = existing.contents
        return frozenset(
            step.part.digest
            for step in steps
            if step.part.digest in stored and stored[step.part.digest].codec == "raw"
        )
    groups = _groups(steps)
    with OpenFiles() as files, ThreadPoolExecutor(options.thread_count, initializer=adopting()) as pool:
        look = _Look(files)
        found = pool.map(look.is_plain, groups.values())
        return frozenset(
            step.part.digest
            for members, plain in zip(groups.values(), found, strict=True)
            if plain
            for step in members
        )


def _groups(steps: Sequence[CodeStep]) -> Mapping[object, list[CodeStep]]:
    """What is decided together. Contents with a base are not asked about: against it they may well be small."""
    groups: dict[object, list[CodeStep]] = {}
    for step in steps:
        if step.base is not None or not step.part.size:
            continue
        large = step.part.size >= _LEAST_BYTES
        key = step.part.digest if large else (step.location, step.part.coded_as)
        groups.setdefault(key, []).append(step)
    return {
        key: members
        for key, members in groups.items()
        if sum(step.part.size for step in members) >= _LEAST_BYTES
    }


class _Look:
    def __init__(self, files: OpenFiles) -> None:
        self._files = files
        self._read = BufferPool(_SLICE_BYTES)
        self._coded = BufferPool(codec.encode_bound(_SLICE_BYTES))

    def is_plain(self, members: Sequence[CodeStep]) -> bool:
        seen = coded = 0
        for one in _slices(members):
            with self._read.borrow() as buffer, self._coded.borrow() as out:
                target = buffer[: one.size]
                self._files.read(one.step.location, target, one.step.part.offset + one.begin)
                coded += codec.encode_into(target, out, None, dtype=one.step.part.coded_as, threads=1)
                seen += one.size
        return coded > (1 - LEAST_SAVING) * seen


def _slices(members: Sequence[CodeStep]) -> list[_Slice]:
    if len(members) == 1:
        step = members[0]
        # Begins and ends of tensors are as odd as anything else: evenly from the first slice to the last.
        room = step.part.size - _SLICE_BYTES
        begins = [room * number // (_SLICES - 1) // 64 * 64 for number in range(_SLICES)]
        return [_Slice(step, begin, _SLICE_BYTES) for begin in begins]
    count = min(_SLICES_OF_SMALL, len(members))
    chosen = [members[len(members) * number // count] for number in range(count)]
    return [_Slice(step, 0, min(_SLICE_BYTES, step.part.size)) for step in chosen]
