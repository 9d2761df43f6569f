"""The layout `sparse`: one safetensors file with flat positions and new values of each tensor that changed.

As TRL's delta weight sync has published it, and PULSE's grail in its unpacked form (docs/guide/interop.md):
`NAME.indices` and `NAME.values`, or `NAME.idx` and `NAME.val`, whose positions may be coded as gaps. Nothing in it
says which version it builds on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.interop.changes import Change, FileRange, Place, Scatter, element_bytes
from textnlp_fast.delta.interop.spool import Spool
from textnlp_fast.delta.interop.updates import Update
from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError
from textnlp_fast.tensors import SafetensorsFile, TensorInfo

__all__ = ["FILE_NAME", "changes", "write"]

FILE_NAME: Final = "delta_sparse.safetensors"
_PAIRS: Final = ((".indices", ".values"), (".idx", ".val"))
_ABSOLUTE: Final[Mapping[str, np.dtype[np.integer]]] = {"I32": np.dtype("<i4"), "I64": np.dtype("<i8")}
_GAPS: Final[Mapping[str, np.dtype[np.integer]]] = {"U16": np.dtype("<u2"), "U32": np.dtype("<u4")}
_ENCODINGS: Final[Mapping[str, Mapping[str, np.dtype[np.integer]]]] = {"raw": _ABSOLUTE, "gap_delta": _GAPS}
_MOST_I32: Final = 2**31


# --- reading -----------------------------------------------------------------------------------------------


def changes(path: Path, places: Mapping[str, Place], files: OpenFiles) -> Iterator[tuple[Place, Change]]:
    """What the delta at `path`, a file or a directory with `FILE_NAME`, does to the tensors at `places`.

    Raises InvalidInputError if it is for other tensors, CorruptDataError if it breaks the layout,
    UnsupportedFormatError if its positions are coded in a way that is not known.
    """
    file = SafetensorsFile.open(path / FILE_NAME if path.is_dir() else path)
    if file.metadata.get("sparse") == "False":
        raise InvalidInputError(
            f"{file.path} is a whole checkpoint (an anchor), not a delta",
            hint="Use it as the new model: `textnlp-fast delta create SOURCE ...`.",
        )
    tensors = {tensor.name: tensor for tensor in file.tensors}
    for name, positions, values, coding in _pairs(file, tensors):
        place = places.get(name)
        if place is None:
            raise InvalidInputError(
                f"{file.path} changes tensor {name!r}, which the source does not have",
                hint="Names of an inference engine's fused weights do not fit: the layout must have the checkpoint's.",
            )
        yield place, _scatter(file, place.tensor, positions, values, coding, files)


def _pairs(
    file: SafetensorsFile, tensors: Mapping[str, TensorInfo]
) -> Iterator[tuple[str, TensorInfo, TensorInfo, str]]:
    """Name, positions, values and the coding of the positions."""
    seen: set[str] = set()
    for tensor in tensors.values():
        name, pair = _named(file, tensor.name)
        missing = next((name + suffix for suffix in pair if name + suffix not in tensors), None)
        if missing is not None:
            raise CorruptDataError(f"{file.path} has {tensor.name!r} without {missing!r}")
        if tensor.name.endswith(pair[1]):
            continue
        if name in seen:
            raise CorruptDataError(f"{file.path} changes tensor {name!r} twice")
        seen.add(name)
        # As the reader of `.idx` does: gaps unless the metadata say otherwise.
        coding = "raw" if pair is _PAIRS[0] else file.metadata.get("encoding", "gap_delta")
        yield name, tensor, tensors[name + pair[1]], coding


def _named(file: SafetensorsFile, key: str) -> tuple[str, tuple[str, str]]:
    for pair in _PAIRS:
        for suffix in pair:
            if key.endswith(suffix):
                return key.removesuffix(suffix), pair
    raise CorruptDataError(f"{file.path} has {key!r}, which is neither positions nor values of a tensor")


def _scatter(
    file: SafetensorsFile,
    tensor: TensorInfo,
    positions: TensorInfo,
    values: TensorInfo,
    coding: str,
    files: OpenFiles,
) -> Change:
    what = f"tensor {tensor.name!r}"
    if coding not in _ENCODINGS:
        raise UnsupportedFormatError(
            f"positions coded as {coding!a:.80} are not read here", hint=f"Known are {', '.join(_ENCODINGS)}."
        )
    if positions.dtype not in _ENCODINGS[coding]:
        raise CorruptDataError(f"the positions of {what} are {positions.dtype}, which {coding} ones are not")
    if values.dtype != tensor.dtype:
        raise InvalidInputError(
            f"the values of {what} are {values.dtype}, the source has {tensor.dtype}",
            hint="Take the source in the type that the delta was made for; nothing is rounded here.",
        )
    if len(positions.shape) != 1 or values.shape != positions.shape:
        raise CorruptDataError(
            f"the positions of {what} have shape {list(positions.shape)}, its values {list(values.shape)}; "
            "both are rows of one length"
        )
    item = element_bytes(tensor)
    count = positions.shape[0]
    if count * item > tensor.size_bytes:
        raise CorruptDataError(
            f"{file.path} changes {count} of {tensor.size_bytes // item} elements of {what}"
        )
    dtype = _ENCODINGS[coding][positions.dtype]
    numbers = FileRange(files, file.path, positions.begin, positions.size_bytes)
    data = FileRange(files, file.path, values.begin, values.size_bytes)

    def read(some: int) -> npt.NDArray[np.integer]:
        return np.frombuffer(numbers.read(some * dtype.itemsize), dtype)

    decode = _Gaps(read) if coding == "gap_delta" else _absolute(read, what)
    return Scatter(what, count, item, decode, data.read)


def _absolute(
    read: Callable[[int], npt.NDArray[np.integer]], what: str
) -> Callable[[int], npt.NDArray[np.uint64]]:
    def positions(some: int) -> npt.NDArray[np.uint64]:
        found = read(some).astype(np.int64)
        if found.min() < 0:
            raise CorruptDataError(f"position {int(found.min())} is outside of {what}")
        return found.astype(np.uint64)

    return positions


class _Gaps:
    """Elements passed over between a position and the one before it."""

    def __init__(self, read: Callable[[int], npt.NDArray[np.integer]]) -> None:
        self._read, self._next = read, 0

    def __call__(self, some: int) -> npt.NDArray[np.uint64]:
        steps = self._read(some).astype(np.uint64) + np.uint64(1)
        found: npt.NDArray[np.uint64] = (
            np.cumsum(steps, dtype=np.uint64) + np.uint64(self._next) - np.uint64(1)
        )
        self._next = int(found[-1]) + 1
        return found


# --- writing -----------------------------------------------------------------------------------------------


def write(folder: Path, updates: Iterator[Update], *, version: int, elements: int) -> None:
    """Writes `FILE_NAME` with absolute positions (`.indices`, `.values`). `elements` are those of the whole model."""
    changed = list(updates)
    parts = [(_index_bytes(update), False, update) for update in changed]
    parts += [(element_bytes(update.place.tensor), True, update) for update in changed]
    # Larger elements first, so that each tensor begins at a multiple of its element's size.
    parts.sort(key=lambda part: -part[0])
    total = 0
    with Spool(folder / FILE_NAME) as spool:
        for size, is_values, update in parts:
            begin = spool.size_bytes
            for data in _values(update) if is_values else _indices(update, size):
                spool.append(data)
            count = (spool.size_bytes - begin) // size
            if is_values:
                total += count
                spool.add(f"{update.name}.values", update.place.tensor.dtype, (count,), begin)
            else:
                spool.add(f"{update.name}.indices", "I32" if size == 4 else "I64", (count,), begin)
        spool.finish(
            {
                "format": "sparse_weight_patch",
                "version": "1",
                "sparse": "True",
                "model_version": str(version),
                "encoding": "raw",
                "num_changed_params": str(len(changed)),
                "total_changed_elements": str(total),
                "total_elements": str(elements),
                "sparsity": str(1 - total / max(elements, 1)),
                "changed_params": json.dumps([update.name for update in changed]),
            }
        )


def _index_bytes(update: Update) -> int:
    return 4 if update.size_bytes // element_bytes(update.place.tensor) <= _MOST_I32 else 8


def _indices(update: Update, size: int) -> Iterator[bytes]:
    first = 0
    for mask, _ in _changed(update):
        yield (np.flatnonzero(mask) + first).astype(f"<i{size}").tobytes()
        first += len(mask)


def _values(update: Update) -> Iterator[bytes]:
    for mask, new in _changed(update):
        yield new[mask].tobytes()


def _changed(update: Update) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]]:
    """By window: which elements have other bits, and the bytes of all of them, a row each."""
    item = element_bytes(update.place.tensor)
    for old, new in update.windows():
        rows = new.reshape(-1, item)
        yield (old.reshape(-1, item) != rows).any(axis=1), rows
