"""Push and pull over whole models: what comes back is what went in; only what is new is stored or moved."""

from __future__ import annotations

import os
import pickle
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textnlp_fast
from textnlp_fast.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    ModelNotFoundError,
    RepositoryNotFoundError,
    SafetensorsError,
    UnsafeFileError,
    VersionExistsError,
    VersionNotFoundError,
)
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.manifest import chain_of

Makers = Any


def objects(repository: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (repository / "objects").rglob("*") if path.is_file()}


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
    "version", ["", "1", "1.0", "v1.0.0", "01.0.0", "1.0.0+build", "1.0.0/..", "latest", "1.0.٣"]
)
def test_odd_versions_are_refused(
    tmp_path: Path, repository: Repository, makers: Makers, version: str
) -> None:
    source = makers.write(tmp_path / "m.safetensors", makers.tensors())
    with pytest.raises(InvalidInputError, match="not a version"):
        repository.push(source, "m", version)


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
