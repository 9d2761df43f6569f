"""Matching tensors that were joined, split, stacked or dealt out anew."""

from __future__ import annotations

import numpy as np
import pytest

from delta.matching import (
    Array,
    Model,
    expect,
    experts,
    llama,
    trained,
    weights,
)


def attention(model: Model, layer: int) -> tuple[Array, Array, Array]:
    q, k, v = (model[f"model.layers.{layer}.self_attn.{one}_proj.weight"] for one in "qkv")
    return q, k, v


def by_groups(parts: tuple[Array, ...], groups: int) -> Array:
    """Rows of the parts in turn, `groups` times."""
    cut = [part.reshape(groups, -1, part.shape[-1]) for part in parts]
    return np.ascontiguousarray(np.concatenate(cut, axis=1).reshape(-1, parts[0].shape[-1]))


FUSED = [(1, "c_attn"), (2, "two key groups"), (4, "four"), (64, "many")]


@pytest.mark.parametrize(("groups", "name"), FUSED)
def test_fused_and_split_attention(groups: int, name: str) -> None:
    old = llama()
    fused = {f"model.layers.{n}.{name}.weight": by_groups(attention(old, n), groups) for n in range(3)}
    expect(old, {one: (trained(values), values) for one, values in fused.items()})
    expect(
        fused,
        {
            f"model.layers.{n}.self_attn.{one}_proj.weight": (trained(values), values)
            for n in range(3)
            for one, values in zip("qkv", attention(old, n), strict=True)
        },
    )


@pytest.mark.parametrize("how", ["rows", "turns", "columns"])
def test_fused_and_split_gates(how: str) -> None:
    def joined(layer: int) -> Array:
        gate, up = (old[f"model.layers.{layer}.mlp.{one}_proj.weight"] for one in ("gate", "up"))
        if how == "columns":
            return np.concatenate([gate, up], axis=1)
        return by_groups((gate, up), 1 if how == "rows" else len(gate))

    rng = np.random.default_rng(3)
    old: Model = {
        f"model.layers.{layer}.mlp.{one}_proj.weight": weights(rng, 64, 1024)
        for layer in range(3)
        for one in ("gate", "up")
    }
    fused = {f"model.layers.{layer}.mlp.gate_up_proj.weight": joined(layer) for layer in range(3)}
    expect(old, {name: (trained(values), values) for name, values in fused.items()})
    expect(fused, {name: (trained(values), values) for name, values in old.items()})


def test_four_side_by_side_and_biases() -> None:
    rng = np.random.default_rng(12)
    shards = {f"down.{rank}": weights(rng, 96, 128) for rank in range(4)}
    biases = {f"{one}.bias": weights(rng, size) for one, size in (("q", 256), ("k", 128), ("v", 128))}
    columns, bias = np.concatenate(list(shards.values()), axis=1), np.concatenate(list(biases.values()))
    expect(shards | biases, {"down": (trained(columns), columns), "qkv.bias": (trained(bias), bias)})
    expect(
        {"down": columns, "qkv.bias": bias},
        {name: (trained(values), values) for name, values in (shards | biases).items()},
    )


def stacked(model: Model, layer: int, one: str, order: Array) -> Array:
    return np.stack(
        [model[f"model.layers.{layer}.mlp.experts.{number}.{one}_proj.weight"] for number in order]
    )


@pytest.mark.parametrize("permuted", [False, True])
def test_experts_stacked_and_separate(permuted: bool) -> None:
    old = experts()
    order = np.random.default_rng(6).permutation(12) if permuted else np.arange(12)
    stacks = {
        f"model.layers.{layer}.mlp.experts.{one}": stacked(old, layer, one, order)
        for layer in range(2)
        for one in ("gate", "up")
    }
    fused = np.concatenate([stacked(old, 0, "gate", order), stacked(old, 0, "up", order)], axis=1)
    expect(old, {name: (trained(values), values) for name, values in stacks.items()})
    expect(old, {"gate_up": (trained(fused), fused)})
    expect(stacks, {"gate_up": (trained(fused), fused)})
    expect(stacks, {name: (trained(values), values) for name, values in old.items()})
    again = np.random.default_rng(7).permutation(12)
    expect(stacks, {name: (trained(values[again]), values[again]) for name, values in stacks.items()})


def test_permuted_experts_of_the_same_names() -> None:
    old = experts(layers=1)
    names = list(old)
    order = np.random.default_rng(6).permutation(len(names))
    expect(
        old,
        {
            name: (trained(old[names[place]]), old[names[place]])
            for name, place in zip(names, order, strict=True)
        },
    )
