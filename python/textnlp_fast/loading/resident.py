"""The tensors of a running process, as bytes that can be read and written where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from textnlp_fast.errors import DeviceError, InvalidInputError

__all__ = ["Module", "Resident", "find_residents"]

Bytes = npt.NDArray[np.uint8]


@runtime_checkable
class Module(Protocol):
    """A ``torch.nn.Module``, or anything else whose ``state_dict`` gives its tensors themselves and no copies."""

    def state_dict(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Resident:
    """A tensor in memory. ``data`` are its bytes, one-dimensional and writable; ``names`` all it is known by."""

    names: tuple[str, ...]
    data: Bytes

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def size(self) -> int:
        return self.data.nbytes


def find_residents(model: Mapping[str, Any] | Module) -> list[Resident]:
    """The tensors of a dict or a module, those that share their memory (tied weights) once.

    Raises InvalidInputError for a tensor whose bytes do not lie side by side in order, cannot be written, or lie
    across those of another, DeviceError for one that is not in this process's own memory.
    """
    tensors = model.state_dict() if isinstance(model, Module) else model
    if not isinstance(tensors, Mapping):
        raise InvalidInputError(
            f"weights are a dict of tensors or a module, not {type(tensors).__name__}",
            hint="Pass model.state_dict(), or the module itself.",
        )
    found = [(name, bytes_of(name, tensor)) for name, tensor in tensors.items()]
    return _joined(found)


def bytes_of(name: str, tensor: Any) -> Bytes:
    """The memory of a numpy array or a torch tensor on the CPU, as bytes."""
    if isinstance(tensor, np.ndarray):
        if not tensor.flags.c_contiguous:
            raise _unfit(
                name, "is not C-contiguous", "Keep a contiguous copy of it where the model looks for it."
            )
        if not tensor.flags.writeable and tensor.nbytes:
            raise _unfit(
                name, "cannot be written", "Keep a writable copy of it where the model looks for it."
            )
        return tensor.reshape(-1).view(np.uint8)
    if not all(hasattr(tensor, method) for method in ("detach", "is_contiguous", "device", "numel")):
        raise _unfit(
            name, f"is no tensor but {type(tensor).__name__}", "Weights are torch tensors or numpy arrays."
        )
    if tensor.device.type != "cpu":
        raise DeviceError(
            f"tensor {name!r} lies on {tensor.device}: this version swaps weights in host memory",
            hint="Keep the weights on the CPU, or load the new version with a new process.",
        )
    if not tensor.is_contiguous():
        raise _unfit(name, "is not contiguous", "Replace it by tensor.contiguous() in the model.")
    flat = tensor.detach().reshape(-1)
    if not flat.numel():
        return np.empty(0, np.uint8)
    import torch  # noqa: PLC0415  (there is a tensor, so it is loaded)

    return np.asarray(flat.view(torch.uint8).numpy())


def _joined(found: list[tuple[str, Bytes]]) -> list[Resident]:
    places: dict[tuple[int, int], list[str]] = {}
    views: dict[tuple[int, int], Bytes] = {}
    empty = []
    for name, data in found:
        if not data.nbytes:
            empty.append(Resident((name,), data))
            continue
        place = data.ctypes.data, data.nbytes
        places.setdefault(place, []).append(name)
        views[place] = data
    end, before = 0, ""
    for begin, size in sorted(places):
        name = places[begin, size][0]
        if begin < end:
            raise _unfit(name, f"shares a part of its memory with {before!r}", "Give each memory of its own.")
        end, before = begin + size, name
    return [Resident(tuple(names), views[place]) for place, names in places.items()] + empty


def _unfit(name: str, why: str, hint: str) -> InvalidInputError:
    return InvalidInputError(f"tensor {name!r} {why}", hint=hint)
