"""Arrays on a device: on the emulated one host memory that says it is a device's; on a real one torch's, or where that
sees no device memory of the package's own.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from textnlp_fast import _native

Bytes = npt.NDArray[np.uint8]

INFO = _native.cuda_info()
NO_DEVICE = pytest.mark.skipif(INFO["device_count"] == 0, reason=f"no CUDA device: {INFO['reason']}")


class EmulatedArray:
    """Bytes that claim to lie on device 0, as the emulator takes them."""

    def __init__(self, host: Bytes) -> None:
        self.host = host

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream == 1
        return self.host.__dlpack__()


class InterfaceArray:
    """The same by ``__cuda_array_interface__`` alone."""

    def __init__(self, host: Bytes) -> None:
        self.host = host

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.host.shape,
            "typestr": "|u1",
            "data": (self.host.ctypes.data, not self.host.flags.writeable),
            "version": 3,
        }


class OwnArray:
    """Device memory by ``__cuda_array_interface__``, without any framework."""

    def __init__(self, host: Bytes, offset: int) -> None:
        self._memory = _native.DeviceMemory(host.size, 0, 0)
        self.address, self.size = self._memory.address + offset, host.size - offset
        _native.cuda_write(self._memory.address, host, 0, 0)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.size,), "typestr": "|u1", "data": (self.address, False), "version": 3}

    def read(self) -> Bytes:
        host = np.empty(self.size, np.uint8)
        _native.cuda_read(self.address, host, 0, 0)
        return host


def _torch() -> Any:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def to_device(host: Bytes, *, offset: int = 0, interface: bool = False) -> Any:
    """A copy of ``host`` on the device, ``offset`` bytes off a round address."""
    padded = np.concatenate([np.zeros(offset, np.uint8), host])
    if INFO["emulated"]:
        return (InterfaceArray if interface else EmulatedArray)(padded[offset:])
    torch = None if interface else _torch()
    return OwnArray(padded, offset) if torch is None else torch.from_numpy(padded).cuda()[offset:]


def to_host(array: Any) -> Bytes:
    if isinstance(array, EmulatedArray | InterfaceArray):
        return array.host
    if isinstance(array, OwnArray):
        return array.read()
    return np.asarray(array.cpu().numpy(), np.uint8)


def address(array: Any) -> int:
    if isinstance(array, EmulatedArray | InterfaceArray):
        return int(array.host.ctypes.data)
    if isinstance(array, OwnArray):
        return array.address
    return int(array.data_ptr())
