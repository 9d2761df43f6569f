"""The GPUs of this machine as the local provider rents them out: which there are, and of which type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import DeviceError
from textnlp_fast.gpu.health.facts import Reading
from textnlp_fast.gpu.types import GPUType

__all__ = ["LocalGPU", "gpu_type_of", "gpus_of_driver"]

# How NVIDIA's driver names the boards, the narrower patterns first.
_NAMES: Final = (
    (r"GB200", GPUType.NVIDIA_GB200),
    (r"\bB300\b", GPUType.NVIDIA_B300),
    (r"\bB200\b", GPUType.NVIDIA_B200),
    (r"\bH200\b", GPUType.NVIDIA_H200),
    (r"\bH100 NVL\b", GPUType.NVIDIA_H100_NVL),
    (r"\bH100 PCIe\b", GPUType.NVIDIA_H100_PCIE),
    (r"\bH100\b", GPUType.NVIDIA_H100),
    (r"\bA100\b.*80GB PCIe", GPUType.NVIDIA_A100_80GB_PCIE),
    (r"\bA100\b.*80GB", GPUType.NVIDIA_A100_80GB),
    (r"\bA100\b", GPUType.NVIDIA_A100_40GB),
    (r"RTX PRO 6000", GPUType.NVIDIA_RTX_PRO_6000),
    (r"RTX PRO 4500", GPUType.NVIDIA_RTX_PRO_4500),
    (r"\bL40S\b", GPUType.NVIDIA_L40S),
    (r"\bL4\b", GPUType.NVIDIA_L4),
    (r"\bA10G\b", GPUType.NVIDIA_A10G),
    (r"\bA10\b", GPUType.NVIDIA_A10),
    (r"\bV100\b.*32GB", GPUType.NVIDIA_V100_32GB),
    (r"\bV100\b", GPUType.NVIDIA_V100),
    (r"\bP100\b", GPUType.NVIDIA_P100),
    (r"\bP4\b", GPUType.NVIDIA_P4),
    (r"\bT4G\b", GPUType.NVIDIA_T4G),
    (r"\bT4\b", GPUType.NVIDIA_T4),
)


@dataclass(frozen=True)
class LocalGPU:
    """One GPU that works. `uuid` is the driver's, as `CUDA_VISIBLE_DEVICES` takes it."""

    uuid: str
    gpu_type: GPUType
    memory_gib: float


def gpu_type_of(name: str) -> GPUType | None:
    """The type that the driver's name of a board means; None for one that no cloud here rents."""
    return next((kind for pattern, kind in _NAMES if re.search(pattern, name, re.IGNORECASE)), None)


def gpus_of_driver() -> list[LocalGPU]:
    """The GPUs that the driver shows, in its order; none where there is no driver.

    Those that it cannot read, and those whose type has no name here, are left out.
    """
    from textnlp_fast.gpu.health.collector import Collector  # noqa: PLC0415 - opens the driver's library

    try:
        with Collector(period_s=0, kernel_log=None) as collector:
            return _usable(collector.sample())
    except DeviceError:
        return []


def _usable(readings: Iterable[Reading]) -> list[LocalGPU]:
    found = []
    for reading in readings:
        kind = gpu_type_of(reading.name or "")
        if kind is not None and reading.memory_total_bytes and reading.gpu.startswith("GPU-"):
            found.append(LocalGPU(reading.gpu, kind, reading.memory_total_bytes / (1 << 30)))
    return found
