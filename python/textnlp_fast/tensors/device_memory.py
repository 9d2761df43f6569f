"""Memory of a CUDA device without a framework: arrays there, page-locked memory here, and copies between them.

Addresses and streams are integers, as torch and CuPy give them; stream 0 is the default stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from textnlp_fast import _native
from textnlp_fast.errors import DeviceError, InvalidInputError

__all__ = [
    "CudaEvent",
    "CudaStream",
    "DeviceArray",
    "DeviceSpan",
    "copy_to_device",
    "copy_to_host",
    "device_count",
    "move_on_device",
    "no_device_reason",
    "pinned_memory",
    "place_of",
    "read_device",
    "write_device",
]

CudaEvent = _native.CudaEvent
CudaStream = _native.CudaStream

_UNSIGNED: Final = 1
#: DLPack's type code and the bits of an element. What DLPack has no name for, that all consumers know, goes as bytes.
_DLPACK: Final = {
    "BOOL": (6, 8),
    "U8": (_UNSIGNED, 8),
    "I8": (0, 8),
    "U16": (_UNSIGNED, 16),
    "I16": (0, 16),
    "F16": (2, 16),
    "BF16": (4, 16),
    "U32": (_UNSIGNED, 32),
    "I32": (0, 32),
    "F32": (2, 32),
    "U64": (_UNSIGNED, 64),
    "I64": (0, 64),
    "F64": (2, 64),
    "C64": (5, 64),
}
#: The interface of CUDA arrays has numpy's types only: others go as the unsigned integers that have their bits.
_TYPESTR: Final = {"BOOL": "|b1", "I8": "|i1", "I16": "<i2", "F16": "<f2", "I32": "<i4"} | {
    "F32": "<f4",
    "I64": "<i8",
    "F64": "<f8",
    "C64": "<c8",
}


def device_count() -> int:
    """CUDA devices that this process can use."""
    return int(str(_native.cuda_info()["device_count"]))


def no_device_reason() -> str:
    """Why there is none."""
    return str(_native.cuda_info()["reason"])


class DeviceSpan:
    """Bytes of device memory that somebody else owns; they live as long as this."""

    __slots__ = ("address", "nbytes", "owner")

    def __init__(self, address: int, nbytes: int, owner: object) -> None:
        self.address = address
        self.nbytes = nbytes
        self.owner = owner

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": (self.nbytes,),
            "typestr": "|u1",
            "data": (self.address, False),
            "strides": None,
            "version": 3,
        }

    def part(self, begin: int, end: int) -> DeviceSpan:
        """Bytes [begin, end) of it."""
        if not 0 <= begin <= end <= self.nbytes:
            raise InvalidInputError(f"bytes {begin} to {end} of an array of {self.nbytes}")
        return DeviceSpan(self.address + begin, end - begin, self.owner)


class DeviceArray:
    """A contiguous tensor in device memory. torch, CuPy and JAX take it by DLPack, without a copy.

    ``dtype`` is the name that safetensors has for it, ``device`` the number of the device. The memory comes from the
    stream's pool and goes back when nobody has the array any more, in the order of the default stream: who works on
    it in another that does not wait for that one waits before the last reference goes.
    """

    __slots__ = ("_memory", "dtype", "shape")

    def __init__(self, memory: _native.DeviceMemory, shape: Sequence[int], dtype: str) -> None:
        self._memory = memory
        self.shape = tuple(shape)
        self.dtype = dtype

    @classmethod
    def empty(
        cls, shape: Sequence[int], dtype: str, size_bytes: int, *, device: int = 0, stream: int = 0
    ) -> DeviceArray:
        """Fresh memory of ``size_bytes`` bytes, to be used in the order of ``stream``.

        Raises DeviceError where there is no device, or not as much memory on it.
        """
        try:
            memory = _native.DeviceMemory(size_bytes, device, stream)
        except MemoryError as error:
            raise DeviceError(
                f"device {device} has no {size_bytes} bytes left",
                hint="Free memory on the device, load fewer tensors or a slice of them, or use device='cpu'.",
            ) from error
        return cls(memory, shape, dtype)

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    @property
    def device(self) -> int:
        return self._memory.device

    def span(self) -> DeviceSpan:
        """Its bytes."""
        return DeviceSpan(self._memory.address, self._memory.nbytes, self._memory)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        shape, bits = self._as_elements()
        typestr = _TYPESTR.get(self.dtype, f"{'|' if bits == 8 else '<'}u{bits // 8}")
        return {
            "shape": shape,
            "typestr": typestr,
            "data": (self._memory.address, False),
            "strides": None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._memory.device

    def __dlpack__(self, *, stream: int | None = None, **_: object) -> object:
        """Nothing is queued on it that the consumer's stream would have to wait for."""
        shape, bits = self._as_elements()
        return self._memory.dlpack(0, shape, _DLPACK.get(self.dtype, (_UNSIGNED, bits))[0], bits)

    def to_host(self) -> bytearray:
        """A copy of its bytes."""
        out = bytearray(self.nbytes)
        if out:
            stream = CudaStream(self.device)
            copy_to_host(self.span(), 0, out, stream=stream.address)
            stream.wait()
        return out

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}, shape={self.shape}, device={self.device})"

    def _as_elements(self) -> tuple[tuple[int, ...], int]:
        count = math.prod(self.shape)
        if self.dtype in _DLPACK:
            return self.shape, _DLPACK[self.dtype][1]
        # Elements of a byte keep their shape; smaller ones share bytes.
        return (self.shape if count == self.nbytes else (self.nbytes,)), 8


def pinned_memory(size_bytes: int, *, device: int = 0) -> memoryview:
    """Page-locked host memory. Raises DeviceError where there is no device, MemoryError where no more can be locked."""
    memory: Any = _native.PinnedMemory(size_bytes, device)  # a buffer, which stubs of Python 3.10 cannot say
    return memoryview(memory)


def copy_to_device(data: Any, array: Any, offset: int = 0, *, stream: int = 0) -> None:
    """Queues a copy of host bytes to byte ``offset`` of an array on a device. Both must stay until it is done."""
    _native.cuda_to_device(data, array, offset, stream)


def copy_to_host(array: Any, offset: int, out: Any, *, stream: int = 0) -> None:
    """Queues a copy of the array's bytes from ``offset`` on into all of ``out``."""
    _native.cuda_to_host(array, offset, out, stream)


def place_of(array: Any, *, stream: int = 0) -> tuple[int, int, int]:
    """Address, size in bytes and device of a writable array; what its producer had queued comes before ``stream``.

    Raises InvalidInputError for an array that is not contiguous or cannot be written.
    """
    return _native.cuda_place(array, stream)


def read_device(address: int, out: Any, *, device: int, stream: int = 0) -> None:
    """Fills ``out``, in host memory, from device memory, and waits for it."""
    _native.cuda_read(address, out, device, stream)


def write_device(address: int, data: Any, *, device: int, stream: int = 0) -> None:
    """Fills device memory from ``data``, in host memory, and waits for it."""
    _native.cuda_write(address, data, device, stream)


def move_on_device(to: int, source: int, size_bytes: int, *, device: int, stream: int = 0) -> None:
    """Copies within a device, and waits for it."""
    _native.cuda_move(to, source, size_bytes, device, stream)
