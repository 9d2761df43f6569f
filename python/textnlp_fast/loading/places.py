"""Where loaded tensors go: memory of the process or of a device, fresh or the caller's own."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from textnlp_fast.errors import DeviceError, InvalidInputError, MissingPackageError
from textnlp_fast.loading.resident import bytes_of
from textnlp_fast.loading.ring import host_memory
from textnlp_fast.tensors import DTYPE_BITS
from textnlp_fast.tensors.device_memory import (
    DeviceArray,
    DeviceSpan,
    copy_to_device,
    device_count,
    no_device_reason,
)
from textnlp_fast.tensors.devices import on_device
from textnlp_fast.tensors.slices import Cut

__all__ = [
    "FRAMEWORKS",
    "TORCH_NAMES",
    "Framework",
    "Place",
    "Wanted",
    "array_of",
    "check_framework",
    "device_number",
    "given_place",
    "make_place",
]

Bytes = npt.NDArray[np.uint8]
Framework = Literal["numpy", "torch"]
FRAMEWORKS: Final = ("numpy", "torch")
# Below this a mapping of its own costs more than it saves.
_MAPPED_BYTES: Final = 1 << 20

_NUMPY: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}
_ML_DTYPES: Final = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
#: What torch calls the types of safetensors: unsigned and complex ones as numpy does, fp8 as ml_dtypes does.
TORCH_NAMES: Final = _NUMPY | _ML_DTYPES


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tensor to load, or the part of it that ``cut`` says."""

    name: str
    dtype: str
    full_shape: tuple[int, ...]
    cut: Cut

    @property
    def size(self) -> int:
        """Bytes that are loaded."""
        return self.cut.size_bytes

    @property
    def full_size(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.full_shape) * DTYPE_BITS[self.dtype] // 8

    @property
    def is_whole(self) -> bool:
        return self.size == self.full_size


@dataclass(frozen=True, slots=True)
class Place:
    """Memory that a tensor is loaded into: ``host``, or ``span`` on a device. ``result`` is what the caller gets."""

    wanted: Wanted
    host: Bytes | None
    span: DeviceSpan | None
    result: Any


def device_number(device: str) -> int | None:
    """None for the CPU. Raises DeviceError for a device that is not there, InvalidInputError for what is none."""
    if device == "auto":
        return 0 if device_count() else None
    if device == "cpu":
        return None
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not (number.isascii() and number.isdigit())):
        raise InvalidInputError(f"device {device!r} is none of 'cpu', 'cuda', 'cuda:0' and so on, 'auto'")
    count = device_count()
    if not count:
        raise DeviceError(
            f"there is no CUDA device: {no_device_reason()}",
            hint="Use device='cpu', or 'auto'; `textnlp-fast info` says what was found.",
        )
    if number and int(number) >= count:
        raise DeviceError(
            f"there is no {device}: {count} devices were found", hint="They are counted from 0: 'cuda:0'."
        )
    return int(number or 0)


def check_framework(framework: str | None, device: int | None, dtypes: Mapping[str, str]) -> None:
    """Raises unless tensors of these dtypes (by name) can be handed over: before anything is read."""
    if framework not in (None, *FRAMEWORKS):
        raise InvalidInputError(
            f"framework {framework!r} is not known", hint="Use one of numpy, torch, or leave it out."
        )
    if framework == "numpy" and device is not None:
        raise InvalidInputError(
            "numpy has no arrays on a device",
            hint="Leave framework out: other frameworks take what you get by DLPack.",
        )
    if framework == "torch":
        _module("torch")
    elif device is None and any(dtype in _ML_DTYPES for dtype in dtypes.values()):
        _module("ml_dtypes", ": numpy has no bf16 and fp8 of its own (framework='torch' needs none)")


def make_place(wanted: Wanted, device: int | None, framework: str | None, stream: int) -> Place:
    """Fresh memory for a tensor. Raises DeviceError if the device has none left."""
    if device is None:
        data = _fresh(wanted.size)
        return Place(wanted, data, None, _on_host(wanted, data, framework))
    array = DeviceArray.empty(wanted.cut.shape, wanted.dtype, wanted.size, device=device, stream=stream)
    return Place(wanted, None, array.span(), _as_torch(array) if framework == "torch" else array)


def given_place(wanted: Wanted, array: Any, device: int | None) -> Place:
    """The caller's own array. Raises InvalidInputError if the tensor does not fit it, or it cannot be written."""
    shape = getattr(array, "shape", None)
    if shape is None or tuple(shape) != _shown_shape(wanted):
        found = "of no shape" if shape is None else f"of shape {tuple(shape)}"
        raise InvalidInputError(
            f"tensor {wanted.name!r} is of shape {_shown_shape(wanted)}; the array to fill is {found}"
        )
    if not on_device(array):
        data = bytes_of(wanted.name, array)
        _check_size(wanted, data.nbytes)
        return Place(wanted, data, None, array)
    span = _span_of(wanted.name, array)
    _check_size(wanted, span.nbytes)
    # Nothing to copy, but what the array's producer has queued on it is awaited.
    copy_to_device(b"", array if isinstance(array, DeviceArray) else span)
    where = getattr(array, "device", device)
    number = where if isinstance(where, int) else getattr(where, "index", device)
    if number != device:
        raise InvalidInputError(
            f"the array for tensor {wanted.name!r} lies on another device than the load's",
            hint=f"Pass device='cuda:{number}'.",
        )
    return Place(wanted, None, span, array)


# --- parts -------------------------------------------------------------------------------------------------------


def _check_size(wanted: Wanted, size: int) -> None:
    if size != wanted.size:
        raise InvalidInputError(
            f"tensor {wanted.name!r} of {wanted.dtype} takes {wanted.size} bytes; the array to fill has {size}",
            hint="Its elements must be as wide as those of the checkpoint.",
        )


def _span_of(name: str, array: Any) -> DeviceSpan:
    if isinstance(array, DeviceArray):
        return array.span()
    if hasattr(array, "data_ptr"):
        if not array.is_contiguous():
            raise InvalidInputError(f"tensor {name!r}: the array to fill is not contiguous")
        _module("torch").cuda.current_stream(array.device).synchronize()
        return DeviceSpan(array.data_ptr(), array.numel() * array.element_size(), array)
    facts = getattr(array, "__cuda_array_interface__", None)
    if facts is None or facts.get("strides") is not None or facts["data"][1]:
        raise InvalidInputError(
            f"tensor {name!r}: the array to fill has no contiguous, writable memory",
            hint="Pass torch tensors, CuPy arrays or what textnlp_fast.load gave.",
        )
    width = int(facts["typestr"][2:])
    return DeviceSpan(facts["data"][0], math.prod(facts["shape"]) * width, array)


def _fresh(size_bytes: int) -> Bytes:
    if size_bytes < _MAPPED_BYTES:
        return np.empty(size_bytes, np.uint8)
    return np.frombuffer(host_memory(size_bytes), np.uint8)


def _shown_shape(wanted: Wanted) -> tuple[int, ...]:
    """Elements that share bytes have no shape of their own: they go as bytes."""
    return wanted.cut.shape if DTYPE_BITS[wanted.dtype] % 8 == 0 else (wanted.size,)


def _on_host(wanted: Wanted, data: Bytes, framework: str | None) -> Any:
    return array_of(wanted.dtype, wanted.cut.shape, data, framework)


def array_of(dtype: str, shape: tuple[int, ...], data: Bytes, framework: str | None) -> Any:
    """These bytes as an array of numpy, or a tensor of torch, in the same memory.

    `dtype` is safetensors' name, `shape` counts elements; those of less than a byte come as bytes, in one dimension.
    """
    if DTYPE_BITS[dtype] % 8:
        shape = (data.nbytes,)
    if framework == "torch":
        torch = _module("torch")
        found = getattr(torch, TORCH_NAMES.get(dtype, "uint8"))
        if not data.nbytes:
            return torch.empty(shape, dtype=found)
        return torch.from_numpy(data).view(found).reshape(shape)
    if dtype in _ML_DTYPES:
        return data.view(getattr(_module("ml_dtypes"), _ML_DTYPES[dtype])).reshape(shape)
    return data.view(_NUMPY.get(dtype, "uint8")).reshape(shape)


def _as_torch(array: DeviceArray) -> Any:
    torch = _module("torch")
    found = torch.from_dlpack(array)
    dtype = getattr(torch, TORCH_NAMES.get(array.dtype, "uint8"))
    return found if found.dtype == dtype else found.view(dtype)


def _module(name: str, why: str = "") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(f"{name} is not installed{why}", hint=f"pip install {name}") from error
