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
    config_of,
    files_below,
    llama,
    read_bytes_by_name,
    write_model,
)
from textnlp_fast.errors import ConflictError, CorruptDataError, InvalidInputError, OutOfSpaceError
from textnlp_fast.loading import load, slices_of_rank
from textnlp_fast.storage import (
    AdaptiveShardManager,
    Repository,
    StorageConfig,
    UnifiedModelStorage,
    merge_shards,
    shard_model,
)
from textnlp_fast.storage.sharding import copying, writing
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


# --- memory, holes, kernels --------------------------------------------------------------------------------


def test_bytes_that_stay_as_they_are_do_not_pass_through_this_process(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(), files=2)
    probe = tmp_path / "probe"
    probe.write_bytes(b"12345678")
    with probe.open("rb") as reading, (tmp_path / "copy").open("wb") as writing:
        try:
            os.copy_file_range(reading.fileno(), writing.fileno(), 8)
        except OSError as error:
            pytest.skip(f"this kernel or file system copies no ranges: {error}")
    for strategy, ranks in (("size_based", None), ("layer_based", None), ("pipeline", 2)):
        report = shard_model(
            source, tmp_path / strategy, strategy=strategy, ranks=ranks, max_shard_bytes=9_000
        )  # type: ignore[arg-type]
        assert report.windowed_bytes == 0
    ranks_report = shard_model(source, tmp_path / "ranks", strategy="tensor_parallel", ranks=2)
    columns = sum(a.nbytes for n, a in llama().items() if "o_proj" in n or "down_proj" in n)
    assert ranks_report.windowed_bytes == columns


def test_a_kernel_that_cannot_copy_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path / "source", llama(), files=2)

    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    report = shard_model(source, tmp_path / "out", strategy="layer_based", max_shard_bytes=9_000)
    assert report.windowed_bytes == sum(array.nbytes for array in llama().values())
    assert read_bytes_by_name(tmp_path / "out") == read_bytes_by_name(source)


@settings(max_examples=25)
@given(st.integers(64, 4000), st.integers(1, 600), st.sampled_from([2, 4]))
def test_windows_of_any_size_cut_rows_alike(window: int, long_run: int, ranks: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(copying, "WINDOW_BYTES", window)
        patch.setattr(copying, "_LONG_RUN_BYTES", long_run)
        source = write_model(Path(folder) / "source", llama(layers=1))
        shard_model(source, Path(folder) / "out", strategy="tensor_parallel", ranks=ranks)
        shard_model(Path(folder) / "out", Path(folder) / "more", strategy="tensor_parallel", ranks=6 - ranks)
        merge_shards(Path(folder) / "more", Path(folder) / "back")
        assert files_below(Path(folder) / "back") == files_below(source)


# --- what can go wrong -------------------------------------------------------------------------------------


def test_an_output_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="not empty"):
        shard_model(source, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"mine.txt": b"mine"}


@pytest.mark.parametrize("out", ["source", "source/shards"])
def test_a_model_does_not_become_a_part_of_itself(tmp_path: Path, out: str) -> None:
    source = write_model(tmp_path / "source", llama())
    before = files_below(tmp_path)
    with pytest.raises(InvalidInputError, match="within the model"):
        shard_model(source, tmp_path / out)
    assert files_below(tmp_path) == before


def test_the_same_again_changes_nothing_and_another_model_is_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama())
    assert not shard_model(source, tmp_path / "out", model_id="m").already_there
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert shard_model(source, tmp_path / "out", model_id="m").already_there
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    other = write_model(tmp_path / "other", llama(seed=1))
    with pytest.raises(InvalidInputError, match="not empty"):
        shard_model(other, tmp_path / "out", model_id="m")


def test_a_source_that_changes_meanwhile_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_model(tmp_path / "source", llama())
    run = copying.Copier.run

    def touch(self: copying.Copier, units: object) -> None:
        run(self, units)  # type: ignore[arg-type]
        os.utime(source / "model.safetensors", (1, 1))

    monkeypatch.setattr(copying.Copier, "run", touch)
    with pytest.raises(InvalidInputError, match="changed while it was read"):
        shard_model(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path / "source", llama())
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutOfSpaceError, match="10 bytes free"):
        shard_model(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_two_runs_into_one_place_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path / "source", llama())
    errors: list[Exception] = []
    run = copying.Copier.run

    def beside(self: copying.Copier, units: object) -> None:
        monkeypatch.setattr(copying.Copier, "run", run)
        try:
            shard_model(source, tmp_path / "out")
        except ConflictError as error:
            errors.append(error)
        run(self, units)  # type: ignore[arg-type]

    monkeypatch.setattr(copying.Copier, "run", beside)
    shard_model(source, tmp_path / "out")
    assert len(errors) == 1
    assert read_bytes_by_name(tmp_path / "out") == read_bytes_by_name(source)


def test_a_name_in_two_files_is_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(), files=2)
    (source / "model-00003-of-00003.safetensors").write_bytes(
        (source / "model-00001-of-00002.safetensors").read_bytes()
    )
    with pytest.raises(InvalidInputError, match="in two files"):
        shard_model(source, tmp_path / "out")


@pytest.mark.parametrize("at", ["middle", "end", "cut", "json"])
def test_a_damaged_record_is_found(tmp_path: Path, at: str) -> None:
    source = write_model(tmp_path / "source", llama())
    shard_model(source, tmp_path / "out", strategy="tensor_parallel", ranks=2)
    record = tmp_path / "out" / "shards.json"
    data = bytearray(record.read_bytes())
    if at == "cut":
        data = data[: len(data) // 2]
    elif at == "json":
        data = bytearray(b"[]")
    else:
        data[len(data) // 2 if at == "middle" else -9] ^= 1
    record.write_bytes(bytes(data))
    with pytest.raises(CorruptDataError):
        merge_shards(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back").exists()


# --- the manager, and versions -----------------------------------------------------------------------------


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
    source = write_model(tmp_path / "source", llama(layers=8), files=2)
    repository = Repository.open(tmp_path / "repository", create=True)
    repository.push(source, "m", "1.0.0")
    shard_model(source, tmp_path / "out", strategy="layer_based", max_shard_bytes=20_000)
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
