"""How much of what the data sheets promise engines reach, by the architecture of the GPU. Few numbers, all physical.

They were fitted once, over half of the cells of `benches/recommend.py`, to what NVIDIA's AIConfigurator (0.12.0, vLLM)
predicts from its measurements of kernels; the other half was kept to check them (docs/decisions/0030).
Architectures that it has no measurements of take those of the nearest one that it has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

__all__ = ["CPU_PER_LAYER_S", "EFFICIENCIES", "STAGED_LINK", "Efficiency", "efficiency_of"]

STAGED_LINK: Final = 0.12
"""Share of PCIe that a collective of more than two GPUs without NVLink reaches: it goes through the host's memory."""
CPU_PER_LAYER_S: Final = 0.8e-3
"""What a vLLM engine's processor adds to the first token, a layer: AIConfigurator's figure, of its silicon corpus."""


@dataclass(frozen=True)
class Efficiency:
    """Shares are of the data sheet's dense rates; times are what it takes however little is computed or moved."""

    gemm: float
    """Large matrix products at 16 bit."""
    gemm_fp8: float
    """Large matrix products at fp8."""
    grouped: float
    """Products of experts at 16 bit."""
    grouped_fp8: float
    """Products of experts at fp8."""
    attention: float
    """Attention over a prompt, at 16 bit."""
    memory: float
    """Reading weights and activations."""
    kv: float
    """Reading a 16-bit KV cache."""
    kv_8bit: float
    """Reading one of 8 bit: it is widened on the way."""
    link: float
    """Collectives, of one direction of the GPU's links."""
    hop_s: float
    """A collective, a doubling of ranks."""
    kernel_s: float
    """A kernel's start and end."""
    block_product_s: float
    """What a product with block scales takes at least: the host starts kernels that find the activations' scales."""


_HOPPER: Final = Efficiency(
    gemm=0.80,
    gemm_fp8=0.73,
    grouped=0.70,
    grouped_fp8=0.14,
    attention=0.48,
    memory=0.80,
    kv=0.75,
    kv_8bit=0.56,
    link=0.75,
    hop_s=5e-6,
    kernel_s=4.5e-6,
    block_product_s=68e-6,
)
_AMPERE: Final = replace(_HOPPER, gemm=0.75, grouped=0.59, memory=0.67, link=0.68)
EFFICIENCIES: Final = {
    "pascal": _AMPERE,
    "volta": _AMPERE,
    "turing": _AMPERE,
    "ampere": _AMPERE,
    "ada": replace(_HOPPER, gemm=0.60, gemm_fp8=0.60, kv=0.85, memory=0.85, link=0.68),
    "hopper": _HOPPER,
    "blackwell": replace(
        _HOPPER, gemm=0.70, gemm_fp8=0.69, grouped=0.62, memory=0.67, block_product_s=175e-6
    ),
}


def efficiency_of(architecture: str) -> Efficiency:
    """Of the architecture's name, as specifications write it; Hopper's where the name says nothing."""
    plain = architecture.lower()
    for name, one in EFFICIENCIES.items():
        if name in plain:
            return one
    return _HOPPER
