"""`safe_open` for versions in a repository: names first, then one tensor or a part of one at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

import numpy as np

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.safetensors.library import safetensors_module
from textnlp_fast.integrations.urls import Place, is_model_url, open_repository, parse_model_url
from textnlp_fast.loading.places import array_of, check_framework
from textnlp_fast.storage.stored_files import StoredFiles
from textnlp_fast.tensors import DTYPE_BITS, TensorInfo

__all__ = ["StoredSlice", "StoredTensorFile", "safe_open"]

_FRAMEWORKS: Final = {
    "pt": "torch",
    "torch": "torch",
    "pytorch": "torch",
    "np": "numpy",
    "numpy": "numpy",
}


def safe_open(
    filename: str | os.PathLike[str],
    framework: str,
    device: str | int = "cpu",
    *,
    backend: str = "mmap",
    repository: Place | None = None,
) -> Any:
    """As `safetensors.safe_open`, which gets all that is not a `textnlp://` URL. `repository` is for URLs.

    Raises InvalidInputError and what opening a version does; MissingPackageError without safetensors, for paths.
    """
    if not is_model_url(filename):
        return safetensors_module().safe_open(filename, framework, device, backend=backend)
    return StoredTensorFile(str(filename), framework, device, repository=repository)


class StoredTensorFile:
    """An open version, or a safetensors file of one, with the methods of safetensors' own.

    `framework` is "pt" or "np", `device` what torch calls one. Thread-safe.
    """

    def __init__(
        self, url: str, framework: str, device: str | int = "cpu", *, repository: Place | None = None
    ) -> None:
        self._framework = _FRAMEWORKS.get(framework, "")
        if not self._framework:
            raise InvalidInputError(
                f"framework {framework!r} is not known", hint="Use 'pt' or 'np' with a textnlp:// URL."
            )
        if self._framework == "numpy" and str(device) != "cpu":
            raise InvalidInputError("numpy has no arrays on a device", hint="Use framework='pt'.")
        self._device = device
        parsed = parse_model_url(url)
        self._files: StoredFiles = open_repository(parsed, repository).files(parsed.name, parsed.selector)
        self._tensors: dict[str, tuple[str, TensorInfo]] = {}
        self._metadata: dict[str, str] = {}
        for path in self._paths(parsed.path):
            header = self._files.header(path)
            for info in header.tensors:
                if info.name in self._tensors:
                    raise InvalidInputError(
                        f"{url} has two tensors called {info.name!r}", hint="Name one of its files."
                    )
                self._tensors[info.name] = path, info
            self._metadata = {**header.metadata, **self._metadata}

    def __enter__(self) -> StoredTensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def keys(self) -> list[str]:
        """Names of the tensors, in their own order."""
        return sorted(self._tensors)

    def offset_keys(self) -> list[str]:
        """Names of the tensors, in the order of their bytes."""
        return list(self._tensors)

    def metadata(self) -> dict[str, str] | None:
        """What the header says beside the tensors; None if nothing."""
        return dict(self._metadata) or None

    def get_tensor(self, name: str) -> Any:
        """A whole tensor, verified by its digest. Raises InvalidInputError if there is none of the name."""
        path, info = self._find(name)
        return self._array(path, info, info.shape, info.begin, info.size_bytes)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors by name."""
        return {name: self.get_tensor(name) for name in self._tensors}

    def get_slice(self, name: str) -> StoredSlice:
        """A tensor to take a part of: only the frames that hold its rows are read, and nothing proves those bytes."""
        path, info = self._find(name)
        return StoredSlice(self, path, info)

    def _paths(self, path: str | None) -> list[str]:
        if path is not None:
            return [self._files.entry(path).path]
        found = [entry.path for entry in self._files.entries.values() if entry.kind == "safetensors"]
        if not found:
            raise InvalidInputError("the version has no safetensors file")
        return found

    def _find(self, name: str) -> tuple[str, TensorInfo]:
        if name not in self._tensors:
            raise InvalidInputError(f"there is no tensor {name!r}", hint="keys() has their names.")
        return self._tensors[name]

    def _array(self, path: str, info: TensorInfo, shape: Sequence[int], begin: int, size: int) -> Any:
        check_framework(self._framework, None, {info.name: info.dtype})
        data = np.empty(size, np.uint8)
        self._files.read_into(path, begin, data.data)
        array = array_of(info.dtype, tuple(shape), data, self._framework)
        return array if str(self._device) == "cpu" else array.to(self._device)


class StoredSlice:
    """What `get_slice` gives: index it as the tensor itself. Rows that no index asks for are not read."""

    def __init__(self, file: StoredTensorFile, path: str, info: TensorInfo) -> None:
        self._file = file
        self._path = path
        self._info = info

    def get_shape(self) -> list[int]:
        """Elements by dimension."""
        return list(self._info.shape)

    def get_dtype(self) -> str:
        """The element type as safetensors writes it: "BF16"."""
        return self._info.dtype

    def __getitem__(self, index: Any) -> Any:
        index = index if isinstance(index, tuple) else (index,)
        info = self._info
        if not info.shape or not index or index[0] is Ellipsis or DTYPE_BITS[info.dtype] % 8:
            return self._file.get_tensor(info.name)[index]
        first = index[0]
        rows = info.shape[0]
        if isinstance(first, slice):
            begin, end, step = first.indices(rows)
            if step < 1:
                raise InvalidInputError(f"tensor {info.name!r} cannot be read backwards")
            end = max(begin, end)
            inner: Any = slice(None, None, step)
        elif isinstance(first, int):
            if not -rows <= first < rows:
                raise IndexError(f"row {first} of tensor {info.name!r}, which has {rows}")
            begin = first % rows
            end, inner = begin + 1, 0
        else:  # a list, an array: which rows that takes is theirs to say
            begin, end, inner = 0, rows, first
        row_bytes = math.prod(info.shape[1:]) * DTYPE_BITS[info.dtype] // 8
        shape = (end - begin, *info.shape[1:])
        size = (end - begin) * row_bytes
        part = self._file._array(self._path, info, shape, info.begin + begin * row_bytes, size)
        at = (inner, *index[1:])
        return part[at]
