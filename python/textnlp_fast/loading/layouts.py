"""How engines with tensor parallelism keep the weights of Llama-like models: rules by name, in one place.

Column-parallel matrices (the first of a pair) are dealt out by rows of the checkpoint's tensor, row-parallel ones by
columns, embeddings by rows; norms, and biases that are added after the sum over ranks, are whole on every rank. Query,
key and value are fused into one, and so are gate and up. Source: Shoeybi et al., "Megatron-LM" (arXiv:1909.08053), and
the names that vLLM and SGLang give to what they fuse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.sliced import Part
from textnlp_fast.loading.slices import Slice

__all__ = ["layout_of_rank"]

#: By the module's name in memory, those of the checkpoint.
_FUSED: Final = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
_BY_ROWS: Final = {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens", "lm_head"}
_BY_COLUMNS: Final = {"o_proj", "down_proj"}
#: Fewer heads than ranks: several ranks hold the same ones.
_KEY_VALUE: Final = {"k_proj", "v_proj"}


def layout_of_rank(
    names: Iterable[str], *, rank: int, degree: int, key_value_heads: int | None = None
) -> dict[str, tuple[Part, ...]]:
    """What rank ``rank`` of ``degree`` has in memory under ``names``, as :func:`textnlp_fast.swap` takes it.

    Names are those of the engine: ``model.layers.0.self_attn.qkv_proj.weight``. Those that are whole and not fused are
    left out. With fewer ``key_value_heads`` than ranks, which the model's configuration says, neighbours hold the same
    head.
    """
    layout: dict[str, tuple[Part, ...]] = {}
    for name in names:
        module, dot, kind = name.rpartition(".")
        path, _, last = module.rpartition(".")
        sources = _FUSED.get(last, (last,))
        parts = tuple(
            Part(
                f"{path}.{source}{dot}{kind}" if path else f"{source}{dot}{kind}",
                _slice_of(source, kind, rank, degree, key_value_heads),
            )
            for source in sources
        )
        if len(parts) > 1 or parts[0].slice is not None:
            layout[name] = parts
    return layout


def _slice_of(module: str, kind: str, rank: int, degree: int, key_value_heads: int | None) -> Slice | None:
    if degree == 1:
        return None
    if module in _KEY_VALUE and key_value_heads is not None and key_value_heads < degree:
        if degree % key_value_heads:
            raise InvalidInputError(
                f"{key_value_heads} key and value heads are not dealt out evenly to {degree} ranks",
                hint="Write the layout by hand, as the engine deals them out.",
            )
        return Slice(0, rank * key_value_heads // degree, key_value_heads)
    if module in _BY_ROWS:
        return Slice(0, rank, degree)
    # A bias behind the sum over ranks is whole.
    return Slice(1, rank, degree) if module in _BY_COLUMNS and kind == "weight" else None
