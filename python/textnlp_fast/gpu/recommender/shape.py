"""The sizes of a transformer, and what follows from them: parameters, bytes of weights and of KV cache, FLOPs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.recommender.precision import WeightFormat

__all__ = ["LatentAttention", "ModelShape", "shape_of_parameters"]

_LARGEST: Final = 10**14


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Sizes of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): one compressed KV for all heads."""

    query_rank: int
    """0: queries are not compressed."""
    kv_rank: int
    nope_head_dim: int
    rope_head_dim: int
    value_head_dim: int


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer. Sizes are elements; raises InvalidInputError for sizes that no model has."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Of the dense feed-forward networks; 0 where every layer has experts."""
    vocabulary: int
    gated: bool = True
    """Three matrices a feed-forward network (SwiGLU), not two."""
    tied_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    norms_a_layer: int = 2
    expert_bias: bool = False
    """Each expert has a bias that balances how often it is picked (DeepSeek-V3)."""
    max_context: int | None = None
    expert_layers: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    """Of the feed-forward network that every token passes beside its experts."""
    latent: LatentAttention | None = None
    window: int | None = None
    """Positions that sliding-window layers see."""
    window_layers: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocabulary"):
            self._check(name, 1)
        for name in ("intermediate", "expert_intermediate", "shared_intermediate", "experts"):
            self._check(name, 0)
        if self.heads % self.kv_heads:
            raise InvalidInputError(f"{self.heads} heads cannot share {self.kv_heads} KV heads evenly")
        if not 0 <= self.expert_layers <= self.layers or not 0 <= self.window_layers <= self.layers:
            raise InvalidInputError("more layers have experts, or windows, than there are layers")
        if self.expert_layers and not (
            1 <= self.experts_per_token <= self.experts and self.expert_intermediate >= 1
        ):
            raise InvalidInputError(
                f"{self.experts} experts of width {self.expert_intermediate}, {self.experts_per_token} a token: "
                "no model has that"
            )
        if self.expert_layers < self.layers and self.intermediate < 1:
            raise InvalidInputError("layers without experts need an intermediate size")
        if self.window_layers and (self.window is None or self.window < 1):
            raise InvalidInputError("layers with a window need its size")
        if self.max_context is not None and self.max_context < 1:
            raise InvalidInputError(f"a context of {self.max_context} positions holds nothing")
        if self.parameters > _LARGEST:
            raise InvalidInputError(f"{self.parameters:.3g} parameters: no model has that many")

    def _check(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**9:
            raise InvalidInputError(f"{name} cannot be {value!r}")

    # --- parameters

    @property
    def attention_parameters(self) -> int:
        """Of one layer's projections."""
        if (mla := self.latent) is None:
            q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
            bias = q + 2 * kv if self.qkv_bias else 0
            return self.hidden * (2 * q + 2 * kv) + bias
        query = mla.nope_head_dim + mla.rope_head_dim
        queries = (
            mla.query_rank * (self.hidden + self.heads * query)
            if mla.query_rank
            else self.hidden * self.heads * query
        )
        down = self.hidden * (mla.kv_rank + mla.rope_head_dim)
        up = mla.kv_rank * self.heads * (mla.nope_head_dim + mla.value_head_dim)
        return queries + down + up + self.heads * mla.value_head_dim * self.hidden

    def feed_forward_parameters(self, width: int) -> int:
        """Of one feed-forward network of that width."""
        return (3 if self.gated else 2) * self.hidden * width

    @property
    def matrix_parameters(self) -> int:
        """Of all matrices of all layers: what is quantised."""
        dense = (self.layers - self.expert_layers) * self.feed_forward_parameters(self.intermediate)
        shared = self.expert_layers * self.feed_forward_parameters(self.shared_intermediate)
        return self.layers * self.attention_parameters + dense + shared + self.expert_parameters

    @property
    def expert_parameters(self) -> int:
        """Of all routed experts."""
        return self.expert_layers * self.experts * self.feed_forward_parameters(self.expert_intermediate)

    @property
    def other_parameters(self) -> int:
        """Embeddings, output matrix, norms and routers: they stay at 16 bit."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        norms = (self.norms_a_layer * self.layers + 1) * self.hidden
        if self.qk_norm:
            norms += 2 * self.head_dim * self.layers
        if self.latent is not None:
            norms += self.layers * (self.latent.query_rank + self.latent.kv_rank)
        routers = self.expert_layers * self.experts * (self.hidden + int(self.expert_bias))
        return embeddings + norms + routers

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.matrix_parameters + self.other_parameters

    @property
    def active_parameters(self) -> int:
        """Those that a token passes, without the input embeddings, which are looked up."""
        idle = (
            self.expert_parameters // self.experts * (self.experts - self.experts_per_token)
            if self.experts
            else 0
        )
        looked_up = 0 if self.tied_embeddings else self.vocabulary * self.hidden
        return self.parameters - idle - looked_up

    # --- bytes

    def weight_bytes(self, weights: WeightFormat) -> float:
        """All weights, in bytes."""
        other_bits = max(weights.bits, 16.0)
        return (self.matrix_parameters * weights.bits + self.other_parameters * other_bits) / 8

    def kv_bytes_per_token_layer(self, element_bytes: float) -> float:
        """What one layer keeps of one position. Latent attention keeps the compressed KV and the rotary key."""
        if self.latent is not None:
            return (self.latent.kv_rank + self.latent.rope_head_dim) * element_bytes
        return 2 * self.kv_heads * self.head_dim * element_bytes

    def kv_bytes(self, positions: float, element_bytes: float) -> float:
        """What a sequence of that many positions keeps; layers with a window keep no more than it."""
        kept = (self.layers - self.window_layers) * positions
        if self.window_layers:
            kept += self.window_layers * min(positions, float(self.window or 0))
        return kept * self.kv_bytes_per_token_layer(element_bytes)


def shape_of_parameters(parameters: float, *, name: str | None = None) -> ModelShape:
    """A dense model with grouped-query attention of about that many parameters, in the proportions of Llama 3.

    Llama 3 (arXiv:2407.21783, table 3) has 8 KV heads of 128, about one layer per 110 of width and feed-forward
    networks of 3.5 times the width. Widths are multiples of 128; the feed-forward width is fitted so that the total is
    right. Raises InvalidInputError below 10 million.
    """
    if not (isinstance(parameters, (int, float)) and math.isfinite(parameters) and 1e7 <= parameters <= 1e13):
        raise InvalidInputError(
            f"a model of {parameters!r} parameters cannot be sized",
            hint="Give the number itself, for example 70e9, between 10 million and 10 trillion.",
        )
    vocabulary = 128256 if parameters >= 4e9 else 32000
    tied = parameters < 4e9
    best: ModelShape | None = None
    for heads in range(2, 512):
        hidden = heads * 128
        layers = max(2, round(hidden / 110))
        kv_heads = max(one for one in (1, 2, 4, 8) if heads % one == 0)
        sizes = {
            "name": name or f"{parameters / 1e9:g}B dense",
            "layers": layers,
            "hidden": hidden,
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": 128,
            "vocabulary": vocabulary,
            "tied_embeddings": tied,
        }
        empty = ModelShape(**sizes, intermediate=1)  # type: ignore[arg-type]
        width = round((parameters - empty.parameters) / (3 * hidden * layers)) + 1
        if width < 1:
            break
        if width > 8 * hidden:
            continue
        shape = ModelShape(**sizes, intermediate=width)  # type: ignore[arg-type]
        if best is None or abs(width / hidden - 3.5) < abs(best.intermediate / best.hidden - 3.5):
            best = shape
    if best is None:  # the smallest sizes of the loop have fewer than the least that is allowed
        raise InvalidInputError(f"a model of {parameters!r} parameters cannot be sized")
    return best
