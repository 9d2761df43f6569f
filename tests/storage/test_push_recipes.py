"""Pushes whose tensors are the parent's in another layout: stored as what is made of those, and back bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reference import repository as reference
from storage import layouts
from storage.layouts import Tensors
from textnlp_fast.delta.recipe import Whole
from textnlp_fast.storage import Repository, TransferOptions, matching
from textnlp_fast.storage.manifest import Manifest, depth_of

Makers = Any


def written(makers: Makers, path: Path, tensors: Tensors) -> Path:
    makers.write(path / "model.safetensors", tensors)
    return path


def recipes(manifest: Manifest) -> int:
    """Contents of the files that are coded against more than a whole content."""
    return sum(not isinstance(manifest.contents[digest].base, Whole | None) for digest in manifest.wanted())


def objects(repository: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (repository / "objects").rglob("*") if path.is_file()}


def opened(place: Path, window_bytes: int = 1 << 12, *, priced: bool = True) -> Repository:
    options = TransferOptions(shard_bytes=1 << 16, threads=2)
    if not priced:
        options = replace(options, prices=None)
    return Repository.open(place, create=True, options=options, window_bytes=window_bytes)


@pytest.mark.parametrize("change", layouts.CHANGES)
@pytest.mark.parametrize("window_bytes", [1 << 12, 10_000, 1 << 24])
def test_a_new_layout_is_small_and_comes_back(
    tmp_path: Path, makers: Makers, change: str, window_bytes: int
) -> None:
    if change == "turned":
        window_bytes = max(window_bytes, 1 << 14)  # a matrix of more than four windows is not turned
    before, after = layouts.CHANGES[change]
    first = before(layouts.model())
    second = after(layouts.trained(first) if change.startswith("cast") else first)
    second = second if change == "cast back" else layouts.trained(second)
    written(makers, tmp_path / "a", first)
    written(makers, tmp_path / "b", second)
    repository = opened(tmp_path / "r", window_bytes)
    repository.push(tmp_path / "a", "m", "1.0.0")
    alone = opened(tmp_path / "alone", window_bytes).push(tmp_path / "b", "m", "1.1.0")
    report = repository.push(tmp_path / "b", "m", "1.1.0")
    ratio = {"cast back": 0.9}.get(change, 0.5)
    assert report.stored_bytes < ratio * alone.stored_bytes, (report.stored_bytes, alone.stored_bytes)
    for version, folder in (("1.0.0", "a"), ("1.1.0", "b")):
        repository.pull("m", version, tmp_path / f"out-{folder}")
        assert makers.tree(tmp_path / f"out-{folder}") == makers.tree(tmp_path / folder)
    fresh = repository.pull("m", "1.1.0", tmp_path / "fresh")
    near = repository.pull("m", "1.1.0", tmp_path / "near", have=[tmp_path / "a"])
    assert makers.tree(tmp_path / "near") == makers.tree(tmp_path / "fresh") == makers.tree(tmp_path / "b")
    assert near.fetched_bytes < fresh.fetched_bytes
    assert repository.verify().ok


@pytest.mark.parametrize("change", ["fused", "interleaved", "cast", "turned"])
def test_where_the_parent_is_read_from_does_not_matter(tmp_path: Path, makers: Makers, change: str) -> None:
    before, after = layouts.CHANGES[change]
    first = before(layouts.model())
    written(makers, tmp_path / "a", first)
    written(makers, tmp_path / "b", layouts.trained(after(first)))
    stored = []
    for place, base, threads in (("r1", None, 1), ("r2", tmp_path / "a", 4)):
        options = TransferOptions(shard_bytes=1 << 16, threads=threads)
        repository = Repository.open(tmp_path / place, create=True, options=options, window_bytes=1 << 14)
        repository.push(tmp_path / "a", "m", "1.0.0")
        repository.push(tmp_path / "b", "m", "1.1.0", base_path=base)
        assert recipes(repository.manifest("m", "1.1.0"))
        stored.append(objects(tmp_path / place))
    assert stored[0] == stored[1]


def test_layouts_that_go_back_and_forth_stay_small(tmp_path: Path, makers: Makers) -> None:
    repository = opened(tmp_path / "r")
    tensors = layouts.model()
    for number in range(12):
        written(makers, tmp_path / f"v{number}", tensors)
        report = repository.push(tmp_path / f"v{number}", "m", f"1.{number}.0")
        manifest = repository.manifest("m", f"1.{number}.0")
        depths = [depth_of(manifest.contents, digest) for digest in manifest.contents]
        assert max(depths) <= repository.options.max_chain_depth
        if 0 < number < 4:
            assert report.stored_bytes < report.raw_bytes / 10
            assert recipes(manifest)
        turn = layouts.split if number % 2 else layouts.fused
        tensors = turn(layouts.trained(tensors, number))
    for number in range(12):
        repository.pull("m", f"1.{number}.0", tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / f"v{number}")
    assert repository.verify().ok


def test_what_is_trained_on_in_the_new_layout_is_coded_as_ever(tmp_path: Path, makers: Makers) -> None:
    repository = opened(tmp_path / "r", priced=False)
    tensors = layouts.model()
    written(makers, tmp_path / "v0", tensors)
    repository.push(tmp_path / "v0", "m", "1.0.0")
    tensors = layouts.fused(tensors)
    for number in range(1, 12):
        tensors = layouts.trained(tensors, number)
        written(makers, tmp_path / f"v{number}", tensors)
        report = repository.push(tmp_path / f"v{number}", "m", f"1.{number}.0")
        assert report.stored_bytes < report.raw_bytes / 4
        manifest = repository.manifest("m", f"1.{number}.0")
        assert max(depth_of(manifest.contents, digest) for digest in manifest.wanted()) <= 8
        repository.pull("m", f"1.{number}.0", tmp_path / "out")
        assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / f"v{number}")
    assert repository.verify().ok


@pytest.mark.parametrize("change", [layouts.fused, layouts.interleaved, layouts.stacked])
def test_a_new_layout_without_a_change_stores_next_to_nothing(
    tmp_path: Path, makers: Makers, change: Any
) -> None:
    repository = opened(tmp_path / "r")
    written(makers, tmp_path / "a", layouts.model())
    written(makers, tmp_path / "b", change(layouts.model()))
    repository.push(tmp_path / "a", "m", "1.0.0")
    report = repository.push(tmp_path / "b", "m", "1.1.0")
    assert report.stored_bytes < report.raw_bytes / 100


def test_diff_and_explain_read_recipes(tmp_path: Path, makers: Makers) -> None:
    repository = opened(tmp_path / "r")
    fused = layouts.fused(layouts.model())
    written(makers, tmp_path / "a", layouts.model())
    written(makers, tmp_path / "b", layouts.trained(fused, 1))
    third = layouts.trained(layouts.trained(fused, 1), 2)
    written(makers, tmp_path / "c", third)
    for folder, version in (("a", "1.0.0"), ("b", "1.1.0"), ("c", "1.2.0")):
        repository.push(tmp_path / folder, "m", version)
    rows = {row.name: row for row in repository.diff("m", "1.1.0", "1.2.0")}
    name = "layers.1.qkv.weight"
    assert rows[name].changed == int((third[name] != layouts.trained(fused, 1)[name]).sum())
    assert {row.status for row in repository.diff("m", "1.0.0", "1.1.0")} == {"added", "removed", "changed"}
    changes = {change.side.name: change for change in repository.explain("m", "1.0.0", "1.1.0").changes}
    assert changes[name].strategy == "recipe"
    assert changes["layers.1.down.weight"].strategy == "delta"


# --- what is read -----------------------------------------------------------------------------------------


def test_a_push_in_the_same_layout_looks_at_nothing(
    tmp_path: Path, makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = layouts.model()
    written(makers, tmp_path / "a", tensors)
    written(makers, tmp_path / "b", {**layouts.trained(tensors), "new.weight": tensors["embed.weight"][::-1]})
    repository = opened(tmp_path / "r")
    repository.push(tmp_path / "a", "m", "1.0.0")
    monkeypatch.setattr(matching, "read_tensors", pytest.fail)
    monkeypatch.setattr(matching, "match", pytest.fail)
    repository.push(tmp_path / "b", "m", "1.1.0")


def looked_at(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Fills with the contents of the parent that samples are taken of."""
    digests: set[str] = set()
    honest = matching._Sampler._read

    def read(self: Any, digest: str, begin: int, end: int) -> bytearray:
        data = honest(self, digest, begin, end)
        digests.add(digest)
        return data

    monkeypatch.setattr(matching._Sampler, "_read", read)
    return digests


@pytest.mark.parametrize("change", [layouts.fused, layouts.renamed])
def test_two_layers_tell_what_the_others_do(
    tmp_path: Path, makers: Makers, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    tensors = layouts.model(layers=12)
    written(makers, tmp_path / "a", tensors)
    written(makers, tmp_path / "b", layouts.trained(change(tensors)))
    repository = opened(tmp_path / "r")
    repository.push(tmp_path / "a", "m", "1.0.0")
    digests = looked_at(monkeypatch)
    report = repository.push(tmp_path / "b", "m", "1.1.0")
    assert report.stored_bytes < report.raw_bytes / 20
    manifest = repository.manifest("m", "1.0.0")
    names = {
        name
        for entry in manifest.files
        for name, digest in zip(entry.names, entry.parts[1:], strict=False)
        if digest in digests
    }
    assert names
    assert not [name for name in names if name.startswith("layers.") and int(name.split(".")[1]) > 1]


def test_names_and_shapes_are_believed_without_a_look(
    tmp_path: Path, makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, wide = layouts.model(), layouts.widened(layouts.model())
    more = layouts.grown(plain)["embed.weight"]
    written(makers, tmp_path / "a", {**wide, "embed.weight": plain["embed.weight"]})
    written(makers, tmp_path / "b", {**layouts.narrowed(wide), "embed.weight": more})
    repository = opened(tmp_path / "r")
    repository.push(tmp_path / "a", "m", "1.0.0")
    digests = looked_at(monkeypatch)
    report = repository.push(tmp_path / "b", "m", "1.1.0")
    assert not digests
    assert report.stored_bytes < report.raw_bytes / 10


def test_samples_are_bounded(tmp_path: Path, makers: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    written(makers, tmp_path / "a", layouts.model())
    written(makers, tmp_path / "b", layouts.renamed(layouts.trained(layouts.model())))
    stored = []
    for place, budget in (("r1", 0), ("r2", 1 << 17), ("r3", 1 << 30)):
        repository = opened(tmp_path / place)
        repository.push(tmp_path / "a", "m", "1.0.0")
        monkeypatch.setattr(matching, "_MOST_SAMPLED_BYTES", budget)
        digests = looked_at(monkeypatch)
        stored.append(repository.push(tmp_path / "b", "m", "1.1.0").stored_bytes)
        sizes = {d: content.size for d, content in repository.manifest("m", "1.0.0").contents.items()}
        assert sum(sizes[digest] for digest in digests) <= 2 * budget
        repository.pull("m", "1.1.0", tmp_path / f"out-{place}")
        assert makers.tree(tmp_path / f"out-{place}") == makers.tree(tmp_path / "b")
    assert stored[0] > 4 * stored[2]


def test_unrelated_tensors_are_stored_by_themselves(tmp_path: Path, makers: Makers) -> None:
    written(makers, tmp_path / "a", layouts.model(1))
    written(makers, tmp_path / "b", layouts.fused(layouts.model(2)))
    repository = opened(tmp_path / "r")
    repository.push(tmp_path / "a", "m", "1.0.0")
    repository.push(tmp_path / "b", "m", "1.1.0")
    assert recipes(repository.manifest("m", "1.1.0")) == 0


# --- a second reader --------------------------------------------------------------------------------------


def small(tensors: Tensors) -> Tensors:
    """A corner of each tensor: the slow reader takes its time."""
    return {name: array[:72, :32] if array.ndim == 2 else array[:32] for name, array in tensors.items()}


@pytest.mark.parametrize("change", layouts.CHANGES)
def test_a_reader_of_the_format_agrees(tmp_path: Path, makers: Makers, change: str) -> None:
    before, after = layouts.CHANGES[change]
    tensors = small(layouts.model(layers=2))
    tensors["embed.weight"] = layouts.model()["embed.weight"]
    first = before(tensors)
    written(makers, tmp_path / "a", first)
    written(makers, tmp_path / "b", after(layouts.trained(first)))
    repository = opened(tmp_path / "r", 1 << 12)
    for folder, version in (("a", "1.0.0"), ("b", "1.1.0")):
        repository.push(tmp_path / folder, "m", version)
        assert reference.read_version(tmp_path / "r", "m", version) == makers.tree(tmp_path / folder)
    found = recipes(repository.manifest("m", "1.1.0"))
    assert bool(found) == (change != "renamed")
