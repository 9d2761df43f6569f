"""Which CUDA devices there are."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

__all__ = ["CudaDevice", "cuda_available", "devices"]


class _Native(Protocol):
    def cuda_info(self) -> dict[str, Any]: ...
    def cuda_devices(self) -> list[dict[str, Any]]: ...


_native = cast(_Native, importlib.import_module("textnlp_fast._native"))


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A device: its number, its name, and what it has. ``emulated`` ones are this processor, for tests."""

    number: int
    name: str
    compute_capability: tuple[int, int]
    processors: int
    memory_bytes: int
    emulated: bool


def devices() -> list[CudaDevice]:
    """The CUDA devices that this process sees; none without a driver, or in a build without CUDA.

    ``textnlp-fast info`` says why there are none. Starts no CUDA context.
    """
    info = _native.cuda_info()
    if not info["device_count"]:
        return []
    emulated = bool(info["emulated"])
    return [
        CudaDevice(number=number, emulated=emulated, **facts)
        for number, facts in enumerate(_native.cuda_devices())
    ]


def cuda_available() -> bool:
    """Whether calls with arrays on a device can run here."""
    return bool(_native.cuda_info()["device_count"])
