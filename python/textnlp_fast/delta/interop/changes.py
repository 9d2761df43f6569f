"""What a foreign delta does to a tensor, applied window by window in the order of its bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from textnlp_fast.contents.windows import OpenFiles, write_exactly
from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.tensors import DTYPE_BITS, ModelFiles, SafetensorsFile, TensorInfo, read_into

__all__ = [
    "WINDOW_BYTES",
    "Change",
    "FileRange",
    "Place",
    "Scatter",
    "apply_changes",
    "element_bytes",
    "tensor_places",
]

Bytes = npt.NDArray[np.uint8]

# A multiple of every element's size.
WINDOW_BYTES: Final = 4 << 20
_BATCH: Final = 1 << 18


class Change(Protocol):
    """What happens to one tensor."""

    def edit(self, window: Bytes, begin: int) -> None:
        """Changes the bytes of the tensor from byte `begin`; windows come in order, without gaps."""
        ...

    def finish(self) -> None:
        """Called behind the last window. Raises CorruptDataError if the change did not come out."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor and the file that it is in."""

    file: SafetensorsFile
    tensor: TensorInfo


class FileRange:
    """Reads `size` bytes of a file from `offset`, once, from front to back."""

    def __init__(self, files: OpenFiles, location: Path, offset: int, size: int) -> None:
        self._files, self._location = files, str(location)
        self._next, self._end = offset, offset + size

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, all that are left if -1; empty at the end."""
        left = self._end - self._next
        data = bytearray(left if size < 0 else min(size, left))
        self._files.read(self._location, memoryview(data), self._next)
        self._next += len(data)
        return bytes(data)


class Scatter:
    """New values for the elements at `count` positions, which must rise.

    `positions(n)` gives the next n of them, uint64; `values(n)` the next n bytes of values; an element has
    `item_bytes`. `what` names the tensor in errors.
    """

    def __init__(
        self,
        what: str,
        count: int,
        item_bytes: int,
        positions: Callable[[int], npt.NDArray[np.uint64]],
        values: Callable[[int], bytes],
    ) -> None:
        self._what, self._left, self._item = what, count, item_bytes
        self._read_positions, self._read_values = positions, values
        self._positions = np.empty(0, np.uint64)
        self._values: Bytes = np.empty((0, item_bytes), np.uint8)
        self._last = -1

    def edit(self, window: Bytes, begin: int) -> None:
        """Writes the values whose positions lie in the window."""
        elements = window.reshape(-1, self._item)
        first = begin // self._item
        end = first + len(elements)
        while self._fill():
            here = int(np.searchsorted(self._positions, np.uint64(end)))
            elements[(self._positions[:here] - np.uint64(first)).astype(np.intp)] = self._values[:here]
            self._positions, self._values = self._positions[here:], self._values[here:]
            if len(self._positions):
                return

    def finish(self) -> None:
        """Raises CorruptDataError if positions are left: they are behind the tensor's end."""
        if self._fill():
            raise CorruptDataError(f"position {int(self._positions[0])} is outside of {self._what}")

    def _fill(self) -> bool:
        """Whether there is a position left, read from the delta if none is at hand."""
        if not len(self._positions) and self._left:
            count = min(self._left, _BATCH)
            found = self._read_positions(count)
            if int(found[0]) <= self._last or bool(np.any(found[1:] <= found[:-1])):
                raise CorruptDataError(
                    f"the positions in {self._what} do not rise: one is there twice, or they are not sorted"
                )
            self._last = int(found[-1])
            self._positions = found
            data = np.frombuffer(self._read_values(count * self._item), np.uint8)
            self._values = data.reshape(-1, self._item)
            self._left -= count
        return bool(len(self._positions))


def element_bytes(tensor: TensorInfo) -> int:
    """Bytes of one element. Raises InvalidInputError for types smaller than a byte."""
    bits = DTYPE_BITS[tensor.dtype]
    if bits % 8:
        raise InvalidInputError(
            f"tensor {tensor.name!r} is {tensor.dtype}: its elements have no bytes of their own",
            hint="Use a layout that speaks of bytes (slime), or `textnlp-fast delta create`.",
        )
    return bits // 8


def tensor_places(model: ModelFiles) -> dict[str, Place]:
    """Every tensor of a model by its name. Raises InvalidInputError if two files have a tensor of one name."""
    places: dict[str, Place] = {}
    for file in model.safetensors:
        for tensor in file.tensors:
            if tensor.name in places:
                raise InvalidInputError(
                    f"{places[tensor.name].file.name} and {file.name} both have a tensor {tensor.name!r}",
                    hint="Foreign deltas know tensors by their names alone: remove the file that is not in use.",
                )
            places[tensor.name] = Place(file, tensor)
    return places


def apply_changes(root: Path, changes: Iterable[tuple[Place, Change]]) -> None:
    """Edits the files of a model at `root`, a copy of the one that the places are in. Memory: a few windows."""
    with ExitStack() as stack:
        opened: dict[str, int] = {}
        for place, change in changes:
            descriptor = opened.get(place.file.name)
            if descriptor is None:
                descriptor = os.open(root / place.file.name, os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                opened[place.file.name] = descriptor
            _apply(descriptor, place.tensor, change)


def _apply(descriptor: int, tensor: TensorInfo, change: Change) -> None:
    for begin in range(0, tensor.size_bytes, WINDOW_BYTES):
        window = bytearray(min(WINDOW_BYTES, tensor.size_bytes - begin))
        with memoryview(window) as view:
            read_into(descriptor, tensor.begin + begin, view)
            change.edit(np.frombuffer(window, np.uint8), begin)
            write_exactly(descriptor, view, tensor.begin + begin)
    change.finish()
