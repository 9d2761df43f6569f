"""How a replica is spread over GPUs, and what each of them then has to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from textnlp_fast.gpu.recommender.precision import WeightFormat
from textnlp_fast.gpu.recommender.shape import ModelShape

__all__ = ["GIB", "Layout", "Memory", "kv_share", "memory_of", "sequences_that_fit"]

GIB: Final = float(1 << 30)
UTILISATION: Final = 0.92
"""Share of a GPU's memory that vLLM takes (`gpu_memory_utilization`, its default since 0.22)."""
OVERHEAD_BYTES: Final = 3.5 * GIB
"""CUDA's context, libraries' workspaces, captured graphs: AIConfigurator's allowance."""
NCCL_BYTES: Final = 0.38 * GIB
"""Buffers of collectives, with more than one rank: AIConfigurator's measurement."""
BATCHED_TOKENS: Final = 8192
"""Tokens that vLLM takes into one step at most (`max_num_batched_tokens`)."""


@dataclass(frozen=True, order=True)
class Layout:
    """Degrees of parallelism of one replica."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    """Copies of attention, each with its own sequences, that share one set of experts over all GPUs."""

    @property
    def gpus(self) -> int:
        """Of one replica."""
        return self.tensor * self.pipeline * self.data

    def __str__(self) -> str:
        parts = [f"tp{self.tensor}"]
        parts += [f"pp{self.pipeline}"] if self.pipeline > 1 else []
        return " x ".join([*parts, *([f"dp{self.data}"] if self.data > 1 else [])])


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What one GPU holds, in GiB."""

    weights_gib: float
    kv_gib: float
    activations_gib: float
    overhead_gib: float
    limit_gib: float
    """What may be used of the GPU's memory."""

    @property
    def used_gib(self) -> float:
        """All of it."""
        return self.weights_gib + self.kv_gib + self.activations_gib + self.overhead_gib


def kv_share(shape: ModelShape, tensor: int) -> float:
    """The share of a layer's KV cache that each rank of tensor parallelism holds: a whole head at least."""
    if shape.latent is not None:
        return 1.0  # one compressed KV for all heads
    return max(1.0, shape.kv_heads / tensor) / shape.kv_heads


def weight_bytes_per_gpu(shape: ModelShape, weights: WeightFormat, layout: Layout) -> float:
    """Of the GPU that holds most of them."""
    experts = shape.expert_parameters / (layout.tensor * layout.data)
    dense = (shape.matrix_parameters - shape.expert_parameters) / layout.tensor
    other = shape.other_parameters / layout.tensor
    # The first or last stage also holds embeddings; spreading them is how engines balance stages.
    return ((experts + dense) * weights.bits + other * max(16.0, weights.bits)) / 8 / layout.pipeline


def activation_bytes(shape: ModelShape, tokens: int, tensor: int) -> float:
    """At the widest place of a step: the residual stream twice, what enters and leaves attention, and the two halves
    of the feed-forward network; for experts, of each that a token goes to."""
    width = shape.intermediate if shape.expert_layers < shape.layers else 0
    routed = shape.experts_per_token * (shape.hidden + 2 * shape.expert_intermediate / tensor)
    attention = (shape.heads + 2 * shape.kv_heads) * shape.head_dim / tensor
    return 2.0 * tokens * (4 * shape.hidden + attention + max(2 * width / tensor, routed))


def memory_of(
    shape: ModelShape,
    *,
    weights: WeightFormat,
    kv_bytes: float,
    layout: Layout,
    gpu_memory_gib: float,
    sequences: int,
    positions: int,
) -> Memory:
    """What a GPU holds with `sequences` of `positions` each (a replica's: of one copy of attention and stage)."""
    kv = sequences * shape.kv_bytes(positions, kv_bytes) * kv_share(shape, layout.tensor)
    ranks = layout.gpus
    return Memory(
        weights_gib=weight_bytes_per_gpu(shape, weights, layout) / GIB,
        # Each stage holds its layers' share, of as many batches as there are stages.
        kv_gib=kv / GIB,
        activations_gib=activation_bytes(shape, max(BATCHED_TOKENS, sequences), layout.tensor) / GIB,
        overhead_gib=(OVERHEAD_BYTES + (NCCL_BYTES if ranks > 1 else 0.0)) / GIB,
        limit_gib=gpu_memory_gib * UTILISATION,
    )


def sequences_that_fit(
    shape: ModelShape,
    *,
    weights: WeightFormat,
    kv_bytes: float,
    layout: Layout,
    gpu_memory_gib: float,
    positions: int,
) -> int:
    """How many sequences of `positions` fit beside the weights; below 0 if not even those fit."""
    empty = memory_of(
        shape,
        weights=weights,
        kv_bytes=kv_bytes,
        layout=layout,
        gpu_memory_gib=gpu_memory_gib,
        sequences=0,
        positions=positions,
    )
    free = (empty.limit_gib - empty.used_gib) * GIB
    if free < 0:
        return -1
    each = shape.kv_bytes(positions, kv_bytes) * kv_share(shape, layout.tensor)
    return min(int(free // each), BATCHED_TOKENS)  # no step takes more
