"""Pulls move only what the machine lacks, and leave what is there alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.errors import (
    ConflictError,
    InvalidInputError,
)
from textnlp_fast.storage import Repository

Makers = Any


def test_update_in_place_moves_only_what_changed(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    tensors = makers.tensors(rows=256)
    one, two = tmp_path / "one", tmp_path / "two"
    makers.directory(one, tensors)
    makers.directory(two, makers.nudge(tensors, 1))
    (two / "config.json").write_text('{"model_type": "other"}')
    (one / "only-in-one.txt").write_text("x")
    repository.push(one, "m", "1.0.0")
    repository.push(two, "m", "1.1.0")
    out = tmp_path / "out"
    first = repository.pull("m", "1.0.0", out)
    (out / "mine.txt").write_text("keep me")
    second = repository.pull("m", "1.1.0", out)
    assert makers.tree(out) == {**makers.tree(two), "mine.txt": b"keep me"}
    assert second.fetched_bytes < first.fetched_bytes / 4
    assert second.kept_files >= 3
    third = repository.pull("m", "1.1.0", out)
    assert third.fetched_bytes == 0
    assert third.kept_files == third.files


def test_models_elsewhere_are_used(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    tensors = makers.tensors(rows=256)
    one = makers.write(tmp_path / "one" / "a.safetensors", tensors)
    two = makers.write(tmp_path / "two" / "a.safetensors", makers.nudge(tensors, 1))
    repository.push(one, "m", "1.0.0")
    repository.push(two, "m", "1.1.0")
    full = repository.pull("m", "1.1.0", tmp_path / "full")
    helped = repository.pull("m", "1.1.0", tmp_path / "helped", have=[tmp_path / "one"])
    assert helped.fetched_bytes < full.fetched_bytes / 4
    assert makers.tree(tmp_path / "helped") == makers.tree(tmp_path / "two")
    # Without the note that a pull leaves, the destination itself is hashed.
    shutil.copytree(tmp_path / "one", tmp_path / "plain")
    updated = repository.pull("m", "1.1.0", tmp_path / "plain")
    assert updated.fetched_bytes == helped.fetched_bytes
    assert makers.tree(tmp_path / "plain") == makers.tree(tmp_path / "two")


@pytest.mark.parametrize("noticed", [True, False])
def test_a_damaged_local_base_sends_pull_to_the_repository(
    tmp_path: Path, repository: Repository, makers: Makers, noticed: bool
) -> None:
    tensors = makers.tensors(rows=256)
    one = makers.write(tmp_path / "one" / "a.safetensors", tensors)
    two = makers.write(tmp_path / "two" / "a.safetensors", makers.nudge(tensors, 1))
    repository.push(one, "m", "1.0.0")
    repository.push(two, "m", "1.1.0")
    out = tmp_path / "out"
    repository.pull("m", "1.0.0", out)
    file = out / "a.safetensors"
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    if not noticed:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = repository.pull("m", "1.1.0", out)
    assert makers.tree(out) == makers.tree(tmp_path / "two")
    assert report.fetched_bytes > 0
    # The version that was damaged is repaired by pulling it again, too.
    data = bytearray(file.read_bytes())
    status = file.stat()
    data[-1] ^= 0x80
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    repository.pull("m", "1.1.0", out)
    assert makers.tree(out) == makers.tree(tmp_path / "two")


def test_pulls_into_one_place_exclude_each_other(
    tmp_path: Path, repository: Repository, makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.push(makers.write(tmp_path / "m.safetensors", makers.tensors()), "m", "1.0.0")
    out = tmp_path / "out"
    errors: list[Exception] = []

    def intrude(_progress: object) -> None:
        if not errors:
            try:
                repository.pull("m", "1.0.0", out)
            except ConflictError as error:
                errors.append(error)

    repository.pull("m", "1.0.0", out, progress=intrude)
    assert len(errors) == 1
    assert repository.pull("m", "1.0.0", out).kept_files == 1


def test_what_a_killed_pull_left_is_cleared(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    repository.push(makers.write(tmp_path / "m.safetensors", makers.tensors()), "m", "1.0.0")
    left = tmp_path / ".out.textnlp-fast-partial" / "files"
    left.mkdir(parents=True)
    (left / "m.safetensors").write_bytes(b"half")
    repository.pull("m", "1.0.0", tmp_path / "out")
    assert not left.parent.exists()
    assert set(makers.tree(tmp_path / "out")) == {"m.safetensors"}


def test_what_is_in_the_way_is_named(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    makers.directory(tmp_path / "in", makers.tensors())
    repository.push(tmp_path / "in", "m", "1.0.0")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInputError, match="not a directory"):
        repository.pull("m", "1.0.0", tmp_path / "file")
    (tmp_path / "out" / "config.json").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="in the way"):
        repository.pull("m", "1.0.0", tmp_path / "out")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "tokenizer").symlink_to(elsewhere)
    with pytest.raises(InvalidInputError, match="in the way"):
        repository.pull("m", "1.0.0", tmp_path / "linked")
    assert not list(elsewhere.iterdir())
