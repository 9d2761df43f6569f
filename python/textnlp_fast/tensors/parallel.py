"""How tensor parallelism deals out a model's tensors to ranks: rules by name, in one place.

Column-parallel matrices (the first of a pair) are dealt out by their outputs, row-parallel ones by their inputs,
embeddings by words; norms, routers, and biases that are added after the sum over ranks, are whole on every rank. Heads
are never cut: with fewer key and value heads than ranks, neighbours hold the same one. What is fused (query, key and
value; gate and up) is dealt out part by part. Source: Shoeybi et al., "Megatron-LM" (arXiv:1909.08053), and the names
of the checkpoints that people use (Llama, Qwen, Mistral, Mixtral, Phi-3, DeepSeek, GPT-NeoX, BLOOM, OPT, GPT-2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.tensors.architecture import Architecture

__all__ = ["BY_INPUTS", "BY_OUTPUTS", "KEY_VALUE", "Portion", "key_value_slice", "portion_of"]

KEY_VALUE: Final = frozenset({"k_proj", "v_proj", "wk", "wv"})
#: Dealt out by whole query heads.
_HEADS: Final = frozenset({"q_proj", "wq", "q_b_proj", "kv_b_proj"})
_VOCABULARY: Final = frozenset(
    {"embed_tokens", "lm_head", "embed_in", "embed_out", "wte", "tok_embeddings", "word_embeddings"}
)
_COLUMNS: Final = frozenset({"gate_proj", "up_proj", "w1", "w3", "fc1", "fc_in", "dense_h_to_4h"})
#: Modules of which each rank has some outputs: rows of a checkpoint's matrix.
BY_OUTPUTS: Final = KEY_VALUE | _HEADS | _VOCABULARY | _COLUMNS
#: Modules of which each rank has some inputs, and whose results are added up: columns of a checkpoint's matrix.
BY_INPUTS: Final = frozenset(
    {"o_proj", "wo", "down_proj", "w2", "out_proj", "fc2", "fc_out", "dense_4h_to_h"}
)
_FUSED_HEADS: Final = frozenset({"qkv_proj", "query_key_value", "c_attn"})
# GPT-2 keeps its matrices the other way around: inputs are rows.
_TURNED: Final = frozenset({"gpt2", "openai-gpt"})
_BY_HEAD: Final = frozenset({"gpt_neox", "bloom", "gpt_neox_japanese"})
_PACKED: Final = frozenset({"qweight", "qzeros", "g_idx", "scales", "weight_packed", "absmax"})
_SCALES: Final = frozenset({"weight_scale", "weight_scale_inv"})
_WAY_OUT: Final = (
    "Choose another number of ranks, or keep such tensors whole on every rank (keep_whole, --whole)."
)


@dataclass(frozen=True, slots=True)
class Portion:
    """What a rank holds of a tensor: `ranges` of places along axis `dim`, which follow each other in its part."""

    dim: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        """Places along the axis."""
        return sum(end - begin for begin, end in self.ranges)

    def shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """The part's shape, for the whole tensor's."""
        return (*whole[: self.dim], self.length, *whole[self.dim + 1 :])


def key_value_slice(rank: int, degree: int, heads: int) -> tuple[int, int]:
    """Which part of how many a rank holds of keys and values. Raises InvalidInputError if heads would be cut."""
    if heads >= degree and heads % degree == 0:
        return rank, degree
    if heads < degree and degree % heads == 0:
        return rank * heads // degree, heads
    raise InvalidInputError(
        f"{heads} key and value heads are not dealt out evenly to {degree} ranks",
        hint="Choose a number of ranks that divides the heads, or is a multiple of them.",
    )


def portion_of(
    name: str, shape: Sequence[int], model: Architecture, *, rank: int, degree: int
) -> Portion | None:
    """What rank number `rank` of `degree` holds of a checkpoint's tensor; None: all of it.

    Raises InvalidInputError where a rule asks for a division that does not come out even, or that cannot be told.
    """
    if degree == 1:
        return None
    module, parent, kind = _module_of(name)
    if module not in BY_OUTPUTS | BY_INPUTS | _FUSED_HEADS | {"gate_up_proj", "c_fc", "c_proj"} and not (
        module == "dense" and parent in {"attention", "self_attention", "self_attn"}
    ):
        return None
    if kind in _PACKED:
        _refuse(name, f"its {kind} packs several weights into a number, and how is not known here")
    deal = _Deal(name, tuple(shape), model, rank, degree, kind)
    if len(shape) == 3:
        return deal.of_stacked_experts(module)
    if module in BY_INPUTS or module in {"dense", "c_proj"}:
        return deal.by_inputs(turned=module == "c_proj" and model.model_type in _TURNED)
    return deal.by_outputs(module)


def _module_of(name: str) -> tuple[str, str, str]:
    """The module that a tensor belongs to, the module around that, and what the tensor is to it."""
    parts = ["", "", *name.split(".")]
    if parts[-1] in {
        "gate_up_proj",
        "down_proj",
    }:  # experts stacked in one tensor, without a module of their own
        return parts[-1], parts[-2], "weight"
    return parts[-2], parts[-3], parts[-1]


def _refuse(name: str, why: str) -> NoReturn:
    raise InvalidInputError(f"tensor {name!r} cannot be dealt out to ranks: {why}", hint=_WAY_OUT)


@dataclass(frozen=True, slots=True)
class _Deal:
    """One tensor and one rank."""

    name: str
    shape: tuple[int, ...]
    model: Architecture
    rank: int
    degree: int
    kind: str

    def by_outputs(self, module: str) -> Portion | None:
        """Of a matrix or a bias (or scales, one an output)."""
        if self.kind in _SCALES and _elements(self.shape) == 1:
            return None
        turned = self.model.model_type in _TURNED and module in {"c_attn", "c_fc"}
        dim = 1 if turned and self.kind == "weight" else 0
        if not self.shape:
            _refuse(self.name, "it has no axis")
        size = self._size(dim)
        if module in KEY_VALUE:
            return Portion(dim, (self._heads_of_keys(0, size),))
        if module in _HEADS:
            return Portion(dim, (self._heads_of_queries(0, size),))
        if module in _FUSED_HEADS:
            return Portion(dim, self._fused_heads(module, size))
        if module == "gate_up_proj":
            return Portion(dim, self._halves(size))
        return Portion(dim, (self._even(0, size, "outputs" if module not in _VOCABULARY else "words"),))

    def by_inputs(self, *, turned: bool) -> Portion | None:
        """Of a matrix whose results are added up over ranks; what is added afterwards is whole."""
        dim = 0 if turned else 1
        if self.kind in _SCALES:
            # One for the matrix, or one an output; only block-wise scales run along the inputs.
            if len(self.shape) < 2 or self.shape[1] == 1:
                return None
        elif self.kind != "weight":
            return None
        return Portion(dim, (self._even(0, self._size(dim), "inputs"),))

    def of_stacked_experts(self, module: str) -> Portion | None:
        """Of a tensor with an axis of experts in front: each expert's matrix is dealt out alike."""
        if self.model.model_type == "gpt_oss":
            _refuse(self.name, "this family interleaves gate and up")
        turned = self.model.model_type in {"llama4", "llama4_text"}
        if module == "gate_up_proj":
            dim = 2 if turned else 1
            return Portion(dim, self._halves(self._size(dim)))
        if module == "down_proj":
            dim = 1 if turned else 2
            return Portion(dim, (self._even(0, self._size(dim), "inputs"),))
        _refuse(self.name, f"it has three axes {list(self.shape)}, which this module has no rule for")

    def _size(self, dim: int) -> int:
        if dim >= len(self.shape):
            _refuse(self.name, f"its shape {list(self.shape)} has no axis {dim}")
        return self.shape[dim]

    def _even(self, begin: int, size: int, what: str) -> tuple[int, int]:
        if size % self.degree:
            _refuse(self.name, f"{size} {what} are no multiple of {self.degree} ranks")
        each = size // self.degree
        return begin + self.rank * each, begin + (self.rank + 1) * each

    def _halves(self, size: int) -> tuple[tuple[int, int], ...]:
        if size % 2:
            _refuse(self.name, f"{size} along the fused axis are not two halves")
        half = size // 2
        return self._even(0, half, "outputs"), self._even(half, half, "outputs")

    def _heads(self) -> tuple[int, int]:
        heads, kv_heads = self.model.heads, self.model.key_value_heads
        if heads is None or kv_heads is None:
            raise InvalidInputError(
                f"tensor {self.name!r} is dealt out by heads, and nothing says how many there are",
                hint="Put the model's config.json beside its weights.",
            )
        return heads, kv_heads

    def _heads_of_queries(self, begin: int, size: int) -> tuple[int, int]:
        heads, _ = self._heads()
        if heads % self.degree:
            _refuse(self.name, f"{heads} heads are no multiple of {self.degree} ranks")
        if size % heads and self.kind not in _SCALES:
            _refuse(self.name, f"{size} outputs are no multiple of {heads} heads")
        return self._even(begin, size, "outputs")

    def _heads_of_keys(self, begin: int, size: int) -> tuple[int, int]:
        _, heads = self._heads()
        part, parts = key_value_slice(self.rank, self.degree, heads)
        if (size % heads and self.kind not in _SCALES) or size % parts:
            _refuse(self.name, f"{size} outputs are no multiple of {heads} key and value heads")
        each = size // parts
        return begin + part * each, begin + (part + 1) * each

    def _fused_heads(self, module: str, size: int) -> tuple[tuple[int, int], ...]:
        heads, kv_heads = self._heads()
        if module == "query_key_value":
            if self.model.model_type not in _BY_HEAD:
                _refuse(self.name, f"how {self.model.model_type or 'this family'} fuses heads is not known")
            return (self._heads_of_queries(0, size),)  # query, key and value of a head lie together
        if module == "c_attn":
            if self.model.model_type not in _TURNED:
                _refuse(self.name, f"how {self.model.model_type or 'this family'} fuses heads is not known")
            kv_heads = heads
        if size % (heads + 2 * kv_heads):
            _refuse(self.name, f"{size} outputs are no multiple of {heads} + 2 x {kv_heads} heads")
        each = size // (heads + 2 * kv_heads)
        queries, keys = heads * each, kv_heads * each
        return (
            self._heads_of_queries(0, queries),
            self._heads_of_keys(queries, keys),
            self._heads_of_keys(queries + keys, keys),
        )


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
