"""What cannot be sharded is refused with a reason, and what is in the way of a result is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.sharding.shard_models import (
    files_below,
    llama,
    read_bytes_by_name,
    write_model,
)
from textnlp_fast.errors import ConflictError, CorruptDataError, InvalidInputError, OutOfSpaceError
from textnlp_fast.storage import (
    merge_shards,
    shard_model,
)
from textnlp_fast.storage.sharding import copying, writing


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
