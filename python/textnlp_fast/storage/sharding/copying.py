"""Moves bytes between files: by the kernel where they stay as they are, through a bounded window where rows are cut.

Ranges are copied with `copy_file_range`: they do not pass through this process, and file systems that share extents
move nothing at all. Holes stay holes. Columns of tables (a rank's part of a row-parallel matrix) pass through windows
of rows: each source window is read once for all ranks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from textnlp_fast.contents.windows import BufferPool, run_in_order, write_exactly
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.sharding.descriptors import Descriptors
from textnlp_fast.storage.sharding.moves import Move
from textnlp_fast.tensors import read_into

__all__ = ["WINDOW_BYTES", "Copier", "weaves_and_ranges"]

WINDOW_BYTES: Final = 8 << 20
# Runs of this many bytes are worth a system call each.
_LONG_RUN_BYTES: Final = 128 << 10
_STEP_BYTES: Final = 64 << 20
# What a kernel or a file system says that cannot copy between two files by itself.
_NO_COPY: Final = {
    errno.EXDEV,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
}


@dataclass(frozen=True, slots=True)
class _Range:
    source: int
    begin: int
    target: int
    out: int
    size: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows `first` to `last` of a tensor's tables: moves by the number of the file they go to."""

    moves: tuple[tuple[int, Move], ...]
    first: int
    last: int

    @property
    def size(self) -> int:
        return (self.last - self.first) * sum(move.run for _, move in self.moves)


Unit = _Range | _Rows


def weaves_and_ranges(moves: Sequence[tuple[int, Move]]) -> Iterator[Unit]:
    """The units of work for moves (each with the number of the file that it goes to).

    Moves out of the same tables, or into the same, go together row by row.
    """
    tables: dict[tuple[int, int], list[tuple[int, Move]]] = {}
    kin: dict[tuple[str, int, int], tuple[int, int]] = {}
    for target, move in moves:
        if move.rows == 1 or move.run >= _LONG_RUN_BYTES or not _fits([(target, move)]):
            for row in range(move.rows):
                begin = move.base + move.at + row * move.stride
                out = move.out_base + move.out_at + row * move.out_stride
                for done in range(0, move.run, _STEP_BYTES):
                    size = min(_STEP_BYTES, move.run - done)
                    yield _Range(move.source, begin + done, target, out + done, size)
            continue
        source_key, target_key = ("source", move.source, move.base), ("target", target, move.out_base)
        first = kin.get(source_key) or kin.get(target_key) or (target, move.out_base)
        kin[source_key] = kin[target_key] = first
        tables.setdefault(first, []).append((target, move))
    for together in tables.values():
        for family in _families(together):
            rows = family[0][1].rows
            step = max(1, WINDOW_BYTES // _row_bytes(family))
            for first_row in range(0, rows, step):
                yield _Rows(tuple(family), first_row, min(first_row + step, rows))


def _families(moves: list[tuple[int, Move]]) -> Iterator[list[tuple[int, Move]]]:
    """Moves that share windows, as many of them as windows have room for."""
    family: list[tuple[int, Move]] = []
    for each in moves:
        if family and (family[0][1].rows != each[1].rows or not _fits([*family, each])):
            yield family
            family = []
        family.append(each)
    yield family


def _fits(moves: Sequence[tuple[int, Move]]) -> bool:
    return _row_bytes(moves) <= WINDOW_BYTES


def _row_bytes(moves: Sequence[tuple[int, Move]]) -> int:
    sources = {(move.source, move.base): move.stride for _, move in moves}
    targets = {(target, move.out_base): move.out_stride for target, move in moves}
    return max(sum(sources.values()), sum(targets.values()))


class Copier:
    """Copies between files, given by their numbers. Memory is two windows a thread."""

    def __init__(
        self,
        sources: Descriptors,
        targets: Descriptors,
        *,
        threads: int,
        done: Callable[[int], None] | None = None,
    ) -> None:
        self._sources = sources
        self._targets = targets
        self._threads = threads
        self._done = done
        self._buffers = BufferPool(WINDOW_BYTES)
        self._by_kernel = hasattr(os, "copy_file_range")
        self.windowed_bytes = 0

    def run(self, units: Iterable[Unit]) -> None:
        """Copies all; raises the first error."""
        for size, windowed in run_in_order(
            self._copy,
            units,
            workers=self._threads,
            cost=lambda unit: 2 * WINDOW_BYTES,
            budget_bytes=2 * WINDOW_BYTES * self._threads,
        ):
            self.windowed_bytes += windowed
            if self._done is not None:
                self._done(size)

    def _copy(self, unit: Unit) -> tuple[int, int]:
        if isinstance(unit, _Range):
            return unit.size, self._copy_range(unit)
        self._copy_rows(unit)
        return unit.size, unit.size

    def _copy_range(self, unit: _Range) -> int:
        """Copies what of the range is no hole; bytes that passed through this process."""
        windowed = 0
        with self._sources.use(unit.source) as source, self._targets.use(unit.target) as target:
            for begin, end in _data(source, unit.begin, unit.begin + unit.size):
                position = begin
                while position < end:
                    out = unit.out + position - unit.begin
                    count = self._by_kernel_range(source, target, position, out, end - position)
                    if count == 0:
                        count = self._by_window(source, target, position, out, end - position)
                        windowed += count
                    position += count
        return windowed

    def _by_kernel_range(self, source: int, target: int, begin: int, out: int, size: int) -> int:
        """Bytes that the kernel copied; 0 if it cannot."""
        if not self._by_kernel:
            return 0
        try:
            return os.copy_file_range(source, target, size, begin, out)
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise
            self._by_kernel = False
            return 0

    def _by_window(self, source: int, target: int, begin: int, out: int, size: int) -> int:
        with self._buffers.borrow() as buffer:
            view = buffer[: min(size, WINDOW_BYTES)]
            read_into(source, begin, view)
            write_exactly(target, view, out)
            return len(view)

    def _copy_rows(self, unit: _Rows) -> None:
        rows = unit.last - unit.first
        if not any(self._has_data(move, unit) for _, move in unit.moves):
            return
        with self._buffers.borrow() as read, self._buffers.borrow() as written:
            tables: dict[tuple[int, int], np.ndarray[tuple[int, int], np.dtype[np.uint8]]] = {}
            position = 0
            for _, move in unit.moves:
                if (move.source, move.base) in tables:
                    continue
                size = rows * move.stride
                view = read[position : position + size]
                with self._sources.use(move.source) as source:
                    read_into(source, move.base + unit.first * move.stride, view)
                tables[move.source, move.base] = np.frombuffer(view, np.uint8).reshape(rows, move.stride)
                position += size
            results: dict[tuple[int, int], list[Move]] = {}
            for target, move in unit.moves:
                results.setdefault((target, move.out_base), []).append(move)
            for (target, out_base), moves in results.items():
                self._write_rows(unit, target, out_base, moves, tables, written)

    def _has_data(self, move: Move, unit: _Rows) -> bool:
        begin, end = (move.base + row * move.stride for row in (unit.first, unit.last))
        with self._sources.use(move.source) as source:
            return any(True for _ in _data(source, begin, end))

    def _write_rows(
        self,
        unit: _Rows,
        target: int,
        out_base: int,
        moves: Sequence[Move],
        tables: Mapping[tuple[int, int], np.ndarray[tuple[int, int], np.dtype[np.uint8]]],
        buffer: memoryview,
    ) -> None:
        rows, stride = unit.last - unit.first, moves[0].out_stride
        view = buffer[: rows * stride]
        table = np.frombuffer(view, np.uint8).reshape(rows, stride)
        for move in moves:
            columns = tables[move.source, move.base][:, move.at : move.at + move.run]
            table[:, move.out_at : move.out_at + move.run] = columns
        first = out_base + unit.first * stride
        with self._targets.use(target) as descriptor:
            if sum(move.run for move in moves) == stride:
                write_exactly(descriptor, view, first)
                return
            # Other columns of the table come by other ways: leave them alone.
            for row in range(rows):
                for move in moves:
                    begin = row * stride + move.out_at
                    write_exactly(descriptor, view[begin : begin + move.run], first + begin)


def _data(descriptor: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges within [begin, end) that are no holes; all of it where the file system does not tell."""
    position = begin
    while position < end:
        try:
            low = os.lseek(descriptor, position, os.SEEK_DATA)
            high = os.lseek(descriptor, low, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the file's end
                if os.fstat(descriptor).st_size < end:
                    raise InvalidInputError(
                        f"the file ended at byte {os.fstat(descriptor).st_size}; {end} were expected",
                        hint="It changed while it was read: leave it alone until the command is done, and repeat it.",
                    ) from None
                return
            yield position, end
            return
        if low >= end:
            return
        yield low, min(high, end)
        position = high
