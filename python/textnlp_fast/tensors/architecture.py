"""What a model's `config.json` says of its shape, as far as dealing out its tensors needs it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["Architecture", "parse_architecture"]

_LARGEST: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Architecture:
    """Counts that a configuration gives; None where it does not say."""

    model_type: str = ""
    heads: int | None = None
    key_value_heads: int | None = None
    hidden_size: int | None = None
    experts: int | None = None
    tied: bool = False
    """Whether the output layer is the embedding, and perhaps no tensor of its own."""


def parse_architecture(text: bytes | str) -> Architecture:
    """Reads a `config.json`; a model of several parts is described by its text part.

    Raises InvalidInputError if it is no JSON object, or gives a count that is none.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"config.json is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError("config.json is not a JSON object")
    inner = document.get("text_config")
    inner = document | inner if isinstance(inner, dict) else document
    heads = _count(inner, "num_attention_heads", "n_head", "n_heads")
    return Architecture(
        model_type=str(inner.get("model_type") or ""),
        heads=heads,
        # Where a configuration does not speak of them, each head has keys and values of its own.
        key_value_heads=_count(inner, "num_key_value_heads", "num_kv_heads", "n_kv_heads") or heads,
        hidden_size=_count(inner, "hidden_size", "n_embd", "dim", "d_model"),
        experts=_count(inner, "num_local_experts", "num_experts", "n_routed_experts"),
        tied=inner.get("tie_word_embeddings") is True,
    )


def _count(document: dict[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = document.get(key)
        if value is None:
            continue
        if type(value) is not int or not 0 < value < _LARGEST:
            raise InvalidInputError(f"config.json: {key} is {str(value)[:80]!r}, which is no count")
        return value
    return None
