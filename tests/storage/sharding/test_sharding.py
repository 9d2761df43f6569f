"""Every byte of every tensor is where the plan says, and merging gives back the files, whatever the model."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.sharding.shard_models import (
    TYPES,
    Model,
    files_below,
    llama,
    read_bytes_by_name,
    write_model,
)
from textnlp_fast.storage import (
    merge_shards,
    shard_model,
)
from textnlp_fast.storage.sharding.stages import balanced
from textnlp_fast.tensors import SafetensorsFile
from textnlp_fast.tensors.roles import role_of


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Tensors of odd names, types and shapes: scalars and empty ones among them."""
    names = draw(
        st.lists(
            st.one_of(
                st.integers(0, 12).map(lambda n: f"model.layers.{n}.mlp.up_proj.weight"),
                st.integers(0, 12).map(lambda n: f"model.layers.{n}.self_attn.q_proj.bias"),
                st.text("abc.é", min_size=1, max_size=6),
                st.sampled_from(["lm_head.weight", "model.embed_tokens.weight", "norm"]),
            ),
            min_size=1,
            max_size=14,
            unique=True,
        )
    )
    model: Model = {}
    for seed, name in enumerate(names):
        shape = draw(st.lists(st.integers(0, 9), max_size=3))
        dtype = draw(st.sampled_from(TYPES))
        size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        model[name] = np.frombuffer(np.random.default_rng(seed).bytes(size), dtype).reshape(shape)
    return model


@settings(max_examples=60)
@given(
    models(),
    st.integers(1, 3),
    st.integers(1, 600),
    st.sampled_from(["size_based", "layer_based", "adaptive"]),
)
def test_shards_hold_every_tensor_and_merge_gives_back_the_files(
    model: Model, files: int, max_shard_bytes: int, strategy: str
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # what lasts is not asked here, and waiting takes long
        place = Path(folder)
        source = write_model(place / "source", model, files=min(files, len(model)))
        report = shard_model(source, place / "out", strategy=strategy, max_shard_bytes=max_shard_bytes)  # type: ignore[arg-type]
        assert read_bytes_by_name(place / "out") == read_bytes_by_name(source)
        sizes = {file.path: 0 for file in report.files}
        index = place / "out" / "model.safetensors.index.json"
        if len(report.files) > 1:
            weight_map = json.loads(index.read_text())["weight_map"]
            assert weight_map.keys() == model.keys()
            for name, file in weight_map.items():
                sizes[file] += model[name].nbytes
        for path, size in sizes.items():
            tensors = sum(1 for name in model if len(report.files) > 1 and weight_map[name] == path)
            assert size <= max_shard_bytes or tensors == 1
        merge_shards(place / "out", place / "back")
        assert files_below(place / "back") == files_below(source)


@pytest.mark.parametrize(
    "strategy", ["size_based", "layer_based", "pipeline", "expert_based", "tensor_parallel"]
)
def test_the_result_is_the_same_each_time_and_whatever_the_threads(tmp_path: Path, strategy: str) -> None:
    source = write_model(tmp_path / "source", llama(experts=4), files=3)
    ranks = 2 if strategy in {"pipeline", "expert_based", "tensor_parallel"} else None
    for number, threads in enumerate((1, 4)):
        shard_model(
            source,
            tmp_path / f"out{number}",
            strategy=strategy,  # type: ignore[arg-type]
            ranks=ranks,
            max_shard_bytes=20_000,
            threads=threads,
            model_id="m",
        )
    assert files_below(tmp_path / "out0") == files_below(tmp_path / "out1")


@pytest.mark.parametrize(
    "via", list(itertools.permutations(["size_based", "layer_based", "tensor_parallel", "pipeline"], 2))
)
def test_any_strategy_follows_any_other(tmp_path: Path, via: tuple[str, str]) -> None:
    source = write_model(tmp_path / "source", llama(), files=2)
    place = source
    for number, strategy in enumerate(via):
        ranks = {"tensor_parallel": 4, "pipeline": 3}.get(strategy)
        out = tmp_path / str(number)
        shard_model(place, out, strategy=strategy, ranks=ranks, max_shard_bytes=9_000, model_id="m")  # type: ignore[arg-type]
        place = out
    direct = tmp_path / "direct"
    shard_model(source, direct, strategy=strategy, ranks=ranks, max_shard_bytes=9_000, model_id="m")  # type: ignore[arg-type]
    assert files_below(place) == files_below(direct)
    merge_shards(place, tmp_path / "back")
    assert files_below(tmp_path / "back") == files_below(source)


@settings(max_examples=20)
@given(models(), st.integers(1, 600))
def test_files_and_index_are_those_of_hugging_faces_own_functions(model: Model, limit: int) -> None:
    hub = pytest.importorskip("huggingface_hub")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        source = write_model(Path(folder) / "source", model)
        data = (source / "model.safetensors").read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        header.pop("__metadata__")
        # In the order of the file, where empty tensors share their place with the next.
        shard_model(source, Path(folder) / "out", strategy="size_based", max_shard_bytes=limit)
        ordered = {
            each.name: model[each.name] for each in SafetensorsFile.open(source / "model.safetensors").tensors
        }
        assert [header[name]["data_offsets"] for name in ordered] == sorted(
            header[name]["data_offsets"] for name in header
        )
        split = hub.split_state_dict_into_shards_factory(
            ordered,
            get_storage_size=lambda array: array.nbytes,
            filename_pattern="model{suffix}.safetensors",
            max_shard_size=limit,
        )
        found = {
            path.name: set(_names_in(path)) for path in sorted((Path(folder) / "out").glob("*.safetensors"))
        }
        assert found == {file: set(names) for file, names in split.filename_to_tensors.items()}
        index = Path(folder) / "out" / "model.safetensors.index.json"
        assert index.exists() == split.is_sharded
        if split.is_sharded:
            document = json.loads(index.read_text())
            assert document["weight_map"] == split.tensor_to_filename
            assert document["metadata"]["total_size"] == split.metadata["total_size"]


def _names_in(path: Path) -> list[str]:
    data = path.read_bytes()
    return [
        name
        for name in json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        if name != "__metadata__"
    ]


def test_whole_layers_stay_together(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(layers=12))
    layer = sum(array.nbytes for name, array in llama(layers=1).items() if ".layers.0." in name)
    report = shard_model(source, tmp_path / "out", strategy="layer_based", max_shard_bytes=2 * layer + 100)
    weight_map = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    homes: dict[int, set[str]] = {}
    for name, file in weight_map.items():
        number = role_of(name).layer
        if number is not None:
            homes.setdefault(number, set()).add(file)
    assert all(len(files) == 1 for files in homes.values())
    order = [next(iter(homes[number])) for number in range(12)]
    assert order == sorted(order)  # 10 comes after 9, not after 1
    assert len(report.files) <= 8


def test_experts_are_dealt_out_to_ranks(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(experts=8))
    report = shard_model(source, tmp_path / "out", strategy="expert_based", ranks=3)
    weight_map = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    ranks = {file.path: file.rank for file in report.files}
    found: dict[int | None, set[int | None]] = {}
    for name, file in weight_map.items():
        found.setdefault(ranks[file], set()).add(role_of(name).expert)
    assert found.pop(None) == {None}
    assert found == {0: {0, 1, 2}, 1: {3, 4, 5}, 2: {6, 7}}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.integers(1, 9))
def test_stages_are_as_even_as_they_can_be(sizes: list[int], stages: int) -> None:
    stages = min(stages, len(sizes))
    ends = balanced(sizes, stages)
    assert len(ends) == stages == len(set(ends))
    assert ends == sorted(ends) and ends[0] > 0 and ends[-1] == len(sizes)

    def largest(cuts: tuple[int, ...]) -> int:
        bounds = [0, *cuts, len(sizes)]
        return max(sum(sizes[a:b]) for a, b in itertools.pairwise(bounds))

    best = min(largest(cuts) for cuts in itertools.combinations(range(1, len(sizes)), stages - 1))
    assert largest(tuple(ends[:-1])) == best
    assert best <= -(-sum(sizes) // stages) + max(sizes)


def test_a_pipeline_begins_with_the_embedding_and_ends_with_the_head(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(layers=7))
    report = shard_model(source, tmp_path / "out", strategy="pipeline", ranks=3)
    weight_map = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    stages = {file.path: file.stage for file in report.files}
    at = {name: stages[file] for name, file in weight_map.items()}
    assert at["model.embed_tokens.weight"] == 0
    assert at["lm_head.weight"] == at["model.norm.weight"] == 2
    layers = [at[f"model.layers.{n}.mlp.up_proj.weight"] for n in range(7)]
    assert layers == sorted(layers)  # type: ignore[type-var]
    sizes = [sum(f.size for f in report.files if f.stage == stage) for stage in range(3)]
    assert max(sizes) < 1.5 * min(sizes)
