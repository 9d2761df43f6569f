"""What a push stores, against what, and what it refuses."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textnlp_fast
from textnlp_fast.errors import (
    InvalidInputError,
    ModelNotFoundError,
    SafetensorsError,
    UnsafeFileError,
    VersionExistsError,
    VersionNotFoundError,
)
from textnlp_fast.storage import Repository, TransferOptions

Makers = Any


def objects(repository: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (repository / "objects").rglob("*") if path.is_file()}


def test_local_and_repository_bases_store_the_same_bytes(tmp_path: Path, makers: Makers) -> None:
    first, second = makers.tensors(1), makers.nudge(makers.tensors(1), 2)
    makers.write(tmp_path / "a" / "m.safetensors", first)
    makers.write(tmp_path / "b" / "m.safetensors", second)
    stored = []
    for place, base in (("r1", None), ("r2", tmp_path / "a")):
        repository = Repository.open(tmp_path / place, create=True, window_bytes=1 << 13)
        repository.push(tmp_path / "a", "m", "1.0.0")
        repository.push(tmp_path / "b", "m", "1.1.0", base_path=base)
        stored.append(objects(tmp_path / place))
    assert stored[0] == stored[1]


def test_a_wrong_local_base_is_no_base(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    first = makers.tensors(1)
    makers.write(tmp_path / "a" / "m.safetensors", first)
    makers.write(tmp_path / "b" / "m.safetensors", makers.nudge(first, 2))
    makers.write(tmp_path / "c" / "m.safetensors", makers.tensors(9))
    repository.push(tmp_path / "a", "m", "1.0.0")
    repository.push(tmp_path / "b", "m", "1.1.0", base_path=tmp_path / "c")
    repository.pull("m", "1.1.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "b")


def test_nothing_is_stored_twice(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    tensors = makers.tensors()
    tensors["tied.weight"] = tensors["layers.0.q_proj.weight"]
    makers.write(tmp_path / "a" / "m.safetensors", tensors)
    repository.push(tmp_path / "a", "m", "1.0.0")
    manifest = repository.manifest("m", "1.0.0")
    assert len(manifest.contents) == len(tensors)  # the header is one more, the tied tensor one less

    renamed = {f"model.{name}": array for name, array in tensors.items()}
    makers.write(tmp_path / "b" / "m.safetensors", renamed)
    report = repository.push(tmp_path / "b", "other", "1.0.0")
    assert report.new_contents == 1  # the header
    assert report.stored_bytes < 2_000
    repository.pull("other", "1.0.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "b")


def test_files_that_are_not_tensors_share_chunks(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    rng = np.random.default_rng(3)
    blob = rng.integers(0, 256, 1_000_000, np.uint8).tobytes()
    for version, content in (("1.0.0", blob), ("1.1.0", blob[:500_000] + b"inserted" + blob[500_000:])):
        folder = tmp_path / version
        makers.write(folder / "m.safetensors", {"w": np.zeros(8, np.uint16)})
        (folder / "optimizer.dat").write_bytes(content)
        report = repository.push(folder, "m", version)
        repository.pull("m", version, tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(folder)
    assert report.stored_bytes < 300_000


def test_pushing_the_same_again_changes_nothing(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors())
    repository.push(source, "m", "1.0.0")
    before = makers.tree(tmp_path / "repository")
    again = repository.push(source, "m", "1.0.0")
    assert again.already_there
    assert again.uploaded_bytes == 0
    assert makers.tree(tmp_path / "repository") == before


def test_a_version_never_changes(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    tensors = makers.tensors()
    repository.push(makers.write(tmp_path / "a" / "m.safetensors", tensors), "m", "1.0.0")
    before = makers.tree(tmp_path / "repository")
    other = makers.write(tmp_path / "b" / "m.safetensors", makers.nudge(tensors, 1))
    with pytest.raises(VersionExistsError, match=r"m@1\.0\.0") as caught:
        repository.push(other, "m", "1.0.0")
    assert "new version" in caught.value.hint
    assert makers.tree(tmp_path / "repository") == before


def test_the_loser_of_a_race_is_told(
    tmp_path: Path, repository: Repository, makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = makers.tensors()
    mine = makers.write(tmp_path / "a" / "m.safetensors", tensors)
    theirs = makers.write(tmp_path / "b" / "m.safetensors", makers.nudge(tensors, 1))
    rival = Repository.open(tmp_path / "repository")
    # Both look before either has published.
    monkeypatch.setattr(repository._versions, "find", lambda *_: None)
    rival.push(theirs, "m", "1.0.0")
    monkeypatch.setattr(repository._versions, "models", dict)
    with pytest.raises(VersionExistsError):
        repository.push(mine, "m", "1.0.0", parent=None)
    assert repository.push(theirs, "m", "1.0.0", parent=None).already_there
    assert rival.verify().ok


def test_parents_can_be_named(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    base = makers.tensors()
    tuned = makers.nudge(base, 5)
    repository.push(makers.write(tmp_path / "a.safetensors", base), "base", "1.0.0")
    source = makers.write(tmp_path / "b.safetensors", tuned)
    by_itself = repository.push(source, "alone", "1.0.0", parent=None)
    assert by_itself.parent is None
    shared = Repository.open(tmp_path / "second", create=True)
    shared.push(tmp_path / "a.safetensors", "base", "1.0.0")
    report = shared.push(source, "tuned", "1.0.0", parent="base@1.0.0")
    assert report.parent == "base@1.0.0"
    assert report.stored_bytes < by_itself.stored_bytes / 2
    with pytest.raises(VersionNotFoundError, match=r"base has no version 9\.0\.0"):
        shared.push(source, "tuned", "1.1.0", parent="base@9.0.0")


def test_automatic_parent_is_the_highest_below(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    tensors = makers.tensors()
    parents = {}
    for number, version in enumerate(["2.0.0", "1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1", "3.0.0"]):
        source = makers.write(tmp_path / f"{number}.safetensors", makers.nudge(tensors, number))
        parents[version] = repository.push(source, "m", version).parent
    assert parents == {
        "2.0.0": None,
        "1.0.0": None,
        "1.9.0": "m@1.0.0",
        "1.10.0": "m@1.9.0",
        "2.0.0-rc.1": "m@1.10.0",
        "3.0.0": "m@2.0.0",
    }
    assert repository.manifest("m").version == "3.0.0"


def test_shards_keep_to_their_size(tmp_path: Path, repository: Repository, makers: Makers) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors(rows=512))
    repository.push(source, "m", "1.0.0")
    sizes = list(repository.manifest("m").objects.values())
    assert len(sizes) > 4
    assert max(sizes) <= repository.options.shard_bytes
    assert sum(sizes) == repository.log("m")[0].stored_bytes


def test_the_same_push_makes_the_same_objects(tmp_path: Path, makers: Makers) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors(rows=256))
    found = []
    for threads in (1, 4):
        options = TransferOptions(shard_bytes=1 << 16, threads=threads)
        repository = Repository.open(
            tmp_path / f"r{threads}", create=True, options=options, window_bytes=1 << 13
        )
        repository.push(source, "m", "1.0.0")
        found.append(objects(tmp_path / f"r{threads}"))
    assert found[0] == found[1]


def test_pickles_are_refused_before_anything_is_stored(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    source = makers.directory(tmp_path / "in", makers.tensors())
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": [1.0]}))
    with pytest.raises(UnsafeFileError, match=r"pytorch_model\.bin"):
        repository.push(source, "m", "1.0.0")
    assert not objects(tmp_path / "repository")


def test_a_file_that_changes_meanwhile_is_noticed(
    tmp_path: Path, repository: Repository, makers: Makers
) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors())

    def meddle(progress: Any) -> None:
        if progress.stage == "push":
            data = bytearray(source.read_bytes())
            data[-1] ^= 1
            source.write_bytes(data)

    with pytest.raises(InvalidInputError, match="changed while"):
        repository.push(source, "m", "1.0.0", progress=meddle)
    assert not repository.models()


@pytest.mark.parametrize("parent", ["auto", "0.1.0", "other@1.0.0"])
def test_a_push_that_fails_makes_no_repository(tmp_path: Path, makers: Makers, parent: str) -> None:
    bad = tmp_path / "bad" / "model.safetensors"
    bad.parent.mkdir()
    bad.write_bytes(b"\xff" * 64)
    good = makers.write(tmp_path / "good" / "model.safetensors", makers.tensors())
    source, error = (bad, SafetensorsError) if parent == "auto" else (good, ModelNotFoundError)
    with pytest.raises(error):
        textnlp_fast.push(source, tmp_path / "new", name="m", version="1.0.0", parent=parent)
    assert not (tmp_path / "new" / "repository.json").exists()
    textnlp_fast.push(good, tmp_path / "new", name="m", version="1.0.0")
    assert Repository.open(tmp_path / "new").models() == {"m": ["1.0.0"]}


def test_the_first_push_makes_the_windows_asked_for(tmp_path: Path, makers: Makers) -> None:
    source = makers.write(tmp_path / "model.safetensors", makers.tensors())
    repository = Repository.open(tmp_path / "new", create="at push", window_bytes=1 << 12)
    repository.push(source, "m", "1.0.0")
    assert repository.manifest("m", "1.0.0").window_bytes == 1 << 12
