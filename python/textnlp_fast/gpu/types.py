"""The words of the fleet: GPU types, instance types, and offers of them at a price."""

from __future__ import annotations

import datetime
import difflib
import re
from dataclasses import dataclass
from enum import Enum

from textnlp_fast.errors import UnknownGPUTypeError

__all__ = ["GPUSpec", "GPUType", "InstanceType", "Market", "Offer"]


class GPUType(str, Enum):
    """A model of GPU as a cloud rents it. Memory sizes and form factors that serve differently are types apart."""

    NVIDIA_T4 = "nvidia-t4"
    NVIDIA_T4G = "nvidia-t4g"
    NVIDIA_P4 = "nvidia-p4"
    NVIDIA_P100 = "nvidia-p100"
    NVIDIA_V100 = "nvidia-v100-16gb"
    NVIDIA_V100_32GB = "nvidia-v100-32gb"
    NVIDIA_A10 = "nvidia-a10"
    NVIDIA_A10G = "nvidia-a10g"
    NVIDIA_L4 = "nvidia-l4"
    NVIDIA_L40S = "nvidia-l40s"
    NVIDIA_RTX_PRO_4500 = "nvidia-rtx-pro-4500"
    NVIDIA_RTX_PRO_6000 = "nvidia-rtx-pro-6000"
    NVIDIA_A100_40GB = "nvidia-a100-40gb"
    NVIDIA_A100_80GB = "nvidia-a100-80gb"
    NVIDIA_A100_80GB_PCIE = "nvidia-a100-80gb-pcie"
    NVIDIA_H100 = "nvidia-h100"
    NVIDIA_H100_PCIE = "nvidia-h100-pcie"
    NVIDIA_H100_NVL = "nvidia-h100-nvl"
    NVIDIA_H200 = "nvidia-h200"
    NVIDIA_B200 = "nvidia-b200"
    NVIDIA_B300 = "nvidia-b300"
    NVIDIA_GB200 = "nvidia-gb200"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, text: str | GPUType) -> GPUType:
        """The type that a name means: `nvidia-t4`, `T4`, `nvidia-tesla-t4`, `A100-80GB`, `NVIDIA_T4`.

        Raises UnknownGPUTypeError, with the nearest name, where it means none.
        """
        if isinstance(text, cls):
            return text
        plain = re.sub(r"[\s_/]+", "-", str(text).strip().lower())
        plain = re.sub(r"^(nvidia-)?(tesla-)?", "", plain)
        plain = _ALIASES.get(plain, plain)
        try:
            return cls(f"nvidia-{plain}")
        except ValueError:
            names = [one.value.removeprefix("nvidia-") for one in cls]
            near = difflib.get_close_matches(plain, names, 1, 0.5)
            raise UnknownGPUTypeError(
                f"there is no GPU type {text!r} here",
                hint=f"Did you mean nvidia-{near[0]}?" if near else f"Known are: {', '.join(names)}.",
            ) from None


_ALIASES = {
    "v100": "v100-16gb",
    "a100": "a100-40gb",
    "h100-80gb": "h100",
    "h100-sxm": "h100",
    "h200-sxm": "h200",
    "h200-141gb": "h200",
}


class Market(str, Enum):
    """How an instance is paid: at the list's price, or at spot's, which may take it away."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class GPUSpec:
    """What one GPU of a type can do. Rates are dense, without sparsity; None: not known, or the hardware cannot."""

    gpu_type: GPUType
    architecture: str
    compute_capability: tuple[int, int]
    memory_gib: float
    memory_bandwidth_gb_s: float | None
    fp16_dense_tflops: float | None
    """bf16's, where the hardware has it: both run at one rate."""
    bf16: bool
    fp8_dense_tflops: float | None
    interconnect: str
    interconnect_gb_s: float | None
    """To all other GPUs of the machine together, both directions summed, as vendors state it."""
    tdp_w: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """A machine as a cloud lists it."""

    provider: str
    """aws, gcp, azure, local, or a name that a bridge gives."""
    name: str
    gpu_type: GPUType
    gpu_count: float
    """Below 1 where a machine gets a part of a GPU."""
    gpu_memory_gib: float
    """Of one whole GPU, as this cloud reports it; usable is `gpu_count` times this."""
    vcpus: int
    memory_gib: float
    network_gbps: float | None
    local_nvme_gib: float


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An instance type at a price, in a region, in a market."""

    instance_type: InstanceType
    region: str
    zone: str | None
    """None: any zone of the region."""
    market: Market
    usd_per_hour: float
    as_of: datetime.date
    source: str
    stale: bool = False
    """True if the price is older than the catalogue was told to believe."""
