"""What a patch changes, tensor by tensor, for layouts that can say just that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.contents.entries import FileEntry
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.interop.changes import Place
from textnlp_fast.delta.patch import Patch
from textnlp_fast.delta.view import PatchedModel
from textnlp_fast.errors import DigestMismatchError, InvalidInputError
from textnlp_fast.hashing import Blake3
from textnlp_fast.tensors import DTYPE_BITS

__all__ = ["Update", "changed_tensors", "left_out"]

Bytes = npt.NDArray[np.uint8]

_WINDOW_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Update:
    """One tensor that a patch changes; the place is that of the source."""

    place: Place
    digest: str
    model: PatchedModel
    files: OpenFiles

    @property
    def name(self) -> str:
        return self.place.tensor.name

    @property
    def size_bytes(self) -> int:
        return self.place.tensor.size_bytes

    def windows(self) -> Iterator[tuple[Bytes, Bytes]]:
        """The bytes before and after, in windows of whole elements.

        Memory: two windows, or two rows where those are larger; all of a tensor whose rows end within a byte. Raises
        DigestMismatchError behind the last window if the tensor did not come out as the patch says.
        """
        hasher, done = Blake3(), 0
        for new in self._new():
            old = bytearray(len(new))
            self.files.read(str(self.place.file.path), memoryview(old), self.place.tensor.begin + done)
            hasher.update(new, threads=1)
            done += len(new)
            yield np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)
        if hasher.hexdigest() != self.digest:
            raise DigestMismatchError(f"tensor {self.name!r} did not come out of the patch as it should")

    def _new(self) -> Iterator[bytearray]:
        tensor = self.place.tensor
        row_bits = prod(tensor.shape[1:]) * DTYPE_BITS[tensor.dtype]
        if tensor.size_bytes <= _WINDOW_BYTES or row_bits % 8:
            yield self.model.tensor(self.name).data
            return
        rows = max(1, _WINDOW_BYTES * 8 // row_bits)
        for begin in range(0, tensor.shape[0], rows):
            yield self.model.rows(self.name, begin, min(begin + rows, tensor.shape[0])).data


def changed_tensors(
    patch: Patch, model: PatchedModel, places: Mapping[str, Place], files: OpenFiles
) -> Iterator[Update]:
    """The tensors that the patch changes, in the order of the target's files.

    Raises InvalidInputError if the target has other tensors than the source, or in other types or shapes: no layout
    here can say so.
    """
    before = _digests(patch.source.files)
    after = _digests(patch.target.files)
    different = before.keys() ^ after.keys()
    if different:
        raise InvalidInputError(
            f"tensor {min(different)!r} is in one of the two models alone; foreign layouts carry values of tensors "
            "that both have",
            hint="Send the patch itself.",
        )
    for name, digest in after.items():
        tensor = places[name].tensor
        dtype, shape = model.kind(name)
        if (dtype, shape) != (tensor.dtype, tensor.shape):
            raise InvalidInputError(
                f"tensor {name!r} is {tensor.dtype} {list(tensor.shape)} before and {dtype} {list(shape)} after; "
                "foreign layouts carry values alone",
                hint="Send the patch itself.",
            )
        if digest != before[name]:
            yield Update(places[name], digest, model, files)


def left_out(patch: Patch) -> list[str]:
    """Files that change and are no tensors, which no layout here carries."""
    before = {entry.path: entry.digest for entry in patch.source.files if entry.kind == "blob"}
    after = {entry.path: entry.digest for entry in patch.target.files if entry.kind == "blob"}
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def _digests(files: Iterable[FileEntry]) -> dict[str, str]:
    """Digests of tensors by their names."""
    found: dict[str, str] = {}
    for entry in files:
        for name, digest in zip(entry.names, entry.parts[1:], strict=False):
            if name in found:
                raise InvalidInputError(
                    f"two files of the target have a tensor {name!r}; foreign layouts know tensors by name alone",
                    hint="Send the patch itself.",
                )
            found[name] = digest
    return found
