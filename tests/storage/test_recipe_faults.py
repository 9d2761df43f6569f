"""Damage and interruption where tensors are made of others: named, healed, and never believed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from storage import layouts
from storage.test_faults import _Brittle, files_of, flip, reopened
from storage.test_push_recipes import objects, opened, recipes, written
from textnlp_fast.errors import CorruptDataError, MissingObjectError, OutOfSpaceError, StorageUnavailableError
from textnlp_fast.storage import Repository

Makers = Any


@pytest.fixture
def history(tmp_path: Path, makers: Makers) -> Repository:
    """Three versions: a plain one, one in another layout, one trained on in that."""
    repository = opened(tmp_path / "repository", 1 << 13)
    tensors = layouts.model(layers=2)
    for number in range(3):
        written(makers, tmp_path / f"in{number}", tensors)
        repository.push(tmp_path / f"in{number}", "m", f"1.{number}.0")
        tensors = layouts.trained(tensors if number else layouts.interleaved(tensors), number)
    assert recipes(repository.manifest("m", "1.1.0"))
    return repository


def test_a_flipped_bit_is_found_and_never_pulled(tmp_path: Path, history: Repository, makers: Makers) -> None:
    for number, shard in enumerate(files_of(tmp_path / "repository", "objects")):
        position = shard.stat().st_size // 2
        flip(shard, position, number % 8)
        assert any(shard.name in problem.where for problem in reopened(history).verify().problems)
        for version in range(3):
            out = tmp_path / "out"
            try:
                reopened(history).pull("m", f"1.{version}.0", out)
            except CorruptDataError as error:
                assert shard.name in str(error)
                assert not out.exists()
            else:
                assert makers.tree(out) == makers.tree(tmp_path / f"in{version}")
                shutil.rmtree(out)
        flip(shard, position, number % 8)
    assert reopened(history).verify().ok


def test_a_missing_object_is_made_again(tmp_path: Path, history: Repository) -> None:
    for shard in files_of(tmp_path / "repository", "objects"):
        content = shard.read_bytes()
        shard.unlink()
        with pytest.raises(MissingObjectError, match=shard.name):
            for version in range(3):
                reopened(history).pull("m", f"1.{version}.0", tmp_path / "fresh")
        shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
        for number in range(3):
            assert reopened(history).push(tmp_path / f"in{number}", "m", f"1.{number}.0").already_there
        assert shard.read_bytes() == content
    assert reopened(history).verify().ok


def test_a_damaged_parent_is_no_ground_for_a_version(
    tmp_path: Path, history: Repository, makers: Makers
) -> None:
    written(makers, tmp_path / "next", layouts.trained(layouts.fused(layouts.model(layers=2)), 4))
    stopped = 0
    root = tmp_path / "repository"
    first = history.manifest("m", "1.0.0").objects
    for shard in (shard for shard in files_of(root, "objects") if shard.name in first):
        copy = tmp_path / "copy"
        shutil.copytree(root, copy)
        harmed = copy / shard.relative_to(root)
        flip(harmed, shard.stat().st_size // 2, 3)
        before = makers.tree(copy / "models")
        try:
            opened(copy).push(tmp_path / "next", "m", "2.0.0", parent="1.0.0")
        except CorruptDataError as error:
            assert "stored base of tensor" in str(error)
            assert makers.tree(copy / "models") == before
            stopped += 1
        else:  # it leaned on nothing that was damaged
            harmed.write_bytes(shard.read_bytes())
            opened(copy).pull("m", "2.0.0", tmp_path / "out")
            assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "next")
        shutil.rmtree(copy)
    assert stopped


@pytest.mark.parametrize("writes", [0, 1, 2])
@pytest.mark.parametrize("error", [StorageUnavailableError("no answer"), OutOfSpaceError("full")])
@pytest.mark.parametrize("base", [False, True])
def test_an_interrupted_push_is_taken_up_again(
    tmp_path: Path, makers: Makers, writes: int, error: Exception, base: bool
) -> None:
    tensors = layouts.model()
    written(makers, tmp_path / "a", tensors)
    # Much of it is new, so that there is more than a shard to upload.
    new = layouts.fused(layouts.trained(tensors)) | {"new.weight": layouts.model(5, 8)["embed.weight"]}
    new |= {f"more.{n}": layouts.model(n + 50, 1)["embed.weight"] for n in range(6)}
    written(makers, tmp_path / "b", new)
    for place in ("r", "whole"):
        opened(tmp_path / place).push(tmp_path / "a", "m", "1.0.0")
    opened(tmp_path / "whole").push(tmp_path / "b", "m", "1.1.0")
    repository = opened(tmp_path / "r")
    store = repository._store
    repository._store = _Brittle(store, writes, error)  # type: ignore[assignment, arg-type]
    with pytest.raises(type(error)):
        repository.push(tmp_path / "b", "m", "1.1.0")
    report = opened(tmp_path / "r").verify()
    assert report.ok
    assert (report.versions, len(report.unreferenced)) == (1, writes)
    second = opened(tmp_path / "r").push(
        tmp_path / "b", "m", "1.1.0", base_path=tmp_path / "a" if base else None
    )
    assert second.stored_bytes - second.uploaded_bytes == report.unreferenced_bytes
    assert objects(tmp_path / "r") == objects(tmp_path / "whole")
    after = opened(tmp_path / "r").verify()
    assert after.ok
    assert not after.unreferenced


def test_a_damaged_local_source_sends_pull_to_the_repository(
    tmp_path: Path, history: Repository, makers: Makers
) -> None:
    history.pull("m", "1.0.0", tmp_path / "have")
    path = tmp_path / "have" / "model.safetensors"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :: 97] = bytes(len(data[len(data) // 2 :: 97]))
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for version in (1, 2):
        report = history.pull("m", f"1.{version}.0", tmp_path / f"out{version}", have=[tmp_path / "have"])
        assert makers.tree(tmp_path / f"out{version}") == makers.tree(tmp_path / f"in{version}")
        assert report.fetched_bytes
