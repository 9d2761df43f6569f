"""Reads a Hugging Face `config.json` into a shape. It comes from whoever published the model: it is not trusted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.recommender.precision import weight_format
from textnlp_fast.gpu.recommender.shape import LatentAttention, ModelShape

__all__ = ["ReadModel", "parse_config", "read_model"]

_LIMIT_BYTES: Final = 4 << 20
_NAMES: Final = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "intermediate": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk"),
    "max_context": ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"),
}
# Sizes that change nothing here: generation, initialisation, routing groups, rotary embeddings, drafting layers.
_HARMLESS: Final = frozenset(
    """attention_dropout pad_token_id bos_token_id eos_token_id rms_norm_eps initializer_range head_dim rope_scaling
    rope_theta vocab_size sliding_window max_window_layers layer_types sliding_window_pattern decoder_sparse_step
    mlp_only_layers moe_intermediate_size shared_expert_intermediate_size n_shared_experts first_k_dense_replace
    moe_layer_freq q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim num_nextn_predict_layers
    ep_size pretraining_tp router_aux_loss_coef n_group topk_group partial_rotary_factor rope_ratio
    num_return_sequences num_beams num_beam_groups type_vocab_size qk_head_dim rotary_dim rope_local_base_freq
    query_pre_attn_scalar hidden_dropout_prob attention_probs_dropout_prob head_dim_global num_experts_per_group
    max_length min_length no_repeat_ngram_size top_k_experts chunk_size_feed_forward layer_norm_eps
    encoder_no_repeat_ngram_size rotary_emb_base residual_dropout embd_dropout tokenizer_vocab_size
    rotary_pct original_max_position_embeddings hidden_activation hidden_act norm_topk_prob attention_multiplier
    residual_multiplier logits_scaling embedding_multiplier use_sliding_window max_seq_len_cached
    rope_parameters swiglu_limit mtp_transformer_layers num_mtp_modules initial_context_length use_qk_norm""".split()  # noqa: SIM905 - a page of quotes reads worse
) | {name for names in _NAMES.values() for name in names}
# What is in such keys says how large something is: if it is not understood, every figure here may be wrong.
_SIZE: Final = re.compile(
    r"(^|_)(size|dim|dims|rank|width|heads?|layers?|experts?|window|ssm|mamba|conv|state|block_size|chunk|pattern|"
    r"indexer|index|linear|recurrent|cross|encoder|lru|interleave|configs)(_|$)"
)
_LATENT_FAMILIES: Final = ("deepseek_v2", "deepseek_v3", "kimi_k2")


class ReadModel:
    """A shape, and what the file says of its weights' format and of what was not understood."""

    def __init__(self, shape: ModelShape, *, weights: str, notes: tuple[str, ...] = ()) -> None:
        self.shape = shape
        self.weights = weights
        """The format in which the model was published: a name of `precision.WEIGHTS`."""
        self.notes = notes


def read_model(path: str | os.PathLike[str], *, ignore_unknown: bool = False) -> ReadModel:
    """The model whose `config.json`, or whose folder with one, lies at `path`. Raises InvalidInputError."""
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    try:
        with file.open("rb") as stream:
            data = stream.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(
            f"{file} cannot be read: {error.strerror or error}",
            hint="Give a config.json or the folder with it, or --params with the number of parameters.",
        ) from None
    name = file.resolve().parent.name if file.name == "config.json" else file.stem
    return parse_config(data, name=name, ignore_unknown=ignore_unknown)


def parse_config(data: bytes | str, *, name: str = "model", ignore_unknown: bool = False) -> ReadModel:
    """The model that the text of a `config.json` describes.

    Raises InvalidInputError for what is no JSON object, lacks a size, has one that no model has, or has keys that look
    like sizes and are not known here; `ignore_unknown` makes notes of the last.
    """
    if len(data) > _LIMIT_BYTES:
        raise InvalidInputError(f"this is no config.json: it is larger than {_LIMIT_BYTES} bytes")
    try:
        config = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"config.json is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise InvalidInputError("config.json holds no object")
    notes: list[str] = []
    inner = config.get("text_config")
    if isinstance(inner, dict):
        notes.append("only the text model is counted, not what encodes images or sound")
        config = {
            **{k: v for k, v in config.items() if k in ("quantization_config", "torch_dtype", "dtype")},
            **inner,
        }
    unknown = sorted(key for key in config if _SIZE.search(key) and key not in _HARMLESS and config[key])
    unknown = [key for key in unknown if not isinstance(config[key], (bool, str))]
    if unknown and not ignore_unknown:
        raise InvalidInputError(
            f"config.json has sizes that are not known here: {', '.join(unknown)[:200]}",
            hint="The figures may be wrong with them: say so if you know they are not (ignore_unknown, "
            "--ignore-unknown-keys), or give the number of parameters (--params).",
        )
    notes += [f"{key} is not known here and was ignored" for key in unknown]
    return ReadModel(_shape(config, name), weights=_weights(config), notes=tuple(notes))


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no size")


def _integer(config: Mapping[str, Any], names: tuple[str, ...], default: int | None = None) -> int:
    for key in names:
        value = config.get(key)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidInputError(f"config.json: {key} is {str(value)[:40]!r}, not a whole number")
            if not 0 <= value <= 10**9:
                raise InvalidInputError(f"config.json: {key} cannot be {str(value)[:40]}")
            return value
    if default is None:
        raise InvalidInputError(
            f"config.json has no {names[0]}",
            hint="Is it a decoder's? Else give --params, the number of parameters.",
        )
    return default


def _shape(config: dict[str, Any], name: str) -> ModelShape:
    family = config.get("model_type")
    if family is not None and not isinstance(family, str):
        raise InvalidInputError("config.json: model_type is no name")
    layers, hidden, heads = (_integer(config, _NAMES[key]) for key in ("layers", "hidden", "heads"))
    if heads < 1 or hidden < 1 or layers < 1:
        raise InvalidInputError(
            f"config.json: no model has {layers} layers of width {hidden} with {heads} heads"
        )
    kv_heads = _integer(config, _NAMES["kv_heads"], 1 if config.get("multi_query") is True else heads)
    head_dim = _integer(config, ("head_dim",), hidden // heads)
    intermediate = _integer(config, _NAMES["intermediate"], 4 * hidden)
    latent = _latent(config) if config.get("kv_lora_rank") else None
    if family in _LATENT_FAMILIES and latent is None:
        raise InvalidInputError(f"config.json: a {family} has a kv_lora_rank")
    window, window_layers = _window(config, layers, family)
    experts = _integer(config, _NAMES["experts"], 0)
    extra = _experts(config, layers, experts, intermediate) if experts > 1 else {}
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads if latent else kv_heads,
        head_dim=latent.nope_head_dim + latent.rope_head_dim if latent else head_dim,
        intermediate=intermediate,
        vocabulary=_integer(config, ("vocab_size",)),
        gated=family
        not in ("gpt2", "opt", "gpt_neox", "falcon", "phi", "gpt_bigcode", "starcoder2", "bloom", "mpt"),
        tied_embeddings=_tied(config, family),
        qkv_bias=config.get("attention_bias") is True or family in ("qwen2", "qwen2_moe"),
        qk_norm=family in ("qwen3", "qwen3_moe", "gemma3_text"),
        norms_a_layer=4 if family in ("gemma2", "gemma3_text") else 2,
        expert_bias=family in ("deepseek_v3", "kimi_k2"),
        max_context=_integer(config, _NAMES["max_context"], 0) or None,
        latent=latent,
        window=window,
        window_layers=window_layers,
        **extra,
    )


def _tied(config: Mapping[str, Any], family: str | None) -> bool:
    tied = config.get("tie_word_embeddings")
    # The value that transformers assumes where a file does not say.
    return (
        tied
        if isinstance(tied, bool)
        else family in ("gemma", "gemma2", "gemma3_text", "gpt2", "opt", "bloom")
    )


def _latent(config: Mapping[str, Any]) -> LatentAttention:
    return LatentAttention(
        query_rank=_integer(config, ("q_lora_rank",), 0),
        kv_rank=_integer(config, ("kv_lora_rank",)),
        nope_head_dim=_integer(config, ("qk_nope_head_dim",)),
        rope_head_dim=_integer(config, ("qk_rope_head_dim",)),
        value_head_dim=_integer(config, ("v_head_dim",)),
    )


def _window(config: Mapping[str, Any], layers: int, family: str | None) -> tuple[int | None, int]:
    """The window's size and how many layers have one."""
    size = _integer(config, ("sliding_window",), 0)
    if not size or config.get("use_sliding_window") is False:
        return None, 0
    kinds = config.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != layers:
            raise InvalidInputError("config.json: layer_types does not name a type for each layer")
        return size, sum(1 for kind in kinds if kind == "sliding_attention")
    every = _integer(config, ("sliding_window_pattern",), 6 if family == "gemma3_text" else 0)
    if every:
        return size, layers - layers // every
    if family == "gemma2":
        return size, layers - layers // 2
    if family in ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"):
        # Layers from max_window_layers on have the window.
        return size, max(0, layers - _integer(config, ("max_window_layers",), layers))
    return size, layers


def _experts(config: Mapping[str, Any], layers: int, experts: int, intermediate: int) -> dict[str, int]:
    width = _integer(config, ("moe_intermediate_size",), intermediate)
    shared = _integer(config, ("shared_expert_intermediate_size",), 0)
    shared = shared or _integer(config, ("n_shared_experts",), 0) * width
    dense = _integer(config, ("first_k_dense_replace",), 0)
    only = config.get("mlp_only_layers")
    if isinstance(only, list):
        dense += len({one for one in only if isinstance(one, int) and 0 <= one < layers})
    step = max(1, _integer(config, ("decoder_sparse_step",), 1))
    return {
        "experts": experts,
        "experts_per_token": _integer(config, _NAMES["experts_per_token"]),
        "expert_intermediate": width,
        "shared_intermediate": shared,
        "expert_layers": max(0, (layers - dense)) // step,
    }


def _weights(config: Mapping[str, Any]) -> str:
    """The format in which the weights were published."""
    quantised = config.get("quantization_config")
    if quantised is not None and not isinstance(quantised, dict):
        raise InvalidInputError(
            f"config.json: its quantization_config is {quantised!r:.60} and no object",
            hint="Without it the format of the weights would be a guess: fetch the file again.",
        )
    if quantised is not None:
        method = str(quantised.get("quant_method", "")).lower()
        bits = quantised.get("bits")
        if method in ("awq", "gptq", "bitsandbytes") and isinstance(bits, int):
            return {4: "int4", 8: "int8"}.get(bits) or _refuse(f"{method} of {bits} bits")
        if method == "bitsandbytes":
            return "int4" if quantised.get("load_in_4bit") is True else "int8"
        if method == "mxfp4":
            return "int4"
        if method in ("fp8", "fbgemm_fp8") or "fp8" in str(quantised.get("quant_algo", "")).lower():
            return "fp8-block" if quantised.get("weight_block_size") else "fp8"
        _refuse(method or "no name")
    name = config.get("torch_dtype", config.get("dtype", "bfloat16"))
    # Engines load float32 at 16 bit.
    found = weight_format(str(name)[:40]).name
    return "bf16" if found == "fp32" else found


def _refuse(what: str) -> str:
    raise InvalidInputError(
        f"config.json: a quantisation by {what[:60]!r} is not known here",
        hint="Say which it is like: --weights int4.",
    )
