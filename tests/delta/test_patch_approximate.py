"""Approximate patches: what arrives is within the promise in the index, and is checked against the original."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from delta.models import WINDOW, Tensor, tree, write
from textnlp_fast.contents.documents import seal_document
from textnlp_fast.delta import (
    apply_patch,
    check_promise,
    create_patch,
    inspect_patch,
    read_patch,
    squash_patches,
)
from textnlp_fast.delta.patch import index_document
from textnlp_fast.delta.patch_reading import parse_index
from textnlp_fast.errors import CorruptDataError, InvalidInputError, PromiseBrokenError

ROWS, COLUMNS = 96, 128
KINDS: dict[str, Any] = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def tensor(values: Any, dtype: str) -> Tensor:
    return Tensor(dtype, values.shape, values.astype(KINDS[dtype]).tobytes())


def numbers(path: Path, name: str) -> Any:
    """A tensor of a model of one file, read by hand, in fp64."""
    data = (path / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + size])[name]
    begin, end = (8 + size + at for at in entry["data_offsets"])
    return np.frombuffer(data[begin:end], KINDS[entry["dtype"]]).astype(np.float64).reshape(entry["shape"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`old` and `new`: matrices of three types, a vector, one tensor as it was, one that is new; and a config."""
    root = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(3)
    old: dict[str, Tensor] = {}
    new: dict[str, Tensor] = {}
    for dtype in KINDS:
        for name, shape in ((f"{dtype}.weight", (ROWS, COLUMNS)), (f"{dtype}.norm", (COLUMNS,))):
            values = rng.normal(0, 0.05, shape)
            old[name] = tensor(values, dtype)
            new[name] = tensor(values + rng.normal(0, 0.002, shape), dtype)
    old["same"] = new["same"] = tensor(rng.normal(0, 1, 64), "BF16")
    new["added"] = tensor(rng.normal(0, 1, 64), "BF16")
    write({"model.safetensors": old, "config.json": b"{}"}, root / "old")
    write({"model.safetensors": new, "config.json": b"{ }"}, root / "new")
    return root


def made(pair: Path, out: Path, asked: str | None, **options: Any) -> Path:
    create_patch(
        pair / "old",
        pair / "new",
        out,
        approximate=asked,
        **{"threads": 2, "window_bytes": WINDOW, **options},
    )
    return out


@pytest.mark.parametrize(
    "asked", ["max_ulp=4", "max_abs=1e-3", "top_k=0.05", "threshold=2e-3", "low_rank=4", "sign_scale"]
)
def test_what_arrives_is_within_the_promise(pair: Path, tmp_path: Path, asked: str) -> None:
    exact, patch = made(pair, tmp_path / "exact", None), made(pair, tmp_path / "p", asked)
    # Four steps are little of what an F32 weight moved.
    assert patch.stat().st_size < (0.97 if asked == "max_ulp=4" else 0.9) * exact.stat().st_size
    apply_patch(patch, pair / "old", tmp_path / "out")
    check_promise(patch, pair / "new", tmp_path / "out")
    promise = read_patch(patch).patch.promise
    assert promise is not None
    assert str(promise.asked) == asked.replace("sign_scale", "sign_scale=tensor").replace(
        "1e-3", "0.001"
    ).replace("2e-3", "0.002")
    for dtype in KINDS:
        name = f"{dtype}.weight"
        errors = np.abs(numbers(tmp_path / "out", name) - numbers(pair / "new", name))
        said = promise.tensors.tensors[name]
        assert errors.max() == said.max_abs
        assert np.sqrt(np.square(errors).sum()) == pytest.approx(said.dropped_l2, rel=1e-6)
        if asked == "max_abs=1e-3":
            assert errors.max() <= 1e-3
        before = numbers(pair / "old", name)
        kept = (numbers(tmp_path / "out", name) != before).sum()
        if asked == "top_k=0.05":
            assert kept <= 0.05 * errors.size + 1
        assert np.linalg.norm(numbers(pair / "new", name) - before) == pytest.approx(said.change_l2, rel=1e-6)
    for name in ("same", "added"):
        assert promise.tensors.tensors[name].asked is None
        assert np.array_equal(numbers(tmp_path / "out", name), numbers(pair / "new", name))
    assert (tmp_path / "out" / "config.json").read_bytes() == b"{ }"


def test_signs_and_factors_are_recipes(pair: Path, tmp_path: Path) -> None:
    for asked, kind, parts in (("sign_scale=row", "sign_scale", 6), ("low_rank=2", "low_rank", 6)):
        summary = inspect_patch(made(pair, tmp_path / kind, asked))
        rows = {row.name: row.recipe for row in summary.tensors}
        assert [rows[f"{dtype}.weight"] for dtype in KINDS] == [kind] * 3
        assert rows["BF16.norm"] in {"alone", "content"}
        assert summary.other_contents == parts
        assert summary.approximate == asked


def test_threads_and_memory_make_no_difference(pair: Path, tmp_path: Path) -> None:
    for asked in ("max_ulp=2", "sign_scale=row"):
        one = made(pair, tmp_path / "one", asked, threads=1, memory_budget_bytes=32 << 20)
        assert one.read_bytes() == made(pair, tmp_path / "three", asked, threads=3).read_bytes()


def test_an_original_that_the_promise_is_not_about(pair: Path, tmp_path: Path) -> None:
    patch = made(pair, tmp_path / "p", "max_ulp=2")
    apply_patch(patch, pair / "old", tmp_path / "out")
    with pytest.raises(PromiseBrokenError) as caught:
        check_promise(patch, pair / "old", tmp_path / "out")
    assert caught.value.bound in {"max_ulp=2", "names"}
    exact = made(pair, tmp_path / "exact", None)
    with pytest.raises(PromiseBrokenError, match="max_ulp is"):
        check_promise(exact, pair / "new", tmp_path / "out")
    apply_patch(exact, pair / "old", tmp_path / "really")
    check_promise(exact, pair / "new", tmp_path / "really")


def test_no_weight_is_sent_that_did_not_move_enough(pair: Path, tmp_path: Path) -> None:
    patch = made(pair, tmp_path / "p", "threshold=10.0")
    apply_patch(patch, pair / "old", tmp_path / "out")
    assert np.array_equal(numbers(tmp_path / "out", "F32.weight"), numbers(pair / "old", "F32.weight"))
    check_promise(patch, pair / "new", tmp_path / "out")


def test_squashing_keeps_the_last_promise(pair: Path, tmp_path: Path) -> None:
    first = made(pair, tmp_path / "first", "max_ulp=8")
    apply_patch(first, pair / "old", tmp_path / "held")
    create_patch(
        tmp_path / "held", pair / "new", tmp_path / "second", approximate="max_ulp=1", window_bytes=WINDOW
    )
    for options in ({}, {"source": pair / "old"}):
        squash_patches([first, tmp_path / "second"], tmp_path / "both", **options)  # type: ignore[arg-type]
        apply_patch(tmp_path / "both", pair / "old", tmp_path / "out")
        check_promise(tmp_path / "both", pair / "new", tmp_path / "out")
        assert read_patch(tmp_path / "both").patch.promise == read_patch(tmp_path / "second").patch.promise
    create_patch(tmp_path / "out", pair / "new", tmp_path / "last", window_bytes=WINDOW)
    squash_patches([first, tmp_path / "second", tmp_path / "last"], tmp_path / "all")
    assert read_patch(tmp_path / "all").patch.promise is None
    apply_patch(tmp_path / "all", pair / "old", tmp_path / "end")
    assert tree(tmp_path / "end") == tree(pair / "new")


def test_a_merged_adapter_can_be_near_as_well(tmp_path: Path) -> None:
    """The bound is held against the model, the bytes go where the factors say."""
    rng = np.random.default_rng(8)
    base = rng.normal(0, 0.04, (256, 384)).astype(np.float32).astype(ml_dtypes.bfloat16)
    change = rng.normal(0, 0.05, (256, 4)) @ rng.normal(0, 0.05, (4, 384))
    new = base.astype(np.float64) + change
    for name, values in (("old", base), ("new", new)):
        write({"model.safetensors": {"w": tensor(values, "BF16")}}, tmp_path / name)
    for asked in (None, "max_ulp=1"):
        made(tmp_path, tmp_path / f"{asked}", asked, effort="fast", memory_budget_bytes=384 << 20)
    exact, near = (inspect_patch(tmp_path / str(asked)) for asked in (None, "max_ulp=1"))
    assert [row.recipe for summary in (exact, near) for row in summary.tensors if row.name] == [
        "low_rank"
    ] * 2
    assert near.patch_bytes < exact.patch_bytes
    moved = numbers(tmp_path / "new", "w") - numbers(tmp_path / "old", "w")
    assert near.promise["w"]["change_l2"] == pytest.approx(np.linalg.norm(moved), rel=1e-6)
    assert near.dropped_share < 0.1
    apply_patch(tmp_path / "max_ulp=1", tmp_path / "old", tmp_path / "out")
    check_promise(tmp_path / "max_ulp=1", tmp_path / "new", tmp_path / "out")


def test_promises_of_strangers(pair: Path, tmp_path: Path) -> None:
    patch = read_patch(made(pair, tmp_path / "p", "max_abs=1e-3")).patch
    document = json.loads(index_document(patch))
    document.pop("digest")
    assert parse_index(seal_document(document)) == patch

    def broken(change: Any) -> None:
        other = json.loads(json.dumps(document))
        change(other["promise"])
        with pytest.raises(CorruptDataError):
            parse_index(seal_document(other))

    name = "F32.weight"
    for key, value in (
        ("asked", "max_abs=nan"), ("asked", 3), ("asked", {"max_ulp": 1}), ("max_abs", 0.5), ("max_abs", -1),
        ("max_abs", 0x7FF0 << 48), ("dropped_l2", 1 << 63), ("change_l2", None), ("elements", 5), ("kept", 1 << 40),
        ("dtype", "F99"), ("dtype", "F16"), ("max_ulp", -1), ("more", 1),
    ):  # fmt: skip
        broken(lambda promise, key=key, value=value: promise["tensors"][name].update({key: value}))
    broken(lambda promise: promise["tensors"].pop(name))
    broken(lambda promise: promise["tensors"].update(other=promise["tensors"][name]))
    broken(lambda promise: promise.update(asked="everything"))
    broken(lambda promise: promise.update(tensors=[]))
    broken(lambda promise: promise.pop("asked"))


def test_calls_that_cannot_be(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no approximation"):
        made(pair, tmp_path / "p", "roughly")
    twice = {
        "a.safetensors": {"w": tensor(np.ones(4), "F32")},
        "b.safetensors": {"w": tensor(np.ones(4), "F32")},
    }
    write(twice, tmp_path / "twice")
    changed = {path: {"w": replace(file["w"], data=bytes(16))} for path, file in twice.items()}
    write(changed, tmp_path / "changed")
    with pytest.raises(InvalidInputError, match="two files"):
        create_patch(tmp_path / "twice", tmp_path / "changed", tmp_path / "p", approximate="max_ulp=1")
    assert not (tmp_path / "p").exists()
