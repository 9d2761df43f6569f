"""Memory of a process as bytes that can be read and written where they lie: the host's, or a CUDA device's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from textnlp_fast.tensors import device_memory
from textnlp_fast.tensors.device_memory import DeviceSpan

__all__ = ["Bytes", "DeviceBytes", "HostBytes", "Memory"]

Bytes = npt.NDArray[np.uint8]


class Memory(Protocol):
    """A run of bytes. `device` is the number of the CUDA device that has it, None for the host."""

    @property
    def size(self) -> int: ...

    @property
    def device(self) -> int | None: ...

    @property
    def address(self) -> int: ...

    @property
    def array(self) -> Any:
        """The bytes, as the codec and the hash take them."""
        ...

    def window(self, begin: int, end: int) -> Memory:
        """The same memory from byte `begin` to byte `end`."""
        ...

    def read(self, out: memoryview) -> None:
        """Copies all of it to host memory."""
        ...

    def write(self, data: memoryview) -> None:
        """Overwrites all of it from host memory."""
        ...


@dataclass(frozen=True, slots=True)
class HostBytes:
    """Host memory: a one-dimensional, writable array."""

    array: Bytes

    @classmethod
    def of(cls, data: bytearray) -> HostBytes:
        """The bytes of an object that has no other user."""
        return cls(np.frombuffer(data, np.uint8))

    @property
    def device(self) -> None:
        return None

    @property
    def size(self) -> int:
        return self.array.nbytes

    @property
    def address(self) -> int:
        return int(self.array.ctypes.data)

    def window(self, begin: int, end: int) -> HostBytes:
        return HostBytes(self.array[begin:end])

    def read(self, out: memoryview) -> None:
        out[:] = self.array.data

    def write(self, data: memoryview) -> None:
        self.array[:] = np.frombuffer(data, np.uint8)


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """Memory of a CUDA device; `owner` keeps it alive. Copies go over `stream` and have been made when they return."""

    owner: Any
    address: int
    size: int
    device: int
    stream: int = 0

    @property
    def array(self) -> DeviceSpan:
        return DeviceSpan(self.address, self.size, self.owner)

    def window(self, begin: int, end: int) -> DeviceBytes:
        return DeviceBytes(self.owner, self.address + begin, end - begin, self.device, self.stream)

    def read(self, out: memoryview) -> None:
        device_memory.read_device(self.address, out, device=self.device, stream=self.stream)

    def write(self, data: memoryview) -> None:
        device_memory.write_device(self.address, data, device=self.device, stream=self.stream)

    def copy_from(self, other: DeviceBytes) -> None:
        """Overwrites all of it from memory of the same device, over the other's stream."""
        device_memory.move_on_device(
            self.address, other.address, self.size, device=self.device, stream=other.stream
        )
