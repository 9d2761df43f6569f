"""Holds what a patch made against the model that it was made for: within its promise, or equal where it has none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from textnlp_fast.contents.inventory import coding_dtype, scan_model
from textnlp_fast.contents.windows import OpenFiles, Progress, ProgressCallback
from textnlp_fast.delta.change import BLOCK_ELEMENTS
from textnlp_fast.delta.elements import ELEMENTS, Words
from textnlp_fast.delta.patch_file import PatchFile, read_patch
from textnlp_fast.delta.promise import Promise, TensorPromise, check_blocks
from textnlp_fast.delta.source import file_places
from textnlp_fast.errors import InvalidInputError, PromiseBrokenError
from textnlp_fast.tensors import SafetensorsFile

__all__ = ["check_promise"]


@dataclass(frozen=True, slots=True)
class _Tensor:
    location: str
    offset: int
    size: int
    dtype: str

    @property
    def word(self) -> np.dtype[np.unsignedinteger]:
        element = ELEMENTS.get(self.dtype)
        return np.dtype(np.uint8) if element is None else element.word


def check_promise(
    patch: str | os.PathLike[str] | PatchFile,
    original: str | os.PathLike[str],
    made: str | os.PathLike[str],
    *,
    progress: ProgressCallback | None = None,
) -> None:
    """Compares the tensors of `made`, which the patch made, with those of the true version at `original`.

    Raises PromiseBrokenError, which names the tensor and the bound; InvalidInputError for models that cannot be read.
    """
    file = patch if isinstance(patch, PatchFile) else read_patch(patch)
    places = file_places(file.patch.target, made)
    kinds = {entry.path: entry.kind for entry in file.patch.target.files}
    here = _tensors(
        SafetensorsFile.open(place) for path, place in places.items() if kinds[path] == "safetensors"
    )
    truth = _tensors(scan_model(original).safetensors)
    promise = file.patch.promise.tensors if file.patch.promise is not None else _exact(truth)
    for side, tensors in (("the original", truth), ("what the patch made", here)):
        for name in promise.tensors.keys() ^ tensors.keys():
            where = "the patch" if name in tensors else side
            raise PromiseBrokenError(f"tensor {name!r} is not in {where}", tensor=name, bound="names")
    total, done = sum(tensor.size for tensor in truth.values()), 0
    with OpenFiles() as files:
        for name, promised in promise.tensors.items():
            a, b = truth[name], here[name]
            if (a.size, a.dtype) != (b.size, b.dtype) or a.dtype != promised.dtype:
                raise PromiseBrokenError(
                    f"tensor {name!r} is {a.size} bytes of {a.dtype} in the original, and {b.size} of {b.dtype}",
                    tensor=name,
                    bound="elements",
                )
            check_blocks(name, promised, _blocks(files, a, b))
            done += a.size
            if progress is not None:
                progress(Progress("check", done, total))


def _tensors(model: Iterable[SafetensorsFile]) -> dict[str, _Tensor]:
    found: dict[str, _Tensor] = {}
    for file in model:
        for tensor in file.tensors:
            if tensor.name in found:
                raise InvalidInputError(f"two files have a tensor {tensor.name!r}")
            dtype = coding_dtype(tensor.dtype)
            found[tensor.name] = _Tensor(str(file.path), tensor.begin, tensor.size_bytes, dtype)
    return found


def _exact(tensors: Mapping[str, _Tensor]) -> Promise:
    return Promise(
        {
            name: TensorPromise(None, tensor.dtype, tensor.size // tensor.word.itemsize, 0, 0, 0.0, 0.0, 0.0)
            for name, tensor in tensors.items()
        }
    )


def _blocks(files: OpenFiles, a: _Tensor, b: _Tensor) -> Iterator[tuple[Words, Words]]:
    step = BLOCK_ELEMENTS * a.word.itemsize
    for begin in range(0, a.size, step):
        sides = []
        for tensor in (a, b):
            words = np.empty(min(step, a.size - begin) // a.word.itemsize, a.word)
            files.read(tensor.location, words.data.cast("B"), tensor.offset + begin)
            sides.append(words)
        yield sides[0], sides[1]
