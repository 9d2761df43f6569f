"""The adaptive strategy chooses by what the model is and who serves it, and says which fact decided."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storage.sharding.shard_models import (
    Model,
    config_of,
    files_below,
    llama,
    read_bytes_by_name,
    write_model,
)
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage import merge_shards, shard_model
from textnlp_fast.storage.sharding import sharding
from textnlp_fast.storage.sharding.adaptive import Limits, plan_adaptive
from textnlp_fast.storage.sharding.model import Piece, ShardSource, ShardTensor, SourceFile
from textnlp_fast.storage.sharding.planning import ShardOptions, plan_shards
from textnlp_fast.tensors.architecture import Architecture

GB = 10**9


def source_of(model: dict[str, tuple[int, ...]], architecture: Architecture | None = None) -> ShardSource:
    """A model of bf16 tensors of these shapes, of which there is not a byte."""
    tensors = []
    position = 0
    for name, shape in model.items():
        tensors.append(ShardTensor(name, "BF16", shape, (Piece(0, position),)))
        position += 2 * math.prod(shape)
    files = (SourceFile("model.safetensors", position),)
    return ShardSource("m", files, tuple(tensors), (), architecture=architecture or Architecture())


def llama_of(layers: int = 32, *, hidden: int = 4096, heads: int = 32, experts: int = 0) -> ShardSource:
    model: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32000, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        model[f"{at}.self_attn.q_proj.weight"] = (hidden, hidden)
        model[f"{at}.self_attn.k_proj.weight"] = (hidden // 4, hidden)
        for expert in range(experts):
            model[f"{at}.block_sparse_moe.experts.{expert}.w1.weight"] = (4 * hidden, hidden)
        if not experts:
            model[f"{at}.mlp.up_proj.weight"] = (4 * hidden, hidden)
    model["lm_head.weight"] = (32000, hidden)
    return source_of(model, Architecture("llama", heads, heads // 4, hidden, experts or None))


OPTIONS = ShardOptions(max_shard_bytes=2 * GB)

CASES = [
    (llama_of(2), OPTIONS, "size_based", "fit into one file"),
    (llama_of(), OPTIONS, "layer_based", "its 32 layers of up to"),
    (llama_of(), replace(OPTIONS, max_shard_bytes=10**7), "size_based", "a layer of .* does not fit"),
    (llama_of(), replace(OPTIONS, ranks=8), "tensor_parallel", "evenly to 8 ranks"),
    (llama_of(), replace(OPTIONS, ranks=1), "layer_based", "layers"),
    (
        llama_of(heads=36, hidden=4608),
        replace(OPTIONS, ranks=8),
        "pipeline",
        "36 heads are no multiple of 8 ranks",
    ),
    (llama_of(), replace(OPTIONS, hosts=4), "pipeline", "one a host"),
    (llama_of(2), replace(OPTIONS, hosts=4), "size_based", "2 layers do not fill a stage on each of 4 hosts"),
    (llama_of(4, experts=8), OPTIONS, "expert_based", "8 experts"),
    (llama_of(4, experts=8), replace(OPTIONS, ranks=4), "expert_based", "dealt out whole to 4 ranks"),
    (llama_of(4, experts=2), replace(OPTIONS, ranks=4), "tensor_parallel", "evenly to 4 ranks"),
    (source_of({f"odd{n}": (GB,) for n in range(3)}), OPTIONS, "size_based", "names tell of no layers"),
]


@pytest.mark.parametrize(("source", "options", "strategy", "reason"), CASES)
def test_what_is_chosen_and_why(
    source: ShardSource, options: ShardOptions, strategy: str, reason: str
) -> None:
    plan = plan_adaptive(source, options, Limits())
    assert plan.strategy == strategy
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(plan.reason)
    placed = [each.tensor.name for file in plan.files for each in file.placements]
    assert set(placed) == {tensor.name for tensor in source.tensors}


def test_the_largest_file_of_a_file_system_is_minded() -> None:
    plan = plan_adaptive(llama_of(), replace(OPTIONS, max_shard_bytes=8 * GB), Limits((1 << 32) - 1))
    assert "4.295 GB that the file system allows" in plan.reason
    assert max(file.size for file in plan.files) < 1 << 32


def test_the_limits_of_this_place_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding.os, "pathconf", lambda *_: 33)
    assert sharding.limits_of(tmp_path / "not" / "there").file_bytes == (1 << 32) - 1

    def unknown(*_: object) -> int:
        raise OSError

    monkeypatch.setattr(sharding.os, "pathconf", unknown)
    assert sharding.limits_of(tmp_path).file_bytes is None


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_have_the_same_number_of_bytes(ranks: int) -> None:
    source = llama_of()
    plan = plan_shards(source, "tensor_parallel", replace(OPTIONS, ranks=ranks))
    sizes = [
        sum(each.size_bytes for file in plan.files if file.rank == rank for each in file.placements)
        for rank in range(ranks)
    ]
    assert len(set(sizes)) == 1
    assert sum(sizes) == source.total_bytes  # nothing of this model is whole on every rank


@pytest.mark.parametrize("stages", [2, 3, 7, 32])
def test_stages_are_balanced_within_a_layer(stages: int) -> None:
    source = llama_of()
    plan = plan_shards(source, "pipeline", replace(OPTIONS, ranks=stages))
    sizes = [
        sum(each.size_bytes for file in plan.files if file.stage == stage for each in file.placements)
        for stage in range(stages)
    ]
    layer = 2 * (4096 * 4096 + 1024 * 4096 + 4 * 4096 * 4096)
    ends = 2 * 32000 * 4096
    assert sum(sizes) == source.total_bytes
    assert max(sizes) <= source.total_bytes / stages + layer + ends


@pytest.mark.parametrize("layers", [1, 4, 32])
@pytest.mark.parametrize("limit", [1 << 20, 1 << 27, 1 << 40])
def test_stages_that_nobody_asked_for_are_no_more_than_layers(layers: int, limit: int) -> None:
    """A stage that is larger than a file may be is several files, each of which says its stage."""
    source = llama_of(layers)
    plan = plan_shards(source, "pipeline", replace(OPTIONS, max_shard_bytes=limit))
    assert plan.parts == max(1, min(layers, -(-source.total_bytes // limit)))
    assert {file.stage for file in plan.files} == set(range(plan.parts))
    placed = [each.tensor.name for file in plan.files for each in file.placements]
    assert sorted(placed) == sorted(tensor.name for tensor in source.tensors)
    for file in plan.files:
        assert len(file.placements) == 1 or sum(each.size_bytes for each in file.placements) <= limit


WRONG: list[tuple[ShardSource, str, ShardOptions, str]] = [
    (llama_of(), "no_such", OPTIONS, "no strategy"),
    (llama_of(), "size_based", replace(OPTIONS, ranks=2), "knows no ranks"),
    (llama_of(), "tensor_parallel", OPTIONS, "needs a number of ranks"),
    (llama_of(), "tensor_parallel", replace(OPTIONS, ranks=5000), "may be 1 to"),
    (llama_of(), "pipeline", replace(OPTIONS, ranks=33), "32 layers do not fill 33 stages"),
    (llama_of(), "expert_based", replace(OPTIONS, ranks=2), "has no experts"),
    (llama_of(1, experts=2), "expert_based", replace(OPTIONS, ranks=3), "2 experts are not dealt out to 3"),
    (llama_of(), "layer_based", replace(OPTIONS, keep_whole=("x",)), "divides no tensor"),
    (
        llama_of(),
        "tensor_parallel",
        replace(OPTIONS, ranks=2, keep_whole=("nothing*",)),
        "no tensor of m has a name",
    ),
    (
        source_of({"odd": (8,)}),
        "tensor_parallel",
        replace(OPTIONS, ranks=2),
        "that the rules of tensor",
    ),
    (llama_of(), "size_based", replace(OPTIONS, max_shard_bytes=0), "holds nothing"),
    (source_of({}), "size_based", OPTIONS, "has no tensors"),
]


@pytest.mark.parametrize(("source", "strategy", "options", "message"), WRONG)
def test_what_a_strategy_cannot_do_is_said(
    source: ShardSource, strategy: str, options: ShardOptions, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        plan_shards(source, strategy, options)


def test_tensors_that_are_kept_whole_are_on_every_rank(tmp_path: Path) -> None:
    model: Model = llama(words=41)  # which no number of ranks divides
    source = write_model(tmp_path / "source", model)
    with pytest.raises(InvalidInputError, match="41 words"):
        shard_model(source, tmp_path / "out", strategy="tensor_parallel", ranks=2)
    report = shard_model(
        source,
        tmp_path / "out",
        strategy="tensor_parallel",
        ranks=2,
        keep_whole=("lm_head.*", "model.embed_tokens.*"),
    )
    assert "lm_head.weight" in report.notes[0]
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_without_a_configuration_heads_are_not_guessed(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama())
    (source / "config.json").unlink()
    with pytest.raises(InvalidInputError, match="nothing says how many") as caught:
        shard_model(source, tmp_path / "out", strategy="tensor_parallel", ranks=2)
    assert "config.json" in caught.value.hint


@pytest.mark.parametrize("ranks", [2, 3])
def test_experts_in_one_tensor_are_dealt_out_along_its_axis(tmp_path: Path, ranks: int) -> None:
    rng = np.random.default_rng(0)
    model: Model = {
        "model.layers.0.mlp.experts.gate_up_proj": rng.normal(size=(5, 8, 6)).astype(np.float32),
        "model.layers.0.mlp.experts.down_proj": rng.normal(size=(5, 6, 4)).astype(np.float32),
        "model.layers.0.mlp.experts.down_proj_bias": rng.normal(size=(5, 6)).astype(np.float32),
        "model.layers.0.mlp.shared_expert.up_proj.weight": rng.normal(size=(5, 6)).astype(np.float32),
        "model.norm.weight": rng.normal(size=6).astype(np.float32),
    }
    source = write_model(tmp_path / "source", model, config_of(num_experts=5))
    report = shard_model(source, tmp_path / "out", strategy="expert_based", ranks=ranks)
    assert report.windowed_bytes == 0
    for name in [each for each in model if ".experts." in each]:
        parts = [
            np.frombuffer(data, np.float32).reshape(shape)
            for _, shape, data in (
                read_bytes_by_name(tmp_path / "out" / f"rank-{rank}")[name] for rank in range(ranks)
            )
        ]
        assert np.array_equal(np.concatenate(parts), model[name])
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    shared = read_bytes_by_name(tmp_path / "out")
    assert shared.keys() == {"model.norm.weight", "model.layers.0.mlp.shared_expert.up_proj.weight"}
    merge_shards(tmp_path / "out", tmp_path / "back")
    assert files_below(tmp_path / "back") == files_below(source)
    shard_model(tmp_path / "out", tmp_path / "layers", strategy="layer_based")
    assert read_bytes_by_name(tmp_path / "layers") == read_bytes_by_name(source)


def test_without_a_count_in_the_configuration_experts_are_not_guessed(tmp_path: Path) -> None:
    model: Model = {"model.layers.0.mlp.experts.gate_up_proj": np.zeros((4, 8, 8), np.float16)}
    source = write_model(tmp_path / "source", model)
    with pytest.raises(InvalidInputError, match="has no experts"):
        shard_model(source, tmp_path / "out", strategy="expert_based", ranks=2)
