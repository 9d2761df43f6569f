"""How much of what the data sheets promise engines reach, by the architecture of the GPU. Few numbers, all physical.

They were fitted once, over half of the cells of `benches/recommend.py`, to what NVIDIA's AIConfigurator (0.12.0, vLLM)
predicts from its measurements of kernels; the other half was kept to check them (docs/decisions tells how).
Architectures that it has no measurements of take those of the nearest one that it has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

__all__ = ["CPU_PER_LAYER_S", "EFFICIENCIES", "Efficiency", "efficiency_of"]

CPU_PER_LAYER_S: Final = 0.8e-3
"""What a vLLM engine's processor adds to the first token, a layer: AIConfigurator's figure, of its silicon corpus."""


@dataclass(frozen=True)
class Efficiency:
    """Shares are of the data sheet's dense rates."""

    gemm: float
    """Large matrix products at 16 bit."""
    gemm_fp8: float
    """Large matrix products at fp8."""
    grouped: float
    """Products of experts, over what dense ones reach."""
    attention: float
    """Attention over a prompt, at 16 bit."""
    memory: float
    """Reading weights and KV cache."""
    link: float
    """All-reduce, of one direction of the GPU's links."""
    hop_s: float
    """What an all-reduce takes however little it moves, a doubling of ranks."""
    layer_s: float
    """What a layer takes in kernels' starts and small kernels, however little it computes."""


_HOPPER: Final = Efficiency(0.70, 0.60, 0.6, 0.50, 0.80, 0.70, 8e-6, 25e-6)
EFFICIENCIES: Final = {
    "turing": replace(_HOPPER, layer_s=40e-6),
    "volta": replace(_HOPPER, layer_s=40e-6),
    "pascal": replace(_HOPPER, layer_s=40e-6),
    "ampere": replace(_HOPPER, gemm=0.75),
    "ada": replace(_HOPPER, gemm=0.65),
    "hopper": _HOPPER,
    "blackwell": replace(_HOPPER),
}


def efficiency_of(architecture: str) -> Efficiency:
    """Of the architecture's name, as specifications write it; Hopper's where the name says nothing."""
    plain = architecture.lower()
    for name, one in EFFICIENCIES.items():
        if name in plain:
            return one
    return _HOPPER
