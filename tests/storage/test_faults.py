"""Damage: every harm to a repository is named, and nothing that was there before is touched by it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.errors import (
    CorruptDataError,
    MissingObjectError,
    OutOfSpaceError,
    StorageUnavailableError,
    TextnlpFastError,
    UnsupportedFormatError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage import Repository, TransferOptions

Makers = Any


@pytest.fixture
def history(tmp_path: Path, repository: Repository, makers: Makers) -> Repository:
    """Three versions of a directory, each but the first coded against the one before."""
    tensors = makers.tensors()
    for number in range(3):
        makers.directory(tmp_path / f"in{number}", tensors)
        repository.push(tmp_path / f"in{number}", "m", f"1.{number}.0")
        tensors = makers.nudge(tensors, number)
    return repository


def reopened(repository: Repository) -> Repository:
    """The repository as another process sees it: nothing remembered."""
    return Repository.open(repository.url, options=repository.options)


def files_of(root: Path, folder: str) -> list[Path]:
    return sorted(path for path in (root / folder).rglob("*") if path.is_file())


def flip(path: Path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def test_a_flipped_bit_in_any_object_is_found(tmp_path: Path, history: Repository, makers: Makers) -> None:
    root = tmp_path / "repository"
    shards = files_of(root, "objects")
    assert len(shards) >= 3
    out = tmp_path / "out"
    history.pull("m", "1.0.0", out)
    before = makers.tree(out)
    harmless = 0
    for number, shard in enumerate(shards):
        size = shard.stat().st_size
        for position in {0, size // 2, size - 1}:
            flip(shard, position, number % 8)
            report = reopened(history).verify()
            assert any(shard.name in problem.where for problem in report.problems), report.problems
            hurt = 0
            for version, source in (("1.1.0", "in1"), ("1.2.0", "in2")):
                fresh = tmp_path / "fresh"
                try:
                    reopened(history).pull("m", version, fresh)
                    assert makers.tree(fresh) == makers.tree(tmp_path / source)
                    shutil.rmtree(fresh)
                except CorruptDataError as error:
                    hurt += 1
                    assert "tensor" in str(error) or "header" in str(error) or "file" in str(error)
                    assert not fresh.exists()
            assert any("m@1." in problem.where for problem in report.problems) == (hurt > 0), report.problems
            harmless += hurt == 0
            flip(shard, position, number % 8)
    assert harmless <= len(shards) // 2, (
        "every byte is needed, though a frame may not use all that its head allows"
    )
    assert makers.tree(out) == before
    assert reopened(history).verify().ok


def test_damage_leaves_the_destination_as_it_was(tmp_path: Path, history: Repository, makers: Makers) -> None:
    out = tmp_path / "out"
    history.pull("m", "1.0.0", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for shard in files_of(tmp_path / "repository", "objects"):
        flip(shard, shard.stat().st_size // 2, 3)
    with pytest.raises(CorruptDataError):
        reopened(history).pull("m", "1.2.0", out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert not list(out.glob(".textnlp-fast-partial*"))


def test_a_flipped_bit_in_a_manifest_is_found(tmp_path: Path, history: Repository) -> None:
    manifest = tmp_path / "repository" / "models" / "m" / "versions" / "1.1.0.json"
    size = manifest.stat().st_size
    for position in range(0, size, max(1, size // 40)):
        flip(manifest, position, 2)
        with pytest.raises((CorruptDataError, UnsupportedFormatError)):
            reopened(history).pull("m", "1.1.0", tmp_path / "out")
        report = reopened(history).verify()
        assert [problem.where for problem in report.problems] == ["m@1.1.0"]
        flip(manifest, position, 2)
    assert not (tmp_path / "out").exists()


def test_a_manifest_in_anothers_place_is_found(tmp_path: Path, history: Repository) -> None:
    versions = tmp_path / "repository" / "models" / "m" / "versions"
    shutil.copy(versions / "1.0.0.json", versions / "1.1.0.json")
    with pytest.raises(CorruptDataError, match="stored in its place"):
        reopened(history).pull("m", "1.1.0", tmp_path / "out")


def test_a_damaged_manifest_does_not_stop_other_models(
    tmp_path: Path, history: Repository, makers: Makers
) -> None:
    versions = tmp_path / "repository" / "models" / "m" / "versions"
    for manifest in versions.iterdir():
        flip(manifest, 100, 1)
    source = makers.write(tmp_path / "other.safetensors", makers.tensors(4))
    reopened(history).push(source, "other", "1.0.0")
    assert reopened(history).verify("other").ok
    # No readable version is left to code against: the new one stands alone, and the report says why.
    report = reopened(history).push(source, "m", "1.3.0")
    assert set(report.passed_over) == {"1.0.0", "1.1.0", "1.2.0"}
    assert reopened(history).manifest("m", "1.3.0").parent is None


def test_a_flipped_bit_in_the_repository_document_is_found(tmp_path: Path, history: Repository) -> None:
    document = tmp_path / "repository" / "repository.json"
    for position in range(document.stat().st_size):
        flip(document, position, 1)
        with pytest.raises((CorruptDataError, UnsupportedFormatError)):
            reopened(history)
        flip(document, position, 1)


def test_a_missing_object_is_named_and_another_push_heals(
    tmp_path: Path, history: Repository, makers: Makers
) -> None:
    shards = files_of(tmp_path / "repository", "objects")
    for shard in shards:
        content = shard.read_bytes()
        shard.unlink()
        report = reopened(history).verify()
        missing = [problem for problem in report.problems if problem.kind == "missing"]
        assert any(shard.name in problem.where for problem in missing)
        assert any("m@1." in problem.detail for problem in missing)
        with pytest.raises(MissingObjectError, match=shard.name) as caught:
            for version in ("1.0.0", "1.1.0", "1.2.0"):
                reopened(history).pull("m", version, tmp_path / "fresh" / version)
        assert "push the version again" in caught.value.hint
        shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
        for number in range(3):
            assert reopened(history).push(tmp_path / f"in{number}", "m", f"1.{number}.0").already_there
        assert shard.read_bytes() == content
        assert reopened(history).verify().ok


def test_nothing_new_is_built_on_a_missing_object(
    tmp_path: Path, history: Repository, makers: Makers
) -> None:
    for shard in files_of(tmp_path / "repository", "objects"):
        shard.unlink()
    reopened(history).push(tmp_path / "in2", "m", "2.0.0")
    reopened(history).pull("m", "2.0.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "in2")


@pytest.mark.parametrize("size", [0, 100, None], ids=["emptied", "cut short", "with more at its end"])
def test_an_object_of_the_wrong_size_counts_as_missing(
    tmp_path: Path, history: Repository, makers: Makers, size: int | None
) -> None:
    for shard in files_of(tmp_path / "repository", "objects"):
        content = shard.read_bytes()
        shard.write_bytes(content + b"more" if size is None else content[:size])
    again = reopened(history).push(tmp_path / "in1", "m", "2.0.0")
    assert again.stored_bytes > 0
    reopened(history).pull("m", "2.0.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "in1")


def test_pushing_again_heals_objects_that_were_cut_short(tmp_path: Path, history: Repository) -> None:
    for shard in files_of(tmp_path / "repository", "objects"):
        content = shard.read_bytes()
        shard.write_bytes(content[: len(content) // 2])
        for number in range(3):
            report = reopened(history).push(tmp_path / f"in{number}", "m", f"1.{number}.0")
            assert report.already_there
        assert shard.read_bytes() == content
    assert reopened(history).verify().ok


def test_a_damaged_base_in_the_repository_stops_a_push(
    tmp_path: Path, history: Repository, makers: Makers
) -> None:
    for shard in files_of(tmp_path / "repository", "objects"):
        shard.write_bytes(bytes(byte ^ 0x40 for byte in shard.read_bytes()))
    before = makers.tree(tmp_path / "repository" / "models")
    makers.directory(tmp_path / "next", makers.nudge(makers.tensors(), 9))
    with pytest.raises(CorruptDataError, match="stored base of tensor"):
        reopened(history).push(tmp_path / "next", "m", "1.3.0")
    assert makers.tree(tmp_path / "repository" / "models") == before


class _Brittle:
    """An object store that breaks after some writes."""

    def __init__(self, store: ObjectStore, writes: int, error: TextnlpFastError) -> None:
        self._store = store
        self._writes = writes
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_object(self, key: str, data: Any) -> None:
        if self._writes == 0:
            raise self._error
        self._writes -= 1
        self._store.put_object(key, data)


@pytest.mark.parametrize("writes", [0, 1, 3, 6])
@pytest.mark.parametrize("error", [StorageUnavailableError("no answer"), OutOfSpaceError("full")])
def test_an_interrupted_push_is_taken_up_again(
    tmp_path: Path, makers: Makers, options: TransferOptions, writes: int, error: TextnlpFastError
) -> None:
    source = makers.directory(tmp_path / "in", makers.tensors(rows=512))
    repository = Repository.open(tmp_path / "r", create=True, options=options, window_bytes=1 << 13)
    store = repository._store
    repository._store = _Brittle(store, writes, error)  # type: ignore[assignment]
    with pytest.raises(type(error)):
        repository.push(source, "m", "1.0.0")
    report = reopened(repository).verify()
    assert report.ok
    assert report.versions == 0
    assert len(report.unreferenced) == writes
    repository._store = store
    second = repository.push(source, "m", "1.0.0")
    assert second.stored_bytes - second.uploaded_bytes == report.unreferenced_bytes
    after = repository.verify()
    assert after.ok
    assert not after.unreferenced
    repository.pull("m", "1.0.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(source)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("making a small file system needs root")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_under_the_repository(small_disk: Path, tmp_path: Path, makers: Makers) -> None:
    tensors = makers.tensors(rows=256)
    small = makers.write(tmp_path / "small" / "m.safetensors", tensors)
    large = makers.write(tmp_path / "large" / "m.safetensors", makers.tensors(5, rows=4096))
    options = TransferOptions(shard_bytes=1 << 16)
    repository = Repository.open(small_disk / "r", create=True, options=options, window_bytes=1 << 14)
    repository.push(small, "m", "1.0.0")
    with pytest.raises(OutOfSpaceError) as caught:
        repository.push(large, "m", "1.1.0")
    assert "Free space" in caught.value.hint
    assert reopened(repository).verify().ok
    assert reopened(repository).models() == {"m": ["1.0.0"]}
    repository.pull("m", "1.0.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "small")


@pytest.mark.parametrize("asked_before", [True, False])
def test_a_full_disk_under_the_destination(
    small_disk: Path, tmp_path: Path, makers: Makers, asked_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = makers.tensors(rows=256), makers.tensors(5, rows=4096)
    repository = Repository.open(tmp_path / "r", create=True)
    repository.push(makers.write(tmp_path / "a" / "m.safetensors", old), "m", "1.0.0")
    repository.push(makers.write(tmp_path / "b" / "m.safetensors", new), "m", "1.1.0")
    repository.pull("m", "1.0.0", small_disk / "out")
    before = makers.tree(small_disk / "out")
    if not asked_before:  # the space goes while the pull runs
        monkeypatch.setattr("textnlp_fast.storage.pull._check_space", lambda *_: None)
    with pytest.raises(OutOfSpaceError):
        repository.pull("m", "1.1.0", small_disk / "out")
    assert makers.tree(small_disk / "out") == before
    assert sorted(path.name for path in (small_disk / "out").iterdir()) == [
        ".textnlp-fast.json",
        "m.safetensors",
    ]
