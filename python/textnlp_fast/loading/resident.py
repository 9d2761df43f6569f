"""The tensors of a running process, as bytes that can be read and written where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from textnlp_fast.errors import DeviceError, InvalidInputError
from textnlp_fast.loading.memory import Bytes, DeviceBytes, HostBytes, Memory
from textnlp_fast.tensors.device_memory import place_of
from textnlp_fast.tensors.devices import on_device

__all__ = ["Module", "Resident", "bytes_of", "find_residents"]

_KINDS: Final = "Weights are torch tensors, numpy arrays, or arrays on a CUDA device (CuPy, JAX)."


@runtime_checkable
class Module(Protocol):
    """A ``torch.nn.Module``, or anything else whose ``state_dict`` gives its tensors themselves and no copies."""

    def state_dict(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Resident:
    """A tensor in memory. ``names`` is all it is known by; ``shape`` is None where it is kept as plain bytes."""

    names: tuple[str, ...]
    memory: Memory
    shape: tuple[int, ...] | None

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def size(self) -> int:
        return self.memory.size


def find_residents(model: Mapping[str, Any] | Module) -> list[Resident]:
    """The tensors of a dict or a module, those that share their memory (tied weights) once.

    Raises InvalidInputError for a tensor whose bytes do not lie side by side in order, cannot be written, or lie
    across those of another, DeviceError for one that lies neither in host memory nor on a CUDA device.
    """
    tensors = model.state_dict() if isinstance(model, Module) else model
    if not isinstance(tensors, Mapping):
        raise InvalidInputError(
            f"weights are a dict of tensors or a module, not {type(tensors).__name__}",
            hint="Pass model.state_dict(), or the module itself.",
        )
    return _joined(
        [Resident((name,), _memory_of(name, array), _shape_of(array)) for name, array in tensors.items()]
    )


def _shape_of(array: Any) -> tuple[int, ...] | None:
    shape = tuple(int(extent) for extent in getattr(array, "shape", ()))
    plain = len(shape) == 1 and str(getattr(array, "dtype", "")).rsplit(".", maxsplit=1)[-1] == "uint8"
    return None if plain or not hasattr(array, "shape") else shape


def _memory_of(name: str, tensor: Any) -> Memory:
    if not isinstance(tensor, np.ndarray) and on_device(tensor):
        return _of_device(name, tensor)
    return HostBytes(bytes_of(name, tensor))


def bytes_of(name: str, tensor: Any) -> Bytes:
    """The memory of a numpy array or a torch tensor on the CPU, as bytes."""
    return _of_array(name, tensor) if isinstance(tensor, np.ndarray) else _of_tensor(name, tensor)


def _of_array(name: str, array: npt.NDArray[Any]) -> Bytes:
    if not array.flags.c_contiguous:
        raise _unfit(
            name, "is not C-contiguous", "Keep a contiguous copy of it where the model looks for it."
        )
    if not array.flags.writeable and array.nbytes:
        raise _unfit(name, "cannot be written", "Keep a writable copy of it where the model looks for it.")
    return array.reshape(-1).view(np.uint8)


def _of_tensor(name: str, tensor: Any) -> Bytes:
    """The memory of a torch tensor on the CPU."""
    if not all(hasattr(tensor, method) for method in ("detach", "is_contiguous", "device", "numel")):
        raise _unfit(name, f"is no tensor but {type(tensor).__name__}", _KINDS)
    if tensor.device.type != "cpu":
        raise DeviceError(
            f"tensor {name!r} lies on {tensor.device}: weights are swapped in host memory and on CUDA devices",
            hint="Keep the weights on the CPU or a CUDA device, or load the new version with a new process.",
        )
    if not tensor.is_contiguous():
        raise _unfit(name, "is not contiguous", "Replace it by tensor.contiguous() in the model.")
    flat = tensor.detach().reshape(-1)
    if not flat.numel():
        return np.empty(0, np.uint8)
    import torch  # noqa: PLC0415  (there is a tensor, so it is loaded)

    return np.asarray(flat.view(torch.uint8).numpy())


def _of_device(name: str, array: Any) -> DeviceBytes:
    """The memory of an array on a CUDA device: torch, CuPy, JAX, or anything else with one of the two protocols."""
    if hasattr(array, "detach"):
        # DLPack gives no memory of what autograd watches, and has no number for some of torch's types.
        array = array.detach()
        if not array.is_contiguous():
            raise _unfit(name, "is not contiguous", "Replace it by tensor.contiguous() in the model.")
        import torch  # noqa: PLC0415  (there is a tensor, so it is loaded)

        array = array.reshape(-1).view(torch.uint8) if array.numel() else array
    try:
        address, size, device = place_of(array)
    except InvalidInputError as error:
        raise _unfit(name, f"cannot be written where it lies ({error.args[0]})", _KINDS) from error
    except DeviceError as error:
        raise DeviceError(f"tensor {name!r}: {error.args[0]}", hint=error.hint) from error
    return DeviceBytes(array, address, size, device)


def _joined(found: list[Resident]) -> list[Resident]:
    """Tensors that share their memory as one. Raises InvalidInputError where they share a part of it."""
    places: dict[tuple[int, int, int], list[Resident]] = {}
    empty = []
    for resident in found:
        if not resident.size:
            empty.append(resident)
            continue
        device = -1 if resident.memory.device is None else resident.memory.device
        places.setdefault((device, resident.memory.address, resident.size), []).append(resident)
    end, before = (-1, 0), ""
    for device, begin, size in sorted(places):
        name = places[device, begin, size][0].name
        if (device, begin) < end:
            raise _unfit(name, f"shares a part of its memory with {before!r}", "Give each memory of its own.")
        end, before = (device, begin + size), name
    joined = [
        Resident(tuple(name for tied in group for name in tied.names), group[0].memory, group[0].shape)
        for group in places.values()
    ]
    return joined + empty


def _unfit(name: str, why: str, hint: str) -> InvalidInputError:
    return InvalidInputError(f"tensor {name!r} {why}", hint=hint)
