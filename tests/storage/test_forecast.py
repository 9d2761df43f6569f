"""A push picks features by itself, says which and why, and what it foretells comes about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from storage.conftest import make_tensors, nudge, write_safetensors
from textnlp_fast.cli.program import group
from textnlp_fast.errors import VersionExistsError
from textnlp_fast.storage import FeatureUse, Repository, StorageConfig, TransferOptions, UnifiedModelStorage
from textnlp_fast.storage.features import Option, choose

CHECKPOINTS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "checkpoints"
MIB = 1 << 20


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def by_feature(features: tuple[FeatureUse, ...]) -> dict[str, FeatureUse]:
    return {use.feature: use for use in features}


@pytest.mark.parametrize(
    "names",
    [("base", "sft_0001"), ("sft_0001", "sft_0010"), ("rl_0100", "rl_0101"), ("pre_0600", "pre_0700")],
)
def test_what_is_foretold_of_real_versions_comes_about(tmp_path: Path, names: tuple[str, str]) -> None:
    """Within 5 % of the bytes, in all and for each way of storing, on checkpoints of 3 MB."""
    paths = [CHECKPOINTS / f"{name}.safetensors" for name in names]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"no checkpoints at {CHECKPOINTS}")
    repository = Repository.open(tmp_path / "repository", create="at push")
    for path, version in zip(paths, ("1.0.0", "1.1.0"), strict=True):
        forecast = repository.plan_push(path, "m", version)
        report = repository.push(path, "m", version)
        assert forecast.stored_bytes == pytest.approx(report.stored_bytes, rel=0.05, abs=2048)
        foretold, found = by_feature(forecast.features), by_feature(report.features)
        assert foretold.keys() == found.keys()
        for feature, use in found.items():
            assert foretold[feature].contents == use.contents
            assert foretold[feature].raw_bytes == use.raw_bytes
            assert foretold[feature].stored_bytes == pytest.approx(use.stored_bytes, rel=0.05, abs=2048)
        assert (forecast.base is None) == (report.base is None)
        assert (
            sum(use.stored_bytes for use in report.features if use.feature != "shard") == report.stored_bytes
        )
    assert forecast.chosen == "delta"
    assert {one.name for one in forecast.options} == {"delta", "standalone", "plain"}
    assert forecast.cheapest == "delta"
    assert forecast.seconds > 0 and forecast.usd > 0


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Tensors that code well, one of noise, a file of noise, and one of text."""
    folder = tmp_path / "mixed"
    tensors: dict[str, Any] = dict(make_tensors(rows=2048))
    tensors["packed"] = np.frombuffer(noise(2 * MIB), np.uint8)
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "picture.png").write_bytes(noise(3 * MIB, 1))
    (folder / "vocab.txt").write_text("word\n" * 300_000)
    return folder


def test_what_does_not_get_smaller_is_stored_as_it_is(tmp_path: Path, mixed: Path) -> None:
    repository = Repository.open(tmp_path / "repository", create=True, window_bytes=1 << 16)
    report = repository.push(mixed, "m", "1.0.0")
    features = by_feature(report.features)
    plain = features["plain"]
    assert plain.raw_bytes == plain.stored_bytes == 5 * MIB
    assert "saves less than 1%" in plain.reason
    assert features["standalone"].stored_bytes < 0.8 * features["standalone"].raw_bytes
    assert features["chunks"].stored_bytes < 0.4 * features["chunks"].raw_bytes
    manifest = repository.manifest("m", "1.0.0")
    raw = {content.size for content in manifest.contents.values() if content.codec == "raw"}
    assert 2 * MIB in raw and all(content.base is None for content in manifest.contents.values())
    assert repository.verify().ok
    repository.pull("m", "1.0.0", tmp_path / "out")
    for path in mixed.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_later_version_is_coded_against_what_is_stored_as_it_is(tmp_path: Path, mixed: Path) -> None:
    repository = Repository.open(tmp_path / "repository", create=True, window_bytes=1 << 16)
    repository.push(mixed, "m", "1.0.0")
    data = bytearray((mixed / "model.safetensors").read_bytes())
    data[-2 * MIB :: 5000] = bytes(byte ^ 1 for byte in data[-2 * MIB :: 5000])
    (mixed / "model.safetensors").write_bytes(data)
    report = repository.push(mixed, "m", "1.1.0")
    assert by_feature(report.features)["delta"].stored_bytes < MIB // 8
    repository.pull("m", "1.1.0", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == data


def test_lost_objects_of_contents_stored_as_they_are_come_back(tmp_path: Path, mixed: Path) -> None:
    repository = Repository.open(tmp_path / "repository", create=True, window_bytes=1 << 16)
    repository.push(mixed, "m", "1.0.0")
    objects = sorted((tmp_path / "repository" / "objects").rglob("*"))
    for path in objects:
        if path.is_file():
            path.unlink()
    report = Repository.open(tmp_path / "repository").push(mixed, "m", "1.0.0")
    assert report.already_there and report.uploaded_bytes
    assert sorted((tmp_path / "repository" / "objects").rglob("*")) == objects
    assert repository.verify().ok


def test_a_forecast_writes_nothing(tmp_path: Path, mixed: Path) -> None:
    place = tmp_path / "repository"
    forecast = Repository.open(place, create="at push").plan_push(mixed, "m", "1.0.0")
    assert not any(path.is_file() for path in place.rglob("*"))
    assert forecast.chosen == "standalone" and forecast.base is None
    repository = Repository.open(place, create=True)
    repository.push(mixed, "m", "1.0.0")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    same = repository.plan_push(mixed, "m", "1.1.0")
    assert (same.new_bytes, same.stored_bytes, same.chosen, same.options) == (0, 0, "nothing", ())
    assert repository.plan_push(mixed, "m", "1.0.0").already_there
    (mixed / "vocab.txt").write_text("other")
    with pytest.raises(VersionExistsError):
        repository.plan_push(mixed, "m", "1.0.0")
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


async def test_the_configuration_is_honoured(tmp_path: Path, mixed: Path) -> None:
    def storage(name: str, **more: Any) -> UnifiedModelStorage:
        return UnifiedModelStorage(StorageConfig(bucket_name=name, root=tmp_path, **more))

    uncompressed = storage("a", enable_compression=False)
    forecast = await uncompressed.plan_upload(mixed, "m", "1.0.0")
    report = await uncompressed.upload_model(mixed, "m", "1.0.0")
    assert forecast.stored_bytes == report.stored_bytes == by_feature(report.features)["plain"].raw_bytes
    assert by_feature(report.features)["plain"].reason == "compression is off"
    assert [one.name for one in forecast.options if one.allowed] == ["plain"]

    single = storage("b", enable_sharding=False)
    report = await single.upload_model(mixed, "m", "1.0.0")
    shard = by_feature(report.features)["shard"]
    assert "sharding is off" in shard.reason
    assert shard.contents == sum(
        use.contents for use in report.features if use.feature not in {"shard", "deduplicate"}
    )

    alone = storage("c", enable_versioning=False)
    await alone.upload_model(mixed, "m", "1.0.0")
    write_safetensors(mixed / "model.safetensors", nudge(make_tensors(rows=2048), 1))
    forecast = await alone.plan_upload(mixed, "m", "1.1.0")
    report = await alone.upload_model(mixed, "m", "1.1.0")
    assert "delta" not in by_feature(report.features) | by_feature(forecast.features)
    assert "versioning is off" in by_feature(report.features)["standalone"].reason


@given(
    st.lists(
        st.builds(
            Option,
            st.sampled_from(["delta", "standalone", "plain"]),
            st.integers(0, 9),
            st.floats(0, 9),
            st.sampled_from([0.0, 1.0, 2.5]),
            st.booleans(),
        ),
        min_size=1,
    )
)
def test_the_cheapest_that_is_allowed_is_chosen(options: list[Option]) -> None:
    options.append(Option("plain", 10, 1.0, 3.0))
    found = choose(options)
    assert found.allowed
    assert all(
        (found.usd, found.stored_bytes) <= (one.usd, one.stored_bytes) for one in options if one.allowed
    )


def test_on_the_command_line(tmp_path: Path, mixed: Path) -> None:
    def run(*words: object) -> str:
        result = CliRunner().invoke(group, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    place = ("--repo", tmp_path / "repository")
    said = run("push", mixed, "m@1.0.0", *place, "--dry-run")
    assert "would take" in said and "standalone" in said and "chosen" in said
    document = json.loads(run("push", mixed, "m@1.0.0", *place, "--dry-run", "--json"))
    assert "  plain: " in said and "  shard: " in said
    done = json.loads(run("push", mixed, "m@1.0.0", *place, "--json"))
    assert [use["feature"] for use in done["features"]] == [use["feature"] for use in document["features"]]
    stored = Repository.open(tmp_path / "repository").log("m")[0].stored_bytes
    assert document["stored_bytes"] == pytest.approx(stored, rel=0.05)


def test_small_contents_are_not_sampled(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    write_safetensors(folder / "model.safetensors", {"t": np.frombuffer(noise(4096), np.uint8)})
    repository = Repository.open(tmp_path / "repository", create=True, options=TransferOptions())
    report = repository.push(folder, "m", "1.0.0")
    assert "plain" not in by_feature(report.features)
