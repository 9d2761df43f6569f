"""Matching on small models that were trained a little and then renamed, cut, turned or cast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from delta.matching import (
    BF16,
    H,
    best,
    expect,
    llama,
    made,
    tensors,
    trained,
    weights,
)
from textnlp_fast.delta.match import match
from textnlp_fast.delta.recipe import Cast


def test_the_same_contents_and_the_same_names() -> None:
    old = llama()
    new = {name: trained(values) if "proj" in name else values for name, values in old.items()}
    found = best(old, new)
    for name, candidate in found.items():
        assert candidate is not None
        assert made(candidate.recipe, old) == old[name].tobytes()
        assert candidate.reason.startswith("the same name" if "proj" in name else "the same content")
        assert (candidate.bits == 0) == ("proj" not in name)


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name.removeprefix("model."),
        lambda name: f"module.{name}",
        lambda name: name.replace("layers", "h").replace("self_attn", "attn").replace(".weight", ".w"),
        lambda name: str(hash(name)),
    ],
    ids=["prefix removed", "prefix added", "another scheme", "no names"],
)
def test_renamed(renamed: Callable[[str], str]) -> None:
    old = llama()
    expect(old, {renamed(name): (trained(values), values) for name, values in old.items() if values.ndim > 1})


def test_layers_dropped_and_numbered_anew() -> None:
    """Every name of the new model is in the old one, and means another layer there."""
    old = llama(layers=5)
    kept = [0, 2, 4]
    cases = {}
    for number, layer in enumerate(kept):
        for name, values in old.items():
            if name.startswith(f"model.layers.{layer}."):
                new_name = name.replace(f"layers.{layer}.", f"layers.{number}.")
                cases[new_name] = (trained(values), values)
    expect(old, cases)


def test_norms_follow_their_neighbours() -> None:
    """A norm that changed a lot looks like nothing, but the layer that it is in moved from 1 to 0."""
    old = llama(layers=2)
    name = "model.layers.1.self_attn.q_proj.weight"
    norm = "model.layers.1.input_layernorm.weight"
    other = (1 + weights(np.random.default_rng(5), H, dtype=np.float32)).astype(BF16)
    new = {"h.0.self_attn.q_proj.weight": trained(old[name]), "h.0.input_layernorm.weight": other}
    found = match(tensors(old), tensors(new))
    assert [made(one.recipe, old) for one in found[1]] == [old[norm].tobytes()]
    assert "neighbours" in found[1][0].reason


def test_tied_and_untied_embeddings() -> None:
    old = llama(layers=1)
    embedding = old["model.embed_tokens.weight"]
    expect(old, {"lm_head.weight": (embedding, embedding)})
    expect(
        old,
        {
            "lm_head.weight": (trained(embedding, seed=1), embedding),
            "model.embed_tokens.weight": (trained(embedding, seed=2), embedding),
        },
    )


def test_turned_and_reshaped() -> None:
    old = llama(layers=2)
    cases = {}
    for layer in range(2):
        for kind in ("self_attn.k_proj", "mlp.up_proj"):
            values = old[f"model.layers.{layer}.{kind}.weight"]
            turned = np.ascontiguousarray(values.T)
            cases[f"h.{layer}.{kind}.turned"] = (trained(turned), turned)
            flat = values.reshape(4, -1)
            cases[f"h.{layer}.{kind}.flat"] = (trained(flat), flat)
    square = old["model.layers.1.self_attn.q_proj.weight"]
    cases["h.1.square"] = (trained(np.ascontiguousarray(square.T)), np.ascontiguousarray(square.T))
    expect(old, cases)


def test_grown_and_shrunk_vocabularies() -> None:
    old = llama(layers=1)
    embedding = old["model.embed_tokens.weight"]
    more = weights(np.random.default_rng(8), 12, H)
    zeros = np.zeros((12, H), BF16)
    grown = np.concatenate([embedding, more])
    in_front = np.concatenate([more, embedding])
    expect(
        old,
        {
            "model.embed_tokens.weight": (trained(grown), np.concatenate([embedding, zeros])),
            "lm_head.weight": (trained(grown, seed=4), np.concatenate([embedding, zeros])),
            "in_front": (trained(in_front), np.concatenate([zeros, embedding])),
            "short": (trained(embedding[:480]), embedding[:480]),
        },
    )


@pytest.mark.parametrize(
    ("old_type", "new_type"), [(np.float32, BF16), (BF16, np.float16), (np.float16, np.float32)]
)
def test_other_types(old_type: Any, new_type: Any) -> None:
    old = llama(layers=2, dtype=old_type)
    expect(
        old,
        {
            name if number % 2 else f"x.{name}": (trained(values).astype(new_type), values.astype(new_type))
            for number, (name, values) in enumerate(old.items())
            if values.ndim > 1
        },
    )


def test_rows_in_the_other_rotary_order() -> None:
    rng = np.random.default_rng(4)
    old = {f"layers.{n}.attention.wq.weight": weights(rng, 256, 512) for n in range(2)}
    cases = {}
    for n, values in enumerate(old.values()):
        other = np.ascontiguousarray(values.reshape(-1, 32, 2, 512).transpose(0, 2, 1, 3).reshape(256, 512))
        cases[f"model.layers.{n}.self_attn.q_proj.weight"] = (trained(other), other)
    expect(old, cases)


def test_a_cast_is_said_to_be_one() -> None:
    old = llama(layers=1, dtype=np.float32)
    name = "model.layers.0.mlp.up_proj.weight"
    candidate = best(old, {name: old[name].astype(BF16)})[name]
    assert candidate is not None
    assert isinstance(candidate.recipe, Cast)
    assert candidate.bits == 0
    assert candidate.reason.endswith("cast from F32")
