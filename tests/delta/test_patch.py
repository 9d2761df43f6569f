"""Patches make the new model out of the old one, byte for byte, and out of nothing else."""

from __future__ import annotations

import os
import random
import shutil
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delta.models import (
    WINDOW,
    Model,
    Tensor,
    files_of,
    make,
    models,
    nudged,
    pairs,
    successors,
    tree,
    weights,
    write,
)
from reference import patch as reference
from textnlp_fast.delta import apply_patch, create_patch, inspect_patch, read_patch, squash_patches
from textnlp_fast.delta.patch import index_document
from textnlp_fast.delta.patch_reading import parse_index
from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    OutOfSpaceError,
    TextnlpFastError,
    UnsafeFileError,
    WrongBaseError,
)

quick = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])


# --- what goes in comes out -------------------------------------------------------------------------------


@quick
@given(pairs())
def test_any_model_into_any_other(pair: tuple[Model, Model]) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        old, new = (write(model, root / name) for model, name in zip(pair, ("old", "new"), strict=True))
        patch = make(old, new, root / "p.tnpatch")
        report = apply_patch(patch, old, root / "out", threads=2)
        assert tree(root / "out") == files_of(pair[1])
        assert reference.apply(patch.read_bytes(), tree(old)) == files_of(pair[1])
        assert report.raw_bytes == sum(map(len, files_of(pair[1]).values()))
        before = patch.read_bytes()
        create_patch(
            old,
            new,
            patch,
            source_version="1.0.0",
            target_version="1.1.0",
            window_bytes=WINDOW,
            threads=1,
            memory_budget_bytes=4 * WINDOW,
        )
        assert patch.read_bytes() == before, "the same models must make the same patch"
        apply_patch(patch, old, old, threads=2, memory_budget_bytes=4 * WINDOW)
        assert tree(old) == files_of(pair[1])
        assert sorted(path.name for path in root.iterdir()) == ["new", "old", "out", "p.tnpatch"]


@quick
@given(st.data())
def test_squashing_any_chain(data: st.DataObject) -> None:
    chain = [data.draw(models())]
    for _ in range(data.draw(st.integers(2, 4))):
        back = data.draw(st.integers(0, 4)) == 0  # a version that returns to an earlier one
        chain.append(data.draw(st.sampled_from(chain)) if back else data.draw(successors(chain[-1])))
    with TemporaryDirectory() as folder:
        root = Path(folder)
        places = [write(model, root / str(number)) for number, model in enumerate(chain)]
        patches = [
            make(before, after, root / f"{number}.tnpatch")
            for number, (before, after) in enumerate(pairwise(places))
        ]
        squash_patches(patches, root / "all.tnpatch")
        squash_patches(patches, root / "anew.tnpatch", source=places[0])
        for name in ("all", "anew"):
            apply_patch(root / f"{name}.tnpatch", places[0], root / f"out-{name}")
            assert tree(root / f"out-{name}") == files_of(chain[-1])
        assert reference.apply((root / "all.tnpatch").read_bytes(), tree(places[0])) == files_of(chain[-1])
        direct = make(places[0], places[-1], root / "direct.tnpatch")
        anew = read_patch(root / "anew.tnpatch").patch
        assert anew.contents == read_patch(direct).patch.contents
        assert not list(root.glob(".*"))


def test_a_payload_of_many_parts(tmp_path: Path) -> None:
    """Larger than any buffer that it is copied through."""
    old: Model = {"m": {"w": Tensor("U8", (9 << 20,), bytes(9 << 20))}}
    new: Model = {"m": {"w": Tensor("U8", (9 << 20,), random.Random(5).randbytes(9 << 20))}}
    before, after = write(old, tmp_path / "old.safetensors"), write(new, tmp_path / "new.safetensors")
    create_patch(before, after, tmp_path / "p")
    create_patch(after, before, tmp_path / "q")
    summary = inspect_patch(tmp_path / "p")
    assert summary.payload_bytes > 9 << 20
    apply_patch(tmp_path / "p", before, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == after.read_bytes()
    create_patch(before, before, tmp_path / "id")
    squash_patches([tmp_path / "id", tmp_path / "p"], tmp_path / "both")
    assert (tmp_path / "both").read_bytes() == (tmp_path / "p").read_bytes()


def test_a_lone_file_may_change_its_name(tmp_path: Path, old: Model) -> None:
    content = old["model-1.safetensors"]
    assert isinstance(content, dict)
    before = write({"x": content}, tmp_path / "v1.safetensors")
    after = write({"x": {**content, "q": nudged(content["q"], 1)}}, tmp_path / "v2.safetensors")
    wanted = after.read_bytes()
    patch = make(before, after, tmp_path / "p")
    moved = before.rename(tmp_path / "base.safetensors")
    apply_patch(patch, moved, tmp_path / "deep" / "new.safetensors")
    assert (tmp_path / "deep" / "new.safetensors").read_bytes() == wanted
    apply_patch(patch, moved, tmp_path / "folder")
    assert tree(tmp_path / "folder") == {"model.safetensors": wanted}
    apply_patch(patch, moved, moved)
    assert moved.read_bytes() == wanted
    assert apply_patch(patch, moved, moved).finished_earlier_run
    with read_patch(make(after, after, tmp_path / "none")).open(moved) as opened:
        assert opened.names == ["q", "norm"]


def test_in_place_leaves_what_is_not_the_models(tmp_path: Path, patch: Path, new: Model) -> None:
    place = tmp_path / "old"
    (place / "notes.txt").write_text("mine")
    untouched = (place / "model-2.safetensors").stat().st_ino
    report = apply_patch(patch, place, place)
    assert tree(place) == {**files_of(new), "notes.txt": b"mine"}
    assert (place / "model-2.safetensors").stat().st_ino == untouched
    assert report.kept_files == 1


def test_another_existing_directory_is_updated(tmp_path: Path, patch: Path, new: Model) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "config.json").write_text("of another model")
    (place / "model-1.safetensors").write_text("old")
    apply_patch(patch, tmp_path / "old", place)
    assert tree(place) == {**files_of(new), "config.json": b"of another model"}


# --- the wrong model --------------------------------------------------------------------------------------


def test_a_wrong_base_is_refused_before_anything_is_written(tmp_path: Path, patch: Path, old: Model) -> None:
    content = old["model-1.safetensors"]
    assert isinstance(content, dict)
    other = write(
        {**old, "model-1.safetensors": {**content, "q": nudged(content["q"], 9)}}, tmp_path / "other"
    )
    before = tree(other)
    inside = read_patch(patch).patch
    for dest in (other, tmp_path / "out", tmp_path / "out.d" / "deep"):
        with pytest.raises(WrongBaseError) as caught:
            apply_patch(patch, other, dest)
        assert inside.source.digest in str(caught.value)
        empty = make(other, other, tmp_path / "id.tnpatch")
        assert read_patch(empty).patch.source.digest in str(caught.value)
        assert "1.0.0" in caught.value.hint
        assert not caught.value.is_target
    assert tree(other) == before
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.d").exists()


def test_the_target_itself_is_told_apart(tmp_path: Path, patch: Path) -> None:
    with pytest.raises(WrongBaseError, match=r"target already, version 1\.1\.0") as caught:
        apply_patch(patch, tmp_path / "new", tmp_path / "out")
    assert caught.value.is_target
    assert apply_patch(patch, tmp_path / "new", tmp_path / "new").finished_earlier_run


@pytest.mark.parametrize("harm", ["missing", "short", "folder", "nothing"])
def test_a_source_that_is_not_whole(tmp_path: Path, patch: Path, harm: str) -> None:
    place = tmp_path / "old" / "model-2.safetensors"
    if harm == "short":
        os.truncate(place, 100)
    else:
        place.unlink()
        if harm == "folder":
            place.mkdir()
        if harm == "nothing":
            shutil.rmtree(tmp_path / "old")
    with pytest.raises(InvalidInputError if harm == "nothing" else WrongBaseError):
        apply_patch(patch, tmp_path / "old", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_that_changes_after_it_was_checked(tmp_path: Path, patch: Path) -> None:
    """The digests of the target are the last word, whatever the source was found to be."""
    place = tmp_path / "old" / "model-1.safetensors"

    def harm(progress: object) -> None:
        if getattr(progress, "stage", "") == "hash":
            data = bytearray(place.read_bytes())
            data[-20] ^= 0xFF
            place.write_bytes(data)

    with pytest.raises(TextnlpFastError, match=r"digest|frame"):
        apply_patch(patch, tmp_path / "old", tmp_path / "out", threads=1, progress=harm)
    assert not (tmp_path / "out").exists()
    with (
        read_patch(patch).open(tmp_path / "old") as opened,
        pytest.raises(CorruptDataError, match=r"digest|frame"),
    ):
        opened.rows("q", 0, 64)


def test_a_kept_file_that_changes_on_the_way(tmp_path: Path, patch: Path) -> None:
    """Another command may update the same directory: what is kept must be what was checked."""
    place = tmp_path / "old"

    def harm(progress: object) -> None:
        if getattr(progress, "stage", "") == "apply":
            (place / "model-2.safetensors").write_bytes(b"of another version")

    before = (place / "model-1.safetensors").read_bytes()
    with pytest.raises(InvalidInputError, match="changed while the patch was applied"):
        apply_patch(patch, place, place, progress=harm)
    assert (place / "model-1.safetensors").read_bytes() == before
    assert not (place / ".textnlp-fast-partial").exists()


# --- wrong calls ------------------------------------------------------------------------------------------


def test_destinations_that_cannot_be(tmp_path: Path, patch: Path) -> None:
    source = tmp_path / "old"
    (tmp_path / "file").write_text("x")
    (tmp_path / "full" / "model-1.safetensors").mkdir(parents=True)
    for dest in (
        "",
        tmp_path / "file",
        tmp_path / "full",
        tmp_path / "x.safetensors",
        tmp_path / "file" / "deep",
    ):
        with pytest.raises(InvalidInputError):
            apply_patch(patch, source, dest)
    assert (tmp_path / "file").read_text() == "x"


def test_calls_that_cannot_be(tmp_path: Path, patch: Path) -> None:
    old, new, out = tmp_path / "old", tmp_path / "new", tmp_path / "q.tnpatch"
    with pytest.raises(InvalidInputError, match="unknown strategy"):
        create_patch(old, new, out, strategy="magic")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="not a version"):
        create_patch(old, new, out, target_version="../1")
    with pytest.raises(InvalidInputError, match="memory budget"):
        create_patch(old, new, out, memory_budget_bytes=1 << 20)
    with pytest.raises(InvalidInputError, match="memory budget"):
        apply_patch(patch, old, tmp_path / "out", memory_budget_bytes=WINDOW)
    with pytest.raises(InvalidInputError, match="surrogate"):
        create_patch(old, new, out, metadata={"step": "\ud800"})
    for window in (0, 1 << 30, 5000):
        with pytest.raises(InvalidInputError, match="window_bytes"):
            create_patch(old, new, out, window_bytes=window)
    with pytest.raises(InvalidInputError, match="does not exist"):
        create_patch(tmp_path / "none", new, out)
    with pytest.raises(InvalidInputError, match="metadata"):
        create_patch(old, new, out, metadata={"step": 7})  # type: ignore[dict-item]
    lone = new / "model-1.safetensors"
    with pytest.raises(InvalidInputError, match="one of the two models"):
        create_patch(lone, lone, lone)
    with pytest.raises(InvalidInputError, match="would become a file of the model"):
        create_patch(old, new, new / "p.tnpatch")
    with pytest.raises(InvalidInputError, match="is a directory"):
        create_patch(old, new, tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeFileError):
        create_patch(old, tmp_path / "bad", out)
    assert not out.exists()


def test_a_full_disk_is_said_before_anything_is_written(
    tmp_path: Path, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutOfSpaceError, match="1000 bytes free"):
        apply_patch(patch, tmp_path / "old", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


# --- what is read and what is said ------------------------------------------------------------------------


def test_inspect_counts_every_byte(patch: Path) -> None:
    summary = inspect_patch(patch)
    rows = {row.name: row for row in summary.tensors if row.name}
    assert summary.patch_bytes == patch.stat().st_size
    assert sum(row.stored_bytes for row in summary.tensors) == summary.payload_bytes
    assert (rows["q"].recipe, rows["k"].recipe) == ("content", "source")
    assert sum(rows["q"].frames.values()) == 4
    assert rows["q"].bits_per_weight == 8 * rows["q"].stored_bytes / (64 * 128)
    assert rows["k"].bits_per_weight == 0
    assert (summary.source.version, summary.target.version) == ("1.0.0", "1.1.0")
    assert summary.source.files == 3


def test_the_index_goes_round(patch: Path) -> None:
    inside = read_patch(patch).patch
    assert parse_index(index_document(inside)) == inside


def test_squashing_needs_ends_that_meet(tmp_path: Path, patch: Path, new: Model) -> None:
    with pytest.raises(InvalidInputError, match="does not follow"):
        squash_patches([patch, patch], tmp_path / "out.tnpatch")
    with pytest.raises(InvalidInputError, match="two patches or more"):
        squash_patches([patch], tmp_path / "out.tnpatch")
    third = make(tmp_path / "new", tmp_path / "old", tmp_path / "back.tnpatch")
    with pytest.raises(InvalidInputError, match="one of the patches"):
        squash_patches([patch, third], third)
    report = squash_patches([patch, third], tmp_path / "round.tnpatch")
    assert report.stored_contents == 0
    other = tmp_path / "wide.tnpatch"
    create_patch(tmp_path / "new", tmp_path / "old", other, window_bytes=2 * WINDOW)
    with pytest.raises(InvalidInputError, match="different sizes") as caught:
        squash_patches([patch, other], tmp_path / "out.tnpatch")
    assert "--source" in caught.value.hint
    assert not (tmp_path / "out.tnpatch").exists()


def test_a_chain_too_long_to_be_joined(tmp_path: Path) -> None:
    state = weights(3, rows=2)
    places = []
    for number in range(66):
        state = nudged(state, number)
        places.append(write({"m": {"w": state}}, tmp_path / f"{number}.safetensors"))
    patches = [make(before, after, after.with_suffix(".tnpatch")) for before, after in pairwise(places)]
    squash_patches(patches[:63], tmp_path / "most.tnpatch")
    apply_patch(tmp_path / "most.tnpatch", places[0], tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == places[63].read_bytes()
    with pytest.raises(InvalidInputError, match="too many") as caught:
        squash_patches(patches, tmp_path / "all.tnpatch")
    assert "--source" in caught.value.hint
    squash_patches(patches, tmp_path / "all.tnpatch", source=places[0])
    apply_patch(tmp_path / "all.tnpatch", places[0], tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == places[65].read_bytes()
