"""How engines with tensor parallelism keep the weights of Llama-like models.

What a rank holds of a checkpoint's tensor, `tensors.parallel` says. Here is what engines make of it: query, key and
value are fused into one, and so are gate and up, under the names that vLLM and SGLang give them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.sliced import Part
from textnlp_fast.tensors.architecture import Architecture, parse_architecture
from textnlp_fast.tensors.parallel import BY_INPUTS, BY_OUTPUTS, KEY_VALUE, key_value_slice, portion_of
from textnlp_fast.tensors.slices import Slice

__all__ = ["layout_of_rank", "slices_of_rank"]

#: By the module's name in memory, those of the checkpoint.
_FUSED: Final = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
#: Under other names (experts, above all) engines keep what they have packed in ways of their own.
_DEALT_OUT: Final = frozenset(
    {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"}
)


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


def slices_of_rank(
    shapes: Mapping[str, Sequence[int]], config: str | bytes | None = None, *, rank: int, degree: int
) -> dict[str, Slice]:
    """What rank ``rank`` of ``degree`` holds of a checkpoint's tensors, as :func:`textnlp_fast.load` takes it.

    ``shapes`` are those of the tensors by name, ``config`` the text of the model's config.json, which counts heads.
    Tensors that are whole are left out. Raises InvalidInputError for what cannot be dealt out evenly, and for fused
    tensors of which a rank holds several stretches: `storage.shard_model` makes files of these.
    """
    model = Architecture() if config is None else parse_architecture(config)
    slices: dict[str, Slice] = {}
    for name, shape in shapes.items():
        portion = portion_of(name, shape, model, rank=rank, degree=degree)
        if portion is None:
            continue
        (begin, end), *more = portion.ranges
        size = shape[portion.dim]
        if more or size % (end - begin):
            raise InvalidInputError(
                f"tensor {name!r} is fused: rank {rank} holds several stretches of it",
                hint="Shard the checkpoint for the ranks (textnlp-fast shard --strategy tensor_parallel).",
            )
        slices[name] = Slice(portion.dim, begin // (end - begin), size // (end - begin))
    return slices


def _slice_of(module: str, kind: str, rank: int, degree: int, key_value_heads: int | None) -> Slice | None:
    if degree == 1 or module not in _DEALT_OUT:
        return None
    if module in KEY_VALUE and key_value_heads is not None and key_value_heads < degree:
        return Slice(0, *key_value_slice(rank, degree, key_value_heads))
    if module in BY_OUTPUTS:
        return Slice(0, rank, degree)
    # A bias behind the sum over ranks is whole.
    return Slice(1, rank, degree) if module in BY_INPUTS and kind == "weight" else None
