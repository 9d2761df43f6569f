"""Ranks of tensor parallelism take their slices of an update, and nothing else; the oracle is numpy's slicing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import textnlp_fast
from codec.devices import NO_DEVICE, to_device, to_host
from delta.models import Model, Tensor, make, nudged, write
from loading.swaps import ERRORS, Trap, tensors_of
from textnlp_fast.errors import InvalidInputError, SwapCancelledError, WrongBaseError
from textnlp_fast.loading import Part, Slice, layout_of_rank
from textnlp_fast.storage import Repository, TransferOptions

Words = npt.NDArray[np.uint16]
HEADS, KEY_VALUE, SIZE, WIDTH, INNER = 8, 2, 4, 32, 48
PREFIX = "model.layers.0."


def model_of(seed: int) -> Model:
    """A layer of a Llama-like model, in bf16."""
    rng = np.random.default_rng(seed)
    shapes = {
        "model.embed_tokens.weight": (64, WIDTH),
        PREFIX + "self_attn.q_proj.weight": (HEADS * SIZE, WIDTH),
        PREFIX + "self_attn.k_proj.weight": (KEY_VALUE * SIZE, WIDTH),
        PREFIX + "self_attn.v_proj.weight": (KEY_VALUE * SIZE, WIDTH),
        PREFIX + "self_attn.q_proj.bias": (HEADS * SIZE,),
        PREFIX + "self_attn.k_proj.bias": (KEY_VALUE * SIZE,),
        PREFIX + "self_attn.v_proj.bias": (KEY_VALUE * SIZE,),
        PREFIX + "self_attn.o_proj.weight": (WIDTH, HEADS * SIZE),
        PREFIX + "mlp.gate_proj.weight": (INNER, WIDTH),
        PREFIX + "mlp.up_proj.weight": (INNER, WIDTH),
        PREFIX + "mlp.down_proj.weight": (WIDTH, INNER),
        PREFIX + "input_layernorm.weight": (WIDTH,),
    }
    tensors = {
        name: Tensor("BF16", shape, rng.integers(0x3C00, 0x3D00, shape, np.uint16).tobytes())
        for name, shape in shapes.items()
    }
    return {"model.safetensors": tensors}


def moved(model: Model, seed: int) -> Model:
    """Some tensors of it change a little, the rest stays."""
    tensors = tensors_of(model)
    return {
        "model.safetensors": {
            name: nudged(tensor, seed + n) if (seed + n) % 4 else tensor
            for n, (name, tensor) in enumerate(tensors.items())
        }
    }


def rank_of(model: Model, rank: int, degree: int) -> dict[str, Words]:
    """What an engine has in memory, cut by numpy."""
    full = {
        name: np.frombuffer(tensor.data, np.uint16).reshape(tensor.shape)
        for name, tensor in tensors_of(model).items()
    }

    def rows(name: str, ranks: int = degree, number: int = rank) -> Words:
        return np.split(full[name], ranks, axis=0)[number]

    def fused(what: str, kind: str) -> Words:
        names = [f"{PREFIX}self_attn.{each}_proj.{kind}" for each in "qkv"]
        ranks = min(degree, KEY_VALUE)
        parts = [rows(names[0])] + [rows(name, ranks, rank * ranks // degree) for name in names[1:]]
        return np.concatenate(parts)

    return {
        "model.embed_tokens.weight": rows("model.embed_tokens.weight").copy(),
        PREFIX + "self_attn.qkv_proj.weight": fused("qkv", "weight"),
        PREFIX + "self_attn.qkv_proj.bias": fused("qkv", "bias"),
        PREFIX + "self_attn.o_proj.weight": np.ascontiguousarray(
            np.split(full[PREFIX + "self_attn.o_proj.weight"], degree, axis=1)[rank]
        ).copy(),
        PREFIX + "mlp.gate_up_proj.weight": np.concatenate(
            [rows(PREFIX + "mlp.gate_proj.weight"), rows(PREFIX + "mlp.up_proj.weight")]
        ),
        PREFIX + "mlp.down_proj.weight": np.ascontiguousarray(
            np.split(full[PREFIX + "mlp.down_proj.weight"], degree, axis=1)[rank]
        ).copy(),
        PREFIX + "input_layernorm.weight": full[PREFIX + "input_layernorm.weight"].copy(),
        "rotary.inv_freq": np.arange(8, dtype=np.uint16),
    }


def layout(loaded: dict[str, Any], rank: int, degree: int) -> Any:
    return layout_of_rank(loaded, rank=rank, degree=degree, key_value_heads=KEY_VALUE)


def same(loaded: dict[str, Words], wanted: dict[str, Words]) -> bool:
    return all(np.array_equal(loaded[name], wanted[name]) for name in wanted)


def ends(tmp_path: Path) -> tuple[Model, Model, Path]:
    old = model_of(1)
    new = moved(old, 2)
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    return old, new, patch


@pytest.mark.parametrize("degree", [1, 2, 4, 8])
def test_each_rank_takes_its_own(tmp_path: Path, degree: int) -> None:
    old, new, patch = ends(tmp_path)
    for rank in range(degree):
        loaded = rank_of(old, rank, degree)
        report = textnlp_fast.swap(
            loaded, patch, layout=layout(loaded, rank, degree), source=tmp_path / "old", threads=2
        )
        assert same(loaded, rank_of(new, rank, degree)), rank
        assert report.tensors == 7


@pytest.mark.parametrize("with_source", [False, True])
def test_from_a_repository(tmp_path: Path, with_source: bool) -> None:
    options = TransferOptions(shard_bytes=1 << 16, threads=2, prices=None)
    repository = Repository.open(tmp_path / "r", create=True, options=options, window_bytes=1 << 12)
    models = [model_of(1)]
    models += [moved(models[0], 2)]
    models += [moved(models[1], 5)]
    for n, model in enumerate(models):
        repository.push(write(model, tmp_path / f"v{n}"), "m", f"1.{n}.0")
    loaded = rank_of(models[0], 1, 2)
    for old, new in ((0, 2), (2, 1)):
        report = textnlp_fast.swap(
            loaded,
            f"m@1.{new}.0",
            repository=repository,
            from_version=f"1.{old}.0",
            layout=layout(loaded, 1, 2),
            source=tmp_path / f"v{old}" if with_source else None,
        )
        assert same(loaded, rank_of(models[new], 1, 2))
        assert report.fetched_bytes > 0
    with pytest.raises(InvalidInputError, match="from_version"):
        textnlp_fast.swap(loaded, "m@1.0.0", repository=repository, layout=layout(loaded, 1, 2))


@pytest.mark.gpu
@NO_DEVICE
def test_slices_on_a_device(tmp_path: Path) -> None:
    old, new, patch = ends(tmp_path)
    host = rank_of(old, 1, 2)
    loaded = {name: to_device(array.reshape(-1).view(np.uint8)) for name, array in host.items()}
    textnlp_fast.swap(loaded, patch, layout=layout(host, 1, 2), source=tmp_path / "old", threads=2)
    found = {name: to_host(array).view(np.uint16) for name, array in loaded.items()}
    assert same(found, {name: array.reshape(-1) for name, array in rank_of(new, 1, 2).items()})


def test_a_slice_of_other_weights_is_refused(tmp_path: Path) -> None:
    old, _, patch = ends(tmp_path)
    loaded = rank_of(old, 0, 2)
    other = PREFIX + "self_attn.qkv_proj.weight"
    loaded[other][-1, -1] ^= 1
    before = {name: array.copy() for name, array in loaded.items()}
    with pytest.raises(WrongBaseError, match="qkv_proj"):
        textnlp_fast.swap(loaded, patch, layout=layout(loaded, 0, 2), source=tmp_path / "old")
    assert same(loaded, before)
    # The other rank's slices are not this one's.
    loaded = rank_of(old, 1, 2)
    with pytest.raises(WrongBaseError, match="its part"):
        textnlp_fast.swap(loaded, patch, layout=layout(loaded, 0, 2), source=tmp_path / "old")
    assert same(loaded, rank_of(old, 1, 2))


def test_a_source_that_is_another_model(tmp_path: Path) -> None:
    old, _, patch = ends(tmp_path)
    tensors = dict(tensors_of(old))
    name = PREFIX + "self_attn.o_proj.weight"
    data = bytearray(tensors[name].data)
    data[-1] ^= 1  # in the columns of the other rank
    tensors[name] = Tensor("BF16", tensors[name].shape, bytes(data))
    write({"model.safetensors": tensors}, tmp_path / "old")
    loaded = rank_of(old, 0, 2)
    with pytest.raises(WrongBaseError, match="not the version that is loaded"):
        textnlp_fast.swap(loaded, patch, layout=layout(loaded, 0, 2), source=tmp_path / "old")
    assert same(loaded, rank_of(old, 0, 2))


def test_layouts_that_do_not_fit(tmp_path: Path) -> None:
    old, _, patch = ends(tmp_path)
    loaded = rank_of(old, 0, 2)
    good = layout(loaded, 0, 2)

    def refused(match: str, change: dict[str, Any], **options: Any) -> None:
        with pytest.raises(InvalidInputError, match=match):
            textnlp_fast.swap(
                loaded, patch, layout={**good, **change}, **{"source": tmp_path / "old", **options}
            )

    down = PREFIX + "mlp.down_proj.weight"
    refused("not in memory", {"nobody": (Part("model.embed_tokens.weight"),)})
    refused("no tensor 'nothing'", {down: (Part("nothing"),)})
    refused("its parts have", {down: (Part(down),)})
    refused("no axis 5", {down: (Part(down, Slice(5, 0, 2)),)})
    refused("not dealt out evenly", {down: (Part(down, Slice(1, 0, 7)),)})
    refused("source=", {}, source=None)
    assert same(loaded, rank_of(old, 0, 2))
    with pytest.raises(InvalidInputError, match="evenly"):
        layout_of_rank(["a.k_proj.weight"], rank=0, degree=3, key_value_heads=2)


@pytest.mark.parametrize("make_error", ERRORS)
def test_a_failure_anywhere_leaves_the_old_weights(tmp_path: Path, make_error: Any) -> None:
    old, new, patch = ends(tmp_path)
    at = 0
    while True:
        at += 3
        loaded = rank_of(old, 1, 2)
        with pytest.MonkeyPatch.context() as patched:
            trap = Trap(patched, at, make_error())
            try:
                textnlp_fast.swap(
                    loaded, patch, layout=layout(loaded, 1, 2), source=tmp_path / "old", undo_budget_bytes=100
                )
            except BaseException as error:  # noqa: BLE001  (interrupts too)
                cause: BaseException | None = error
                while cause is not None and cause is not trap.error:
                    cause = cause.__cause__
                assert cause is trap.error or isinstance(error, SwapCancelledError)
                assert same(loaded, rank_of(old, 1, 2)), f"call {at}"
                continue
        assert not trap.sprung
        assert same(loaded, rank_of(new, 1, 2))
        break
    assert at > 40


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.sampled_from([2, 4, 6]), min_size=1, max_size=3),
    rows=st.integers(1, 300),
    degree=st.sampled_from([1, 2]),
    dims=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    seed=st.integers(0, 1 << 30),
)
def test_any_cuts(
    tmp_path_factory: pytest.TempPathFactory,
    shape: list[int],
    rows: int,
    degree: int,
    dims: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    shapes = {"a": (2 * rows, *shape), "b": tuple(shape)}
    sides = []
    for _ in range(2):
        arrays = {name: rng.integers(0, 50, size, np.uint16) for name, size in shapes.items()}
        sides.append(arrays)
    root = tmp_path_factory.mktemp("cuts")
    models: list[Model] = [
        {"model.safetensors": {n: Tensor("BF16", a.shape, a.tobytes()) for n, a in side.items()}}
        for side in sides
    ]
    patch = make(write(models[0], root / "old"), write(models[1], root / "new"), root / "p.tnpatch")
    slices = {
        name: Slice(dim % len(shapes[name]), int(rng.integers(degree)), degree)
        for name, dim in zip("ab", dims, strict=True)
    }

    def cut(side: dict[str, Words]) -> Words:
        return np.concatenate(
            [np.split(side[n], degree, axis=slices[n].dim)[slices[n].rank].reshape(-1) for n in "ba"]
        )

    loaded = {"fused": cut(sides[0])}
    parts = tuple(Part(name, slices[name]) for name in "ba")
    textnlp_fast.swap(loaded, patch, layout={"fused": parts}, source=root / "old", threads=2)
    assert np.array_equal(loaded["fused"], cut(sides[1]))


# --- tied weights ------------------------------------------------------------------------------------------------

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def tied(tmp_path: Path, heads: tuple[Tensor | None, Tensor | None]) -> tuple[Tensor, Tensor, Path]:
    """An embedding before and after; ``heads`` is what the checkpoints have for the output layer, if anything."""
    old = Tensor("BF16", (64, WIDTH), tensors_of(model_of(1))[EMBEDDING].data)
    new = nudged(old, 3)
    sides: list[Model] = []
    for embedding, head in zip((old, new), heads, strict=True):
        sides.append({"model.safetensors": {EMBEDDING: embedding, **({HEAD: head} if head else {})}})
    patch = make(write(sides[0], tmp_path / "old"), write(sides[1], tmp_path / "new"), tmp_path / "p.tnpatch")
    return old, new, patch


def half(tensor: Tensor, rank: int) -> Words:
    return np.frombuffer(tensor.data, np.uint16).reshape(tensor.shape)[rank * 32 : rank * 32 + 32].copy()


def swap_tied(tmp_path: Path, patch: Path, loaded: dict[str, Words], rank: int) -> Any:
    return textnlp_fast.swap(loaded, patch, layout=layout(loaded, rank, 2), source=tmp_path / "old")


@pytest.mark.parametrize("in_checkpoint", [False, True])
@pytest.mark.parametrize("first", [EMBEDDING, HEAD])
def test_tied_slices_are_written_once(tmp_path: Path, in_checkpoint: bool, first: str) -> None:
    embedding = Tensor("BF16", (64, WIDTH), tensors_of(model_of(1))[EMBEDDING].data)
    heads = (embedding, nudged(embedding, 3)) if in_checkpoint else (None, None)
    old, new, patch = tied(tmp_path, heads)
    memory = half(old, 1)
    loaded = {first: memory, EMBEDDING: memory, HEAD: memory}
    report = swap_tied(tmp_path, patch, loaded, 1)
    assert np.array_equal(memory, half(new, 1))
    assert (report.tensors, report.changed_tensors) == (1, 1)


def test_tied_slices_that_would_part(tmp_path: Path) -> None:
    embedding = Tensor("BF16", (64, WIDTH), tensors_of(model_of(1))[EMBEDDING].data)
    old, _, patch = tied(tmp_path, (embedding, nudged(embedding, 9)))
    memory = half(old, 0)
    with pytest.raises(InvalidInputError, match="share their memory"):
        swap_tied(tmp_path, patch, {EMBEDDING: memory, HEAD: memory}, 0)
    assert np.array_equal(memory, half(old, 0))


def test_an_output_layer_that_nobody_knows(tmp_path: Path) -> None:
    old, _, patch = tied(tmp_path, (None, None))
    loaded = {EMBEDDING: half(old, 0), HEAD: half(old, 0)}
    with pytest.raises(InvalidInputError, match=f"no tensor '{HEAD}'"):
        swap_tied(tmp_path, patch, loaded, 0)
    assert np.array_equal(loaded[EMBEDDING], half(old, 0))
