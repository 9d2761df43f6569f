"""How long a step of an engine takes: each operation by the slower of its arithmetic and its memory traffic.

The roofline model (Williams, Waterman, Patterson 2009), a layer's operation at a time, at the data sheet's rates times
the shares in `efficiency`. All times are seconds.
"""

from __future__ import annotations

import math
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.recommender.efficiency import STAGED_LINK, Efficiency, efficiency_of
from textnlp_fast.gpu.recommender.layout import Layout, kv_share
from textnlp_fast.gpu.recommender.precision import WeightFormat
from textnlp_fast.gpu.recommender.shape import ModelShape
from textnlp_fast.gpu.types import GPUSpec

__all__ = ["Roofline"]

_TILE_ROWS: Final = 16
"""What filling tiles adds to the rows of an expert, mean: half of the tiles of 32 that engines take for few rows."""


class Roofline:
    """One replica: a model in a layout on GPUs of a type. Raises InvalidInputError where a rate is not known."""

    def __init__(
        self,
        shape: ModelShape,
        spec: GPUSpec,
        *,
        weights: WeightFormat,
        kv_bytes: float,
        layout: Layout,
        efficiency: Efficiency | None = None,
    ) -> None:
        if spec.memory_bandwidth_gb_s is None or spec.fp16_dense_tflops is None:
            raise InvalidInputError("no rates are published to reckon with")
        self.efficiency = chosen = efficiency or efficiency_of(spec.architecture)
        self._shape, self._layout = shape, layout
        self._weight_bytes = weights.bits / 8
        self._kv_bytes = kv_bytes
        self._attention_rate = spec.fp16_dense_tflops * 1e12 * chosen.attention
        self._wide_rate = spec.fp16_dense_tflops * 1e12 * chosen.gemm
        fp8 = weights.multiplies_fp8 and spec.fp8_dense_tflops is not None
        self._rate = (spec.fp8_dense_tflops or 0) * 1e12 * chosen.gemm_fp8 if fp8 else self._wide_rate
        if weights.bits > 16:
            self._rate = self._wide_rate / 2  # TF32 multiplies at half the rate, where there is one
        self._grouped_rate = (
            (spec.fp8_dense_tflops or 0) * 1e12 * chosen.grouped_fp8
            if fp8
            else self._rate / chosen.gemm * chosen.grouped
        )
        self._product_s = chosen.kernel_s
        self._least_product_s = chosen.block_product_s if weights.blocks and fp8 else 0.0
        self._kv_bandwidth = (
            spec.memory_bandwidth_gb_s * 1e9 * (chosen.kv if kv_bytes > 1 else chosen.kv_8bit)
        )
        self._bandwidth = spec.memory_bandwidth_gb_s * 1e9 * chosen.memory
        # Vendors state both directions together.
        ranks = layout.tensor * layout.data
        staged = ranks > 2 and "NVLink" not in spec.interconnect.split(";")[0].split(",")[0]
        self._link = (spec.interconnect_gb_s or 0) / 2 * 1e9 * (STAGED_LINK if staged else chosen.link)
        if ranks > 1 and not self._link:
            raise InvalidInputError(f"{spec.gpu_type}: how fast such GPUs talk to each other is not known")

    def step_s(self, *, prefills: int, prompt: int, decodes: int, context: float) -> float:
        """One step that takes `prefills` prompts of `prompt` tokens, and a token of `decodes` sequences of `context`.

        Of one copy of attention; the others do the same at the same time, and meet at the experts. Through all stages.
        """
        shape, tensor = self._shape, self._layout.tensor
        tokens = prefills * prompt + decodes
        attention = self._projections_s(tokens) + self._mixing_s(prefills, prompt, decodes, context)
        dense_layers = shape.layers - shape.expert_layers
        feed = 0.0
        if dense_layers:
            feed += dense_layers * self._feed_forward_s(tokens, shape.intermediate / tensor)
        if shape.expert_layers:
            feed += shape.expert_layers * self._experts_s(tokens)
        norms = 2 * self.efficiency.kernel_s + 2.0 * tokens * 8 * shape.hidden / self._bandwidth
        each = attention + norms + self._exchange_s(tokens)
        output = self._gemm_s(
            prefills + decodes, shape.hidden, shape.vocabulary / tensor, 2.0, self._wide_rate
        )
        hops = (self._layout.pipeline - 1) * (
            self.efficiency.hop_s + 2.0 * tokens * shape.hidden / self._between
        )
        return shape.layers * each + feed + output + hops

    @property
    def _between(self) -> float:
        """Bytes a second from stage to stage: a stage's machine talks to the next over its network, 25 GB/s a GPU."""
        return 25e9

    def _gemm_s(self, tokens: float, inner: float, outer: float, weight_bytes: float, rate: float) -> float:
        spent = self._product_time_s(tokens, inner, outer, weight_bytes, rate)
        return max(self._product_s + spent, self._least_product_s)

    def _product_time_s(
        self, tokens: float, inner: float, outer: float, weight_bytes: float, rate: float
    ) -> float:
        """A matrix product without what starts it."""
        moved = inner * outer * weight_bytes + 2.0 * tokens * (inner + outer)
        return max(2.0 * tokens * inner * outer / rate, moved / self._bandwidth)

    def _projections_s(self, tokens: int) -> float:
        """The matrix products around attention, of one layer."""
        shape, tensor = self._shape, self._layout.tensor
        byte, rate = self._weight_bytes, self._rate
        if (mla := shape.latent) is not None:
            heads = shape.heads / tensor
            down = (
                mla.query_rank + mla.kv_rank + mla.rope_head_dim
            )  # one product for queries, keys and values
            query = heads * (mla.nope_head_dim + mla.rope_head_dim)
            up = heads * (mla.nope_head_dim + mla.value_head_dim)
            return (
                self._gemm_s(tokens, shape.hidden, down, byte, rate)
                + self._gemm_s(tokens, mla.query_rank or shape.hidden, query, byte, rate)
                # Keys and values stay compressed: their matrix is multiplied into queries and outputs at 16 bit.
                + self._product_time_s(tokens, mla.kv_rank, up, 2.0, self._wide_rate)
                + self._gemm_s(tokens, heads * mla.value_head_dim, shape.hidden, byte, rate)
            )
        q = shape.heads / tensor * shape.head_dim
        kv = max(1.0, shape.kv_heads / tensor) * shape.head_dim
        return self._gemm_s(tokens, shape.hidden, q + 2 * kv, byte, rate) + self._gemm_s(
            tokens, q, shape.hidden, byte, rate
        )

    def _mixing_s(self, prefills: int, prompt: int, decodes: int, context: float) -> float:
        """Attention itself, a layer, averaged over layers with and without a window."""
        shape = self._shape
        if not shape.window_layers:
            return self._seen_s(prefills, prompt, decodes, context, math.inf)
        share = shape.window_layers / shape.layers
        narrow = self._seen_s(prefills, prompt, decodes, context, float(shape.window or 0))
        return share * narrow + (1 - share) * self._seen_s(prefills, prompt, decodes, context, math.inf)

    def _seen_s(self, prefills: int, prompt: int, decodes: int, context: float, window: float) -> float:
        shape, heads = self._shape, self._shape.heads / self._layout.tensor
        mla = shape.latent
        # Pairs of positions of a causal prompt; with a window each position sees no more than it.
        seen = min(float(prompt), window)
        pairs = prompt * seen - seen * seen / 2
        widths = shape.head_dim + (mla.value_head_dim if mla else shape.head_dim)
        prefill = 2.0 * prefills * pairs * heads * widths / self._attention_rate
        kept = min(context, window)
        read = (
            decodes
            * kept
            * shape.kv_bytes_per_token_layer(self._kv_bytes)
            * kv_share(shape, self._layout.tensor)
        )
        # Latent attention decodes in the compressed space: keys are kv_rank + rope wide, values kv_rank.
        decoded = 2 * mla.kv_rank + mla.rope_head_dim if mla else 2 * shape.head_dim
        flops = 2.0 * decodes * kept * heads * decoded
        return prefill + max(read / self._kv_bandwidth, flops / self._attention_rate)

    def _feed_forward_s(self, tokens: float, width: float) -> float:
        shape, byte = self._shape, self._weight_bytes
        up = (2 if shape.gated else 1) * width
        # The activation function.
        between = self.efficiency.kernel_s + 2.0 * tokens * (up + width) / self._bandwidth
        return (
            self._gemm_s(tokens, shape.hidden, up, byte, self._rate)
            + self._gemm_s(tokens, width, shape.hidden, byte, self._rate)
            + between
        )

    def _experts_s(self, tokens: int) -> float:
        """A layer of experts: what a GPU computes, and the weights of those experts that any token picked."""
        shape, layout = self._shape, self._layout
        ranks = layout.tensor * layout.data
        everyone = tokens * layout.data
        chance = shape.experts_per_token / shape.experts
        picked = shape.experts * (1.0 - (1.0 - chance) ** everyone)
        matrices = shape.feed_forward_parameters(shape.expert_intermediate)
        # Rows of each expert are filled up to a tile.
        rows = everyone * shape.experts_per_token + picked * _TILE_ROWS
        compute = 2.0 * rows * matrices / ranks / self._grouped_rate
        moved = picked * matrices * self._weight_bytes / ranks
        moved += (
            2.0 * everyone * shape.experts_per_token * 2 * (shape.hidden + shape.expert_intermediate) / ranks
        )
        routed = self.efficiency.kernel_s + self._product_time_s(
            tokens, shape.hidden, shape.experts, 2.0, self._wide_rate
        )
        shared = 0.0
        if (width := shape.shared_intermediate / layout.tensor) > 0:
            # It runs beside the routed ones, which hides its kernels' starts.
            shared = self._product_time_s(
                tokens, shape.hidden, (2 if shape.gated else 1) * width, self._weight_bytes, self._rate
            ) + self._product_time_s(tokens, width, shape.hidden, self._weight_bytes, self._rate)
        # Each expert has too few tokens for its weights to arrive behind arithmetic: both count.
        return compute + moved / self._bandwidth + routed + shared + 3 * self.efficiency.kernel_s

    def _exchange_s(self, tokens: int) -> float:
        """A layer's collectives: an all-reduce after attention and one after the feed-forward network, as rings."""
        layout, hidden = self._layout, self._shape.hidden
        after_attention = self._ring_s(layout.tensor, 2.0 * tokens * hidden)
        return after_attention + self._ring_s(
            layout.tensor * layout.data, 2.0 * tokens * layout.data * hidden
        )

    def _ring_s(self, ranks: int, moved: float) -> float:
        if ranks == 1:
            return 0.0
        return self.efficiency.hop_s * math.log2(ranks) + 2.0 * (ranks - 1) / ranks * moved / self._link
