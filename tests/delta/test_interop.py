"""Deltas of other projects, made into patches, and patches into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta.foreign import (
    INDEX,
    applied,
    imported,
    overwrite,
    parsed,
    slime_delta,
    sparse_delta,
    sums,
    tensors_of,
    xor,
)
from delta.models import Model, Tensor, make, nudged, size_of, tree, weights, write
from textnlp_fast.delta import apply_patch
from textnlp_fast.delta.interop import LAYOUTS, changes, read_foreign, write_foreign
from textnlp_fast.errors import (
    InvalidInputError,
    WrongBaseError,
)

zstandard = pytest.importorskip("zstandard")


@pytest.fixture
def new(old: Model) -> Model:
    first, second = old["model-1.safetensors"], old["model-2.safetensors"]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    return {
        "model-1.safetensors": {"q": nudged(first["q"], 5), "norm": nudged(first["norm"], 1)},
        "model-2.safetensors": {"k": nudged(second["k"], 6), "scalar": nudged(second["scalar"], 2)},
        "config.json": b"{}",
    }


@pytest.fixture
def source(tmp_path: Path, old: Model) -> Path:
    return write(old, tmp_path / "old")


# --- there -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", [xor, overwrite])
@pytest.mark.parametrize("shards", [1, 3])
def test_slime_is_read(
    encode: Any, shards: int, tmp_path: Path, old: Model, new: Model, source: Path
) -> None:
    delta = slime_delta(tmp_path / "weight_v000007", old, new, encode, shards=shards)
    assert imported("slime", delta, source, tmp_path) == tree(write(new, tmp_path / "new"))


def test_slime_checksums(tmp_path: Path, old: Model, new: Model, source: Path) -> None:
    def blake(data: bytes) -> str:
        return str(blake3.blake3(data).hexdigest())

    delta = slime_delta(tmp_path / "b", old, new, checksum=blake, kind="blake3")
    assert imported("slime", delta, source, tmp_path) == tree(write(new, tmp_path / "new"))


def test_slime_with_its_default_checksum(tmp_path: Path, old: Model, new: Model, source: Path) -> None:
    xxhash = pytest.importorskip("xxhash")

    def xxh3(data: bytes) -> str:
        return str(xxhash.xxh3_128(data).hexdigest())

    delta = slime_delta(tmp_path / "x", old, new, checksum=xxh3, kind="xxh3-128")
    assert imported("slime", delta, source, tmp_path) == tree(write(new, tmp_path / "new"))
    report = write_foreign("slime", tmp_path / "p.tnpatch", source, tmp_path / "out")
    index = json.loads((Path(report.path) / INDEX).read_text())
    assert index["metadata"]["checksum_format"] == "xxh3-128"
    header, _ = parsed(Path(report.path) / index["weight_map"]["q"])
    assert header["__metadata__"]["q"] == xxh3(tensors_of(new)["q"].data)


def test_slime_without_changes(tmp_path: Path, old: Model, source: Path) -> None:
    delta = slime_delta(tmp_path / "weight_v000001", old, old)
    assert imported("slime", delta, source, tmp_path) == tree(source)
    made = write_foreign("slime", tmp_path / "p.tnpatch", source, tmp_path / "out", checksum="adler32")
    assert made.changed_tensors == 0
    assert sorted(tree(tmp_path / "out")) == [INDEX]
    assert applied(tmp_path / "out", {}) == {}


@pytest.mark.parametrize("form", ["indices", "long", "idx", "gaps", "wide"])
def test_sparse_is_read(form: str, tmp_path: Path, old: Model, new: Model, source: Path) -> None:
    delta = sparse_delta(tmp_path / "deltas" / "step_000011.safetensors", old, new, form)
    assert imported("sparse", delta, source, tmp_path) == tree(write(new, tmp_path / "new"))


def test_a_model_of_one_file(tmp_path: Path) -> None:
    old: Model = {"model.safetensors": {"q": weights(1)}}
    new: Model = {"model.safetensors": {"q": nudged(weights(1), 4)}}
    one, two = write(old, tmp_path / "a.safetensors"), write(new, tmp_path / "b.safetensors")
    read_foreign("sparse", sparse_delta(tmp_path / "d.safetensors", old, new), one, tmp_path / "p")
    apply_patch(tmp_path / "p", one, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == two.read_bytes()


@pytest.mark.parametrize("layout", ["slime", "sparse"])
def test_a_tensor_of_many_windows(layout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "WINDOW_BYTES", 1 << 10)
    monkeypatch.setattr(changes, "_BATCH", 7)
    monkeypatch.setattr("textnlp_fast.delta.interop.updates._WINDOW_BYTES", 1 << 10)
    old: Model = {"model.safetensors": {"q": weights(1, 32)}}
    new: Model = {"model.safetensors": {"q": nudged(nudged(weights(1, 32), 4), 9)}}
    root, wanted = write(old, tmp_path / "old"), tree(write(new, tmp_path / "new"))
    for number, make_delta in enumerate(
        (lambda p: slime_delta(p, old, new, overwrite), lambda p: sparse_delta(p, old, new, "gaps"))
    ):
        if (layout == "slime") != (number == 0):
            continue
        assert imported(layout, make_delta(tmp_path / "delta"), root, tmp_path) == wanted
    write_foreign(layout, tmp_path / "p.tnpatch", root, tmp_path / "out", **sums(layout))
    assert applied(tmp_path / "out", {"q": weights(1, 32).data})["q"] == tensors_of(new)["q"].data


# --- and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_patch_is_written_and_read_again(
    layout: Any, tmp_path: Path, old: Model, new: Model, source: Path
) -> None:
    target = write(new, tmp_path / "new")
    patch = make(source, target, tmp_path / "first.tnpatch")
    report = write_foreign(layout, patch, source, tmp_path / "out", version=7, **sums(layout))
    assert report.changed_tensors == 4
    assert report.left_out == []
    assert report.foreign_bytes == sum(map(len, tree(tmp_path / "out").values()))
    before = {name: tensor.data for name, tensor in tensors_of(old).items()}
    after = {name: tensor.data for name, tensor in tensors_of(new).items()}
    assert applied(tmp_path / "out", before) == after
    assert imported(layout, tmp_path / "out", source, tmp_path) == tree(target)


@given(data=st.data())
def test_any_tensor_there_and_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any")
    layout: Any = data.draw(st.sampled_from(LAYOUTS))
    dtype = data.draw(st.sampled_from(["U8", "F8_E4M3", "BF16", "F32", "I64"]))
    shape = data.draw(st.lists(st.integers(0, 6), max_size=3).map(tuple))
    size = size_of(dtype, shape)
    one, two = (data.draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    old: Model = {"model.safetensors": {"größe": Tensor(dtype, shape, one), "b": weights(1, 1)}}
    new: Model = {"model.safetensors": {"größe": Tensor(dtype, shape, two), "b": weights(1, 1)}}
    source, target = write(old, root / "old"), write(new, root / "new")
    patch = make(source, target, root / "p")
    write_foreign(layout, patch, source, root / "out", **sums(layout))
    assert applied(root / "out", {"größe": one, "b": weights(1, 1).data})["größe"] == two
    assert imported(layout, root / "out", source, root) == tree(target)


def test_what_no_layout_can_say(tmp_path: Path, old: Model, source: Path) -> None:
    first = old["model-1.safetensors"]
    assert isinstance(first, dict)
    others: dict[str, dict[str, Tensor]] = {
        "in one of the two": {"q": first["q"]},
        "after; foreign": {**first, "q": Tensor("F16", (64, 128), first["q"].data)},
    }
    for number, (message, content) in enumerate(others.items()):
        target = write({**old, "model-1.safetensors": content}, tmp_path / f"new{number}")
        patch = make(source, target, tmp_path / f"{number}.tnpatch")
        with pytest.raises(InvalidInputError, match=message):
            write_foreign("sparse", patch, source, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_other_files_are_named(tmp_path: Path, old: Model, source: Path) -> None:
    target = write({**old, "config.json": b"{ }", "more.txt": b"x"}, tmp_path / "new")
    patch = make(source, target, tmp_path / "x.tnpatch")
    report = write_foreign("sparse", patch, source, tmp_path / "out")
    assert report.left_out == ["config.json", "more.txt"]
    with pytest.raises(InvalidInputError, match="exists already"):
        write_foreign("sparse", patch, source, tmp_path / "out")
    with pytest.raises(WrongBaseError):
        write_foreign("sparse", patch, target, tmp_path / "out2")
