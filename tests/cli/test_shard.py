"""shard, reshard and merge from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from storage.sharding.shard_models import files_below, llama, read_bytes_by_name, write_model
from textnlp_fast.cli.program import group
from textnlp_fast.cli.sizes import size as parse
from textnlp_fast.storage import Repository


def run(*words: object) -> str:
    result = CliRunner().invoke(group, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_there_and_back(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama(), files=2)
    said = run("shard", source, tmp_path / "a", "--strategy", "tensor_parallel", "--ranks", 4)
    assert "tensor_parallel" in said and "because: 4 ranks" in said
    assert "already" in run("shard", source, tmp_path / "a", "--strategy", "tensor_parallel", "--ranks", 4)
    run("reshard", tmp_path / "a", tmp_path / "b", "--strategy", "layer_based", "--max-shard-size", "10kB")
    assert read_bytes_by_name(tmp_path / "b") == read_bytes_by_name(source)
    document = json.loads(run("merge", tmp_path / "b", tmp_path / "c", "--json"))
    assert document["strategy"] == "merge"
    assert files_below(tmp_path / "c") == files_below(source)


def test_the_settings_say_how_large_files_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path / "source", llama())
    monkeypatch.chdir(tmp_path)
    run("shard", source, tmp_path / "one")
    monkeypatch.setenv("MAX_SHARD_SIZE_GB", "0.00001")
    run("shard", source, tmp_path / "many")
    count = [len(list((tmp_path / name).glob("*.safetensors"))) for name in ("one", "many")]
    assert count[0] == 1 < count[1]


def test_a_version_is_sharded_out_of_its_repository(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", llama())
    Repository.open(tmp_path / "repository", create=True).push(source, "m", "1.0.0")
    run("shard", "m@1.0.0", tmp_path / "out", "--repo", tmp_path / "repository", "--max-shard-size", "9kB")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    assert read_bytes_by_name(tmp_path / "out") == read_bytes_by_name(source)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("1.5MB", 1_500_000),
        ("1GiB", 1 << 30),
        ("10kB", 10_000),
        ("7", 7),
        ("3 MiB", 3 << 20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "2 potatoes", "0", "1e9", "9" * 40])
def test_what_is_no_size(text: str) -> None:
    result = CliRunner().invoke(group, ["shard", "here", "there", "--max-shard-size", text])
    assert result.exit_code == 2
    assert "max-shard-size" in result.output
