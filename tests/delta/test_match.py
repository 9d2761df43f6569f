"""Matching on small models that were trained a little and then renamed, cut, joined or turned.

What a match is worth is judged by its base: it must be, byte for byte, what numpy makes of the source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.delta import probing
from textnlp_fast.delta.match import Candidate, Tensor, match
from textnlp_fast.delta.recipe import Cast, Recipe, Whole, from_json
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.hashing import blake3_hex

Array = npt.NDArray[Any]
Model = dict[str, Array]

BF16 = ml_dtypes.bfloat16
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "uint8": "U8", "int8": "I8", "int32": "I32"}
H = 256  # the width of the models


class Reads:
    """Counts what is read of the tensors that it makes."""

    def __init__(self) -> None:
        self.count = self.bytes = self.largest = 0

    def tensor(self, name: str, values: Array) -> Tensor:
        data = values.tobytes()

        def read(begin: int, end: int) -> bytes:
            assert 0 <= begin <= end <= len(data)
            self.count += 1
            self.bytes += end - begin
            self.largest = max(self.largest, end - begin)
            return data[begin:end]

        return Tensor(name, DTYPES[values.dtype.name], values.shape, blake3_hex(data), len(data), read)


def tensors(model: Model, reads: Reads | None = None) -> list[Tensor]:
    counted = reads or Reads()
    return [counted.tensor(name, values) for name, values in model.items()]


def weights(rng: np.random.Generator, *shape: int, dtype: Any = BF16) -> Array:
    return (rng.standard_normal(shape) * 0.02).astype(dtype)


def trained(values: Array, rate: float = 2e-4, seed: int = 9) -> Array:
    """The tensor after some steps: every value moved by about a hundredth of its size."""
    rng = np.random.default_rng((seed, values.size))
    moved = values.astype(np.float32) + rng.standard_normal(values.shape).astype(np.float32) * rate
    return moved.astype(values.dtype)


def llama(layers: int = 3, seed: int = 1, dtype: Any = BF16) -> Model:
    rng = np.random.default_rng(seed)
    model: Model = {"model.embed_tokens.weight": weights(rng, 500, H, dtype=dtype)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        model[f"{at}.input_layernorm.weight"] = (1 + weights(rng, H, dtype=np.float32)).astype(dtype)
        model[f"{at}.self_attn.q_proj.weight"] = weights(rng, 256, H, dtype=dtype)
        model[f"{at}.self_attn.k_proj.weight"] = weights(rng, 128, H, dtype=dtype)
        model[f"{at}.self_attn.v_proj.weight"] = weights(rng, 128, H, dtype=dtype)
        model[f"{at}.self_attn.o_proj.weight"] = weights(rng, H, 256, dtype=dtype)
        model[f"{at}.mlp.gate_proj.weight"] = weights(rng, 384, H, dtype=dtype)
        model[f"{at}.mlp.up_proj.weight"] = weights(rng, 384, H, dtype=dtype)
        model[f"{at}.mlp.down_proj.weight"] = weights(rng, H, 384, dtype=dtype)
    model["model.norm.weight"] = (1 + weights(rng, H, dtype=np.float32)).astype(dtype)
    return model


def made(recipe: Recipe, sources: Model) -> bytes:
    held = {blake3_hex(values.tobytes()): values.tobytes() for values in sources.values()}
    recipe.check_sources({digest: len(data) for digest, data in held.items()})
    return bytes(recipe.read(0, recipe.size_bytes, lambda digest, begin, end: held[digest][begin:end]))


def best(sources: Model, targets: Model) -> dict[str, Candidate | None]:
    found = match(tensors(sources), tensors(targets))
    return {name: (line[0] if line else None) for name, line in zip(targets, found, strict=True)}


def expect(sources: Model, cases: dict[str, tuple[Array, Array]], others: Model | None = None) -> None:
    """Match targets against sources: of each target, (itself, the base that it should get)."""
    found = best(sources, {name: target for name, (target, _) in cases.items()} | (others or {}))
    for name, (target, base) in cases.items():
        candidate = found[name]
        assert candidate is not None, name
        assert made(candidate.recipe, sources) == base.tobytes(), f"{name}: {candidate.reason}"
        assert target.nbytes == candidate.recipe.size_bytes


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


def test_types_of_less_than_a_byte() -> None:
    """Two values a byte: the shape counts more elements than there are bytes."""
    data = [np.random.default_rng(seed).bytes(64 * 128) for seed in (1, 2)]
    old, new = (
        Tensor(name, "F4", shape, blake3_hex(raw), len(raw), lambda begin, end, raw=raw: raw[begin:end])
        for name, shape, raw in (("a", (256, 64), data[0]), ("b", (64, 256), data[1]))
    )
    assert match([old], [new]) == [[]]
    near = bytearray(data[0])
    near[::50] = bytes(len(near[::50]))
    other = Tensor("c", "F4", (256, 64), blake3_hex(near), len(near), lambda begin, end: near[begin:end])
    assert [one.recipe for one in match([old], [other])[0]] == [Whole(old.digest, old.size_bytes)]


def test_a_tensor_that_ends_too_soon() -> None:
    old = tensors(llama(layers=1))
    short = Tensor("x", "BF16", (500, H), "0" * 64, 500 * H * 2, lambda begin, end: b"")
    with pytest.raises(InvalidInputError, match="leave it alone"):
        match(old, [short])


@st.composite
def odd_models(draw: st.DrawFn) -> tuple[Model, Model]:
    """Two models whose tensors share values but little else: any shapes, types and names, cut anywhere."""
    pool = draw(st.sampled_from([np.float32, BF16, np.uint8]))
    values = (np.random.default_rng(draw(st.integers(0, 9))).standard_normal(6000) * 50).astype(pool)

    def model(label: str) -> Model:
        made_up: Model = {}
        for number in range(draw(st.integers(1, 6))):
            shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 16, 32, 64]), max_size=3)))
            size = int(np.prod(shape))
            if size > 4000:
                continue
            begin = draw(st.sampled_from([0, 64, 128, 512, 1024]))
            name = draw(st.sampled_from([f"{label}.{number}", f"both.{number}"]))
            made_up[name] = values[begin : begin + size].reshape(shape)
            if draw(st.booleans()) and made_up[name].ndim == 2:
                made_up[name] = np.ascontiguousarray(made_up[name].T)
            if draw(st.booleans()):
                made_up[name] = trained(made_up[name], rate=0.5)
        return made_up

    return model("old"), model("new")


@settings(max_examples=150)
@given(odd_models())
def test_whatever_is_found_can_be_made(models: tuple[Model, Model]) -> None:
    old, new = models
    found = match(tensors(old), tensors(new))
    assert len(found) == len(new)
    for (name, values), line in zip(new.items(), found, strict=True):
        for candidate in line:
            assert len(made(candidate.recipe, old)) == values.nbytes, name
            dtype = DTYPES[values.dtype.name]
            read = from_json(candidate.recipe.to_json(), size_bytes=values.nbytes, dtype=dtype)
            assert read == candidate.recipe


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


def experts(layers: int = 2, count: int = 12) -> Model:
    rng = np.random.default_rng(2)
    return {
        f"model.layers.{layer}.mlp.experts.{number}.{one}_proj.weight": weights(rng, 48, H)
        for layer in range(layers)
        for number in range(count)
        for one in ("gate", "up")
    }


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


def test_rows_in_the_other_rotary_order() -> None:
    rng = np.random.default_rng(4)
    old = {f"layers.{n}.attention.wq.weight": weights(rng, 256, 512) for n in range(2)}
    cases = {}
    for n, values in enumerate(old.values()):
        other = np.ascontiguousarray(values.reshape(-1, 32, 2, 512).transpose(0, 2, 1, 3).reshape(256, 512))
        cases[f"model.layers.{n}.self_attn.q_proj.weight"] = (trained(other), other)
    expect(old, cases)


def test_unrelated_models_do_not_match() -> None:
    """Same names, same shapes, another seed: nothing but the small norms may claim a base, and those by name."""
    old = llama(layers=4) | experts()
    new = llama(layers=4, seed=77) | {name: weights(np.random.default_rng(5), 48, H) for name in experts()}
    rng = np.random.default_rng(6)
    new |= {"stack": weights(rng, 12, 48, H), "qkv": weights(rng, 512, H), "grown": weights(rng, 600, H)}
    for name, candidate in best(old, new).items():
        assert candidate is None or "norm" in name, candidate


def test_structure_that_all_models_share_is_no_match() -> None:
    """Rows of very different sizes, a few large columns, many zeros: alike in outline, not in values."""

    def one(seed: int) -> Array:
        rng = np.random.default_rng(seed)
        values = rng.standard_normal((400, H)) * np.exp(np.linspace(-4, 1, 400))[:, None] * 0.02
        values[:, 7] *= 30
        values[rng.random(values.shape) < 0.3] = 0
        return values.astype(BF16)

    found = match(
        tensors({f"a.{n}": one(n) for n in range(20)}), tensors({f"b.{n}": one(50 + n) for n in range(20)})
    )
    assert not any(found)


def test_what_has_no_values_to_compare() -> None:
    """Constants, empty tensors, scalars, integers, NaN: no crash, and no claim without a name or a digest."""
    old: Model = {
        "ones": np.ones(H, BF16),
        "zeros": np.zeros((64, H), BF16),
        "empty": np.zeros((0, H), BF16),
        "scalar": np.array(3.0, np.float32),
        "nan": np.full((64, H), np.nan, np.float32),
        "ids": np.arange(H, dtype=np.int32),
        "packed": np.random.default_rng(1).integers(0, 255, (64, H), dtype=np.uint8),
        "tiny": np.arange(3, dtype=np.float32),
    }
    changed = {name: values + np.ones((), values.dtype) for name, values in old.items()}
    found = match(tensors(old), tensors({f"x.{name}": values for name, values in changed.items()}))
    for name, line in zip(changed, found, strict=True):
        assert all(len(made(one.recipe, old)) == changed[name].nbytes for one in line)
    named = match(tensors(old), tensors(changed))
    by_name = dict(zip(changed, named, strict=True))
    assert [one.recipe for one in by_name["tiny"]] == [Whole(blake3_hex(old["tiny"].tobytes()), 12)]
    assert made(by_name["packed"][0].recipe, old) == old["packed"].tobytes()
    same = match(tensors(old), tensors({f"x.{name}": values for name, values in old.items()}))
    assert all(line[0].reason.startswith("the same content") for line in same)


def test_reads_are_few_and_bounded() -> None:
    old = llama(layers=6) | experts(layers=4)
    new = {f"x.{name}": trained(values) for name, values in old.items()}
    reads = Reads()
    match(tensors(old, reads), tensors(new, reads))
    assert reads.count <= 20 * (len(old) + len(new))
    assert reads.largest <= 1024
    reads = Reads()
    match(tensors(llama(), reads), tensors(llama(seed=5), reads))
    assert reads.count <= 80 * 2 * len(llama())


@settings(max_examples=25)
@given(st.integers(0, 3000))
def test_a_spent_budget_ends_the_search(most_reads: int) -> None:
    old = llama(layers=2)
    new = {(name if "mlp" in name else f"x.{name}"): trained(values) for name, values in old.items()}
    new["model.norm.weight"] = old["model.norm.weight"]
    reads = Reads()
    found = match(tensors(old, reads), tensors(new, reads), most_reads=most_reads)
    assert reads.count <= most_reads
    assert found[list(new).index("model.norm.weight")][0].bits == 0


def test_many_pairs_are_not_multiplied_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a number of pairs, only those that share signs are compared; the answer is the same."""
    old = experts(layers=4, count=20)
    names = list(old)
    order = np.random.default_rng(3).permutation(len(names))
    cases = {f"x.{place}": (trained(old[names[place]]), old[names[place]]) for place in order}
    monkeypatch.setattr(probing, "_MOST_PAIRS", 100)
    expect(old, cases)


def test_the_answer_does_not_depend_on_the_order_of_sources() -> None:
    old = llama()
    new = {f"x.{name}": trained(values) for name, values in old.items()}
    forth = match(tensors(old), tensors(new))
    back = match(tensors(old)[::-1], tensors(new))
    assert [[one.recipe for one in line] for line in forth] == [[one.recipe for one in line] for line in back]


def test_a_cast_is_said_to_be_one() -> None:
    old = llama(layers=1, dtype=np.float32)
    name = "model.layers.0.mlp.up_proj.weight"
    candidate = best(old, {name: old[name].astype(BF16)})[name]
    assert candidate is not None
    assert isinstance(candidate.recipe, Cast)
    assert candidate.bits == 0
    assert candidate.reason.endswith("cast from F32")
