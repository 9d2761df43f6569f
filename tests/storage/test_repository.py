"""Whole models through a repository: what comes back is what went in, and what is asked is answered."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textnlp_fast
from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    ModelNotFoundError,
    RepositoryNotFoundError,
    VersionNotFoundError,
)
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.manifest import chain_of

Makers = Any


def test_a_file_comes_back_byte_for_byte(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    source = makers.write(tmp_path / "in" / "model.safetensors", makers.tensors(), {"odd": "  metadata\t"})
    report = repository.push(source, "org/model", "1.0.0")
    assert report.raw_bytes == source.stat().st_size
    assert 0 < report.stored_bytes < report.raw_bytes
    pulled = repository.pull("org/model", None, tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "in")
    assert pulled.version == "1.0.0"
    assert repository.verify().ok


def test_a_directory_comes_back_with_every_file(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    source = makers.directory(tmp_path / "in", makers.tensors())
    repository.push(source, "m", "1.0.0")
    repository.pull("m", "1.0.0", tmp_path / "deep" / "er" / "out")
    assert makers.tree(tmp_path / "deep" / "er" / "out") == makers.tree(source)
    assert sorted(entry.name for entry in (tmp_path / "deep" / "er").iterdir()) == ["out"]


def test_odd_tensors_come_back(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    rng = np.random.default_rng(1)
    tensors = {
        "empty": np.zeros(0, np.uint16),
        "scalar": np.array(7, np.float32).reshape(()),
        "bytes": rng.integers(0, 256, 12_345, np.uint8),
        "nan payloads": rng.integers(0, 2**32, 5_000, np.uint32),
        "empty too": np.zeros((3, 0), np.uint8),
    }
    old = makers.write(tmp_path / "a" / "m.safetensors", tensors)
    repository.push(old, "m", "1.0.0")
    tensors["bytes"] = rng.integers(0, 256, 12_345, np.uint8)
    new = makers.write(tmp_path / "b" / "m.safetensors", tensors)
    repository.push(new, "m", "1.1.0")
    for folder, version in (("a", "1.0.0"), ("b", "1.1.0")):
        repository.pull("m", version, tmp_path / f"out-{folder}")
        assert makers.tree(tmp_path / f"out-{folder}") == makers.tree(tmp_path / folder)


@pytest.mark.parametrize("base", ["from the repository", "from local files"])
def test_a_history_is_small_and_every_version_comes_back(
    tmp_path: Path, repository: Repository, makers: Makers, base: str
) -> None:
    tensors = makers.tensors()
    previous = None
    whole = []
    for number in range(12):
        folder = tmp_path / f"v{number}"
        makers.write(folder / "model.safetensors", tensors)
        local = previous if base == "from local files" else None
        report = repository.push(folder, "m", f"1.{number}.0", base_path=local, message=f"step {number}")
        if number:
            assert report.parent == f"m@1.{number - 1}.0"
            assert report.base is None or report.stored_bytes < report.raw_bytes / 4
        whole += [number] if report.base is None else []
        tensors, previous = makers.nudge(tensors, number), folder
    assert whole[0] == 0
    assert len(whole) <= 2
    for number in range(12):
        manifest = repository.manifest("m", f"1.{number}.0")
        depths = [len(chain_of(manifest.contents, digest)) - 1 for digest in manifest.wanted()]
        assert max(depths) <= repository.options.max_chain_depth
        repository.pull("m", f"1.{number}.0", tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / f"v{number}")
    rows = repository.log("m")
    assert [row.version for row in rows] == [f"1.{number}.0" for number in range(12)]
    assert rows[3].parent == "1.2.0"
    assert rows[3].message == "step 3"
    assert repository.verify().ok


@pytest.mark.parametrize("choice", [{"sharding": False}, {"compression": False}, {"delta": False}])
def test_every_option_keeps_every_byte(tmp_path: Path, makers: Makers, choice: dict[str, bool]) -> None:
    options = TransferOptions(shard_bytes=1 << 16, **choice)  # type: ignore[arg-type]
    repository = Repository.open(tmp_path / "r", create=True, options=options, window_bytes=1 << 12)
    tensors = makers.tensors()
    for number in range(3):
        source = makers.write(tmp_path / f"in{number}" / "m.safetensors", tensors)
        report = repository.push(source.parent, "m", f"1.{number}.0")
        repository.pull("m", f"1.{number}.0", tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(source.parent)
        tensors = makers.nudge(tensors, number)
    manifest = repository.manifest("m")
    if choice.get("delta") is False or choice.get("compression") is False:
        assert all(content.base is None for content in manifest.contents.values())
        assert report.stored_bytes > report.raw_bytes / 2
    if choice.get("sharding") is False:
        assert len(manifest.objects) == len({e for c in manifest.contents.values() for e in c.extents})
    assert repository.verify().ok


def test_diff_tells_what_happened_to_each_tensor(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    old = {
        "same": np.arange(4096, dtype=np.uint16),
        "changed": np.full(8192, 0x3F80, np.uint16),
        "gone": np.full(100, 1, np.uint16),
        "was": np.arange(5000, dtype=np.uint16)[::-1].copy(),
        "resized": np.zeros(10, np.uint16),
    }
    new = {name: array.copy() for name, array in old.items() if name not in ("gone", "was")}
    new["changed"][10] += 1
    new["changed"][5000] += 7
    new["now"] = old["was"]
    new["fresh"] = np.full(100, 2, np.uint16)
    new["resized"] = np.zeros(11, np.uint16)
    repository.push(makers.write(tmp_path / "a.safetensors", old), "m", "1.0.0")
    repository.push(makers.write(tmp_path / "b.safetensors", new), "m", "1.1.0")
    rows = {row.name: row for row in repository.diff("m", "1.0.0", "1.1.0")}
    statuses = {name: row.status for name, row in rows.items()}
    assert statuses == {
        "same": "same",
        "changed": "changed",
        "now": "renamed",
        "fresh": "added",
        "resized": "changed",
        "gone": "removed",
    }
    assert rows["now"].old_name == "was"
    changed = rows["changed"]
    assert (changed.elements, changed.changed, changed.max_ulp) == (8192, 2, 7)
    assert changed.mean_abs_ulp == pytest.approx(8 / 8192)
    assert 0 < changed.stored_bytes < 2000
    assert rows["resized"].changed is None
    assert [row.status for row in repository.diff("m", "1.0.0", "m@1.0.0")] == ["same"] * 5


def test_what_is_missing_is_named(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    with pytest.raises(RepositoryNotFoundError):
        Repository.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(RepositoryNotFoundError):
        Repository.open("memory://nothing-here")
    with pytest.raises(ModelNotFoundError, match="'m'") as caught:
        repository.pull("m", "1.0.0", tmp_path / "out")
    assert "push one first" in caught.value.hint
    repository.push(makers.write(tmp_path / "m.safetensors", makers.tensors()), "m", "1.0.0")
    with pytest.raises(VersionNotFoundError, match=r"no version 2\.0\.0") as missing:
        repository.pull("m", "2.0.0", tmp_path / "out")
    assert "1.0.0" in missing.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["", "/m", "m/", "../m", "a/../b", "a b", "a/versions/b", "-m", "m@1", "ü", "a/b/c/d/e"]
)
def test_odd_names_are_refused(tmp_path: Path, repository: Repository, makers: Makers, name: str) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors())
    with pytest.raises(InvalidInputError, match="not a model name"):
        repository.push(source, name, "1.0.0")


@pytest.mark.parametrize(
    "version", ["", "1", "1.0", "v1.0.0", "01.0.0", "1.0.0+", "1.0.0+a_b", "1.0.0/..", "latest", "1.0.٣"]
)
def test_odd_versions_are_refused(
    tmp_path: Path, repository: Repository, makers: Makers, version: str
) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors())
    with pytest.raises(InvalidInputError, match="not a version"):
        repository.push(source, "m", version)


def test_progress_never_goes_back(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    source = makers.directory(tmp_path / "in", makers.tensors())
    seen: dict[str, list[tuple[int, int]]] = {}

    def note(progress: Any) -> None:
        seen.setdefault(progress.stage, []).append((progress.done_bytes, progress.total_bytes))

    repository.push(source, "m", "1.0.0", progress=note)
    repository.pull("m", "1.0.0", tmp_path / "out", progress=note)
    repository.verify(progress=note)
    assert set(seen) == {"hash", "push", "pull", "verify"}
    for steps in seen.values():
        assert all(first[0] <= second[0] for first, second in pairwise(steps))
        assert steps[-1][0] == steps[-1][1]


def test_functions_without_a_class(tmp_path: Path, makers: Makers) -> None:
    source = makers.write(tmp_path / "in" / "m.safetensors", makers.tensors())
    url = f"file://{tmp_path}/place"
    textnlp_fast.push(source, url, name="m", version="1.0.0")
    textnlp_fast.pull(url, tmp_path / "out", name="m")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "in")
    assert [row.version for row in textnlp_fast.log(url, name="m")] == ["1.0.0"]
    assert textnlp_fast.verify(url).ok
    assert {row.status for row in textnlp_fast.diff(url, "1.0.0", "1.0.0", name="m")} == {"same"}


def test_tensors_that_share_bytes_keep_their_own_dtypes(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    zeros = {
        "half": np.zeros(64, np.float16),
        "brain": np.zeros(64, np.uint16),
        "bytes": np.zeros(128, np.uint8),
    }
    makers.write(tmp_path / "a" / "model.safetensors", zeros)
    ones = {name: np.ones_like(array) for name, array in zeros.items()} | {"half": np.zeros(64, np.uint16)}
    makers.write(tmp_path / "b" / "model.safetensors", ones)
    repository.push(tmp_path / "a", "m", "1.0.0")
    repository.push(tmp_path / "b", "m", "1.1.0")
    wanted = {"half": "F16", "brain": "BF16", "bytes": "U8"}
    assert repository.dtypes(repository.manifest("m", "1.0.0")) == {"model.safetensors": wanted}
    rows = {row.name: row for row in repository.diff("m", "1.0.0", "1.1.0")}
    assert {name: row.dtype for name, row in rows.items()} == wanted | {"half": "BF16"}
    assert rows["half"].status == "changed"  # the same bytes mean something else now
    assert (rows["brain"].elements, rows["brain"].changed) == (64, 64)
    assert (rows["bytes"].elements, rows["bytes"].changed) == (128, 128)


def test_a_damaged_header_is_found_by_who_reads_dtypes(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    repository.push(makers.write(tmp_path / "model.safetensors", makers.tensors()), "m", "1.0.0")
    for shard in (tmp_path / "repository" / "objects").rglob("*"):
        if shard.is_file():
            shard.write_bytes(bytes(byte ^ 0x40 for byte in shard.read_bytes()))
    with pytest.raises(CorruptDataError, match="the header of 'model"):
        repository.dtypes(repository.manifest("m", "1.0.0"))
