"""Versions in a repository are sharded as files are; the asynchronous manager does both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from storage.sharding.shard_models import (
    config_of,
    files_below,
    llama,
    read_bytes_by_name,
    write_model,
)
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading import load, slices_of_rank
from textnlp_fast.storage import (
    AdaptiveShardManager,
    Repository,
    StorageConfig,
    UnifiedModelStorage,
    merge_shards,
    shard_model,
)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_are_what_the_loader_slices(tmp_path: Path, ranks: int) -> None:
    source = write_model(tmp_path / "source", llama(experts=2, kv_heads=2), files=2)
    shard_model(source, tmp_path / "out", strategy="tensor_parallel", ranks=ranks)
    shapes = {name: array.shape for name, array in llama(experts=2, kv_heads=2).items()}
    for rank in range(ranks):
        slices = slices_of_rank(shapes, json.dumps(config_of()), rank=rank, degree=ranks)
        loaded = load(source, slices=slices)
        files = read_bytes_by_name(tmp_path / "out" / f"rank-{rank}")
        assert loaded.keys() == files.keys()
        for name, array in loaded.items():
            assert (list(array.shape), array.tobytes()) == files[name][1:]


def test_fused_tensors_are_no_slices() -> None:
    shapes = {"model.layers.0.self_attn.qkv_proj.weight": (48, 8)}
    with pytest.raises(InvalidInputError, match="several stretches"):
        slices_of_rank(shapes, json.dumps(config_of()), rank=0, degree=2)


def test_another_layout_of_a_stored_model_costs_its_headers(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(layers=8, head=16, inner=96), files=2)
    repository = Repository.open(tmp_path / "repository", create=True)
    repository.push(source, "m", "1.0.0")
    shard_model(source, tmp_path / "out", strategy="layer_based", max_shard_bytes=80_000)
    report = repository.push(tmp_path / "out", "m", "1.1.0")
    assert {use.feature for use in report.features} == {"deduplicate", "chunks", "shard"}
    assert report.stored_bytes < report.raw_bytes // 10


async def test_the_manager_shards_a_file_and_a_version(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(), files=2)
    config = StorageConfig(bucket_name="models", root=tmp_path, max_shard_size_gb=9e-6)
    repository = Repository.from_config(config, create=True)
    repository.push(source, "llama", "1.0.0")
    manager = AdaptiveShardManager(repository, config)
    first = await manager.shard_model_adaptive(
        model_path=source, output_dir=tmp_path / "a", model_id="llama-13b", strategy="layer_based"
    )
    second = await manager.shard_model_adaptive(
        model_path="llama@1.0.0", output_dir=tmp_path / "b", model_id="llama-13b", strategy="layer_based"
    )
    assert (first.model_id, first.strategy, len(first.files)) == (
        "llama-13b",
        "layer_based",
        len(second.files),
    )
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")


async def test_the_manager_takes_whatever_leads_to_a_repository(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama())
    config = StorageConfig(bucket_name="models", root=tmp_path, max_shard_size_gb=9e-6)
    repository = Repository.from_config(config, create=True)
    repository.push(source, "llama", "1.0.0")
    backends = (
        config,
        UnifiedModelStorage(config),
        repository,
        repository.store,
        config.url,
        Path(config.url),
    )
    for number, backend in enumerate(backends):
        manager = AdaptiveShardManager(backend, config)
        await manager.shard_model_adaptive("llama@1.0.0", tmp_path / f"out{number}", "llama")
        await manager.merge_shards(tmp_path / f"out{number}", tmp_path / f"back{number}")
        assert files_below(tmp_path / f"back{number}") == files_below(source)
        assert files_below(tmp_path / f"out{number}") == files_below(tmp_path / "out0")
    assert len(list((tmp_path / "out0").glob("*.safetensors"))) > 2
    with pytest.raises(InvalidInputError, match="storage_backend is a int"):
        AdaptiveShardManager(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="config is a dict"):
        AdaptiveShardManager(None, {})  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [config_of(), config_of(model_type="gpt2", kv_heads=4)])
def test_versions_are_dealt_out_to_ranks_as_files_are(tmp_path: Path, config: dict[str, object]) -> None:
    model = llama()
    if config["model_type"] == "gpt2":
        rng = np.random.default_rng(0)
        model = {
            "h.0.attn.c_attn.weight": rng.normal(size=(32, 96)).astype(np.float32),
            "h.0.attn.c_proj.weight": rng.normal(size=(32, 32)).astype(np.float32),
            "h.0.mlp.c_fc.weight": rng.normal(size=(32, 128)).astype(np.float32),
        }
    source = write_model(tmp_path / "source", model, config, files=2)
    repository = Repository.open(tmp_path / "repository", create=True, window_bytes=1 << 12)
    repository.push(source, "m", "1.0.0")
    shard_model(source, tmp_path / "a", strategy="tensor_parallel", ranks=4, model_id="m")
    shard_model("m", tmp_path / "b", strategy="tensor_parallel", ranks=4, repository=repository, model_id="m")
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")
    repository.push(tmp_path / "a", "ranks", "1.0.0")
    merge_shards("ranks@1.0.0", tmp_path / "back", repository=repository)
    assert files_below(tmp_path / "back") == files_below(source)
    shard_model(
        "ranks", tmp_path / "c", strategy="tensor_parallel", ranks=2, repository=repository, model_id="m"
    )
    shard_model(source, tmp_path / "d", strategy="tensor_parallel", ranks=2, model_id="m")
    assert files_below(tmp_path / "c") == files_below(tmp_path / "d")
