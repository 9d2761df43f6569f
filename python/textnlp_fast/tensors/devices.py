"""Where an array lives."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["on_device"]

#: DLPack's numbers for memory of a CUDA device, and for memory that CUDA moves between it and the host.
_CUDA: Final = (2, 13)


def on_device(array: Any) -> bool:
    """Whether an array lives on a CUDA device, by what it says of itself (DLPack, ``__cuda_array_interface__``)."""
    ask = getattr(array, "__dlpack_device__", None)
    if ask is not None:
        return int(ask()[0]) in _CUDA
    return hasattr(array, "__cuda_array_interface__")
