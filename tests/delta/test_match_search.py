"""How matching searches: what is no match, what it reads, and that it ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta.matching import (
    BF16,
    DTYPES,
    Array,
    H,
    Model,
    Reads,
    best,
    expect,
    experts,
    llama,
    made,
    tensors,
    trained,
    weights,
)
from textnlp_fast.delta import probing
from textnlp_fast.delta.match import Tensor, match
from textnlp_fast.delta.recipe import Whole, from_json
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.hashing import blake3_hex


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
