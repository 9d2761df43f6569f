"""Tensors out of safetensors files: which bytes are read together, and where they go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from textnlp_fast.contents.windows import run_in_order
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.block_reading import ALIGNMENT_BYTES, BlockFiles
from textnlp_fast.loading.places import Bytes, Place
from textnlp_fast.loading.ring import Deadline, StagingRing
from textnlp_fast.tensors import SafetensorsFile, TensorInfo

__all__ = ["Part", "Read", "plan_reads", "read_tensors"]

# Bytes that nobody wants are read along where skipping them would cost a request of its own.
_GAP_BYTES: Final = 64 << 10
_MOST_PARTS: Final = 1000  # a call takes 1024 buffers
_MOST_WORKERS: Final = 16


@dataclass(frozen=True, slots=True)
class Part:
    """What a place takes of a read: the tensor's bytes from ``offset`` on are those from ``begin`` to ``end`` of it."""

    place: Place
    offset: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Read:
    """``size`` bytes at ``begin`` of a file."""

    path: str
    begin: int
    size: int
    parts: tuple[Part, ...]


def plan_reads(
    path: str, tensors: Sequence[tuple[TensorInfo, Place]], block_bytes: int, *, gap_bytes: int = _GAP_BYTES
) -> list[Read]:
    """Reads of at most ``block_bytes`` that have all the bytes wanted of one file, in the order of the file.

    Neighbours share a read, and what lies between them is read along if it is at most ``gap_bytes``.
    """
    reads: list[Read] = []
    ordered = sorted(tensors, key=lambda tensor: tensor[0].begin)
    for info, place in ordered:
        for begin, size in _stretches(place, block_bytes, gap_bytes):
            start = info.begin + begin
            last = reads[-1] if reads else None
            if last is not None and len(last.parts) < _MOST_PARTS:
                gap = start - last.begin - last.size
                if 0 <= gap <= gap_bytes and start + size - last.begin <= block_bytes:
                    part = Part(place, begin, start - last.begin, start - last.begin + size)
                    reads[-1] = Read(path, last.begin, part.end, (*last.parts, part))
                    continue
            reads.append(Read(path, start, size, (Part(place, begin, 0, size),)))
    return reads


def _stretches(place: Place, block_bytes: int, gap_bytes: int) -> Iterator[tuple[int, int]]:
    """Stretches of the tensor (begin, bytes) that hold the part which is wanted: whole runs, or pieces of long ones."""
    cut = place.wanted.cut
    if not cut.size_bytes:
        return
    if cut.count == 1 or cut.run_bytes >= block_bytes or cut.stride_bytes - cut.run_bytes > gap_bytes:
        for run in cut.runs():
            for done in range(0, run.size, block_bytes):
                yield run.begin + done, min(block_bytes, run.size - done)
        return
    together = max(1, 1 + (block_bytes - cut.run_bytes) // cut.stride_bytes)
    for number in range(0, cut.count, together):
        count = min(together, cut.count - number)
        yield cut.begin + number * cut.stride_bytes, (count - 1) * cut.stride_bytes + cut.run_bytes


def read_tensors(
    wanted: Sequence[tuple[SafetensorsFile, TensorInfo, Place]],
    ring: StagingRing,
    *,
    threads: int,
    deadline: Deadline,
    done: Callable[[int], None],
) -> None:
    """Reads every tensor to its place; ``done`` hears of bytes.

    Raises InvalidInputError if a file cannot be read or ended early, and what the deadline raises.
    """
    by_file: dict[str, list[tuple[TensorInfo, Place]]] = {}
    for file, info, place in wanted:
        by_file.setdefault(str(file.path), []).append((info, place))
    # Of a slot for a device one half is read into, and in the other runs are pushed together.
    room = ring.slot_bytes if ring.device is None else ring.slot_bytes // 2
    block_bytes = max(1, room - 2 * ALIGNMENT_BYTES)
    reads = [read for path, each in by_file.items() for read in plan_reads(path, each, block_bytes)]
    with BlockFiles() as files:

        def work(read: Read) -> int:
            deadline.check()
            try:
                if not _read_in_place(files, read):
                    _read_by_ring(files, read, ring, room, deadline)
            except OSError as error:
                raise InvalidInputError(f"{read.path} cannot be read: {error.strerror or error}") from error
            return read.size

        # While some wait for the disk, others touch fresh memory for the first time.
        workers = min(_MOST_WORKERS, 4 * threads)
        for size in run_in_order(work, reads, workers=workers, cost=lambda read: 1, budget_bytes=2 * workers):
            deadline.check()
            done(size)


def _read_in_place(files: BlockFiles, read: Read) -> bool:
    """Copies straight to where the bytes are wanted, if they are in the page cache and all wanted in host memory."""
    views: list[memoryview] = []
    end = 0
    for part in read.parts:
        place, cut = part.place, part.place.wanted.cut
        size = part.end - part.begin
        number, inside = divmod(part.offset - cut.begin, cut.stride_bytes)
        if place.host is None or part.begin != end or inside + size > cut.run_bytes:
            return False
        out = number * cut.run_bytes + inside
        views.append(place.host[out : out + size].data)
        end = part.end
    return files.read_cached(read.path, views, read.begin)


def _read_by_ring(files: BlockFiles, read: Read, ring: StagingRing, room: int, deadline: Deadline) -> None:
    slot = ring.take(deadline)
    copies: list[tuple[int, int, object, int]] = []
    try:
        begin = files.read_block(read.path, slot.view[:room], read.begin, read.size)
        data = np.frombuffer(slot.view, np.uint8)
        packed = room  # where runs are pushed together
        for part in read.parts:
            place, cut = part.place, part.place.wanted.cut
            for out, view in cut.within(part.offset, data[begin + part.begin : begin + part.end]):
                if place.host is not None:
                    place.host[out : out + view.size].reshape(view.shape)[:] = view
                elif len(view) == 1:
                    copies.append((_offset_in(data, view), view.size, place.span, out))
                else:
                    data[packed : packed + view.size].reshape(view.shape)[:] = view
                    copies.append((packed, view.size, place.span, out))
                    packed += view.size
    except BaseException:
        ring.give_back(slot)
        raise
    if copies:
        ring.scatter(slot, copies)
    else:
        ring.give_back(slot)


def _offset_in(data: Bytes, view: Bytes) -> int:
    return int(view.ctypes.data - data.ctypes.data)
