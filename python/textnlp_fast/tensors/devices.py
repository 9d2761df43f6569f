"""Where arrays live, and memory of CUDA devices by address: what needs no framework."""

from __future__ import annotations

import importlib
from typing import Any, Final, Protocol, cast

__all__ = [
    "DeviceMemory",
    "allocate",
    "copy_on_device",
    "copy_to_device",
    "copy_to_host",
    "on_device",
    "place_of",
]

#: DLPack's number for CUDA.
_CUDA: Final = 2


class DeviceMemory(Protocol):
    """Bytes of device memory that live as long as this does."""

    @property
    def address(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def device(self) -> int: ...


class _Native(Protocol):
    def cuda_place(self, array: object, stream: int) -> tuple[int, int, int]: ...
    def cuda_read(self, address: int, out: object, device: int, stream: int) -> None: ...
    def cuda_write(self, address: int, data: object, device: int, stream: int) -> None: ...
    def cuda_move(self, to: int, source: int, size: int, device: int, stream: int) -> None: ...
    def DeviceMemory(self, size_bytes: int, device: int, stream: int) -> DeviceMemory: ...


_native = cast(_Native, importlib.import_module("textnlp_fast._native"))


def on_device(array: Any) -> bool:
    """Whether an array lives on a CUDA device, by what it says of itself (DLPack, ``__cuda_array_interface__``)."""
    ask = getattr(array, "__dlpack_device__", None)
    if ask is not None:
        return int(ask()[0]) == _CUDA
    return hasattr(array, "__cuda_array_interface__")


def place_of(array: Any, *, stream: int = 0) -> tuple[int, int, int]:
    """Address, size in bytes and device of a writable array; what its producer had queued comes before ``stream``.

    Raises InvalidInputError for an array that is not contiguous or cannot be written.
    """
    return _native.cuda_place(array, stream)


def allocate(size_bytes: int, *, device: int) -> DeviceMemory:
    """Memory of a device. Raises MemoryError if it has none left, DeviceError if there is no such device."""
    return _native.DeviceMemory(size_bytes, device, 0)


def copy_to_host(address: int, out: Any, *, device: int, stream: int = 0) -> None:
    """Fills ``out``, in host memory, from device memory, and waits for it."""
    _native.cuda_read(address, out, device, stream)


def copy_to_device(address: int, data: Any, *, device: int, stream: int = 0) -> None:
    """Fills device memory from ``data``, in host memory, and waits for it."""
    _native.cuda_write(address, data, device, stream)


def copy_on_device(to: int, source: int, size_bytes: int, *, device: int, stream: int = 0) -> None:
    """Copies within a device, and waits for it."""
    _native.cuda_move(to, source, size_bytes, device, stream)
