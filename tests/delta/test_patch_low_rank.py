"""Patches of merged adapters: found from the two ends or given, smaller than dense ones, and exact all the same."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from delta.models import Tensor, tree, write
from textnlp_fast.delta import apply_patch, create_patch, inspect_patch, read_patch, squash_patches
from textnlp_fast.delta.low_rank_tiles import ROOM_BYTES
from textnlp_fast.errors import InvalidInputError

ROWS, COLUMNS, RANK = 384, 512, 4
MODULES = ("layers.0.q_proj", "layers.0.up_proj")


def bf16(values: Any) -> bytes:
    return bytes(values.astype(np.float32).astype(ml_dtypes.bfloat16).tobytes())


def safetensors(path: Path, tensors: dict[str, Any]) -> None:
    write(
        {
            path.name: {
                name: Tensor("F32", v.shape, v.astype(np.float32).tobytes()) for name, v in tensors.items()
            }
        },
        path,
    )


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`old`, `new` with an adapter merged in fp64 by numpy, and the adapter as PEFT saves it, in `lora`."""
    root = tmp_path_factory.mktemp("merged")
    rng = np.random.default_rng(5)
    old: dict[str, Tensor] = {"norm.weight": Tensor("BF16", (COLUMNS,), bf16(rng.normal(1, 0.1, COLUMNS)))}
    new, factors = dict(old), {}
    for module in MODULES:
        base = rng.normal(0, 0.04, (ROWS, COLUMNS)).astype(np.float32).astype(ml_dtypes.bfloat16)
        a, b = (rng.normal(0, 0.05, shape).astype(np.float32) for shape in ((RANK, COLUMNS), (ROWS, RANK)))
        factors[f"base_model.model.{module}.lora_A.weight"] = a
        factors[f"base_model.model.{module}.lora_B.weight"] = b
        change = 0.5 * b.astype(np.float64) @ a
        old[f"{module}.weight"] = Tensor("BF16", (ROWS, COLUMNS), base.tobytes())
        new[f"{module}.weight"] = Tensor("BF16", (ROWS, COLUMNS), bf16(base.astype(np.float64) + change))
    write({"model.safetensors": old}, root / "old")
    write({"model.safetensors": new}, root / "new")
    (root / "lora").mkdir()
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK / 2, "bias": "none"}
    (root / "lora" / "adapter_config.json").write_text(json.dumps(config))
    safetensors(root / "lora" / "adapter_model.safetensors", factors)
    return root


def made(merged: Path, out: Path, **options: Any) -> Path:
    create_patch(merged / "old", merged / "new", out, **{"effort": "fast", "threads": 1, **options})
    return out


@pytest.fixture(scope="module")
def given(merged: Path) -> Path:
    return made(merged, merged / "given.tnpatch", adapter=merged / "lora")


def recipes(patch: Path) -> Counter[str]:
    return Counter(row.recipe for row in inspect_patch(patch).tensors if row.name)


@pytest.mark.parametrize(
    "options", [{"strategy": "auto"}, {"strategy": "low_rank"}, {"adapter": "lora"}], ids=str
)
def test_there_and_back(merged: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    dense = made(merged, tmp_path / "dense", strategy="dense")
    if "adapter" in options:
        options = {"adapter": merged / options["adapter"]}
    patch = made(merged, tmp_path / "p", **options)
    assert recipes(dense) == {"content": 2, "source": 1}
    assert recipes(patch) == {"low_rank": 2, "source": 1}
    assert patch.stat().st_size < dense.stat().st_size * 0.8
    summary = inspect_patch(patch)
    assert summary.other_contents == 4
    assert 0 < summary.other_bytes < patch.stat().st_size
    apply_patch(patch, merged / "old", tmp_path / "out", threads=2)
    assert tree(tmp_path / "out") == tree(merged / "new")


def test_rows_of_a_merged_tensor(merged: Path, given: Path) -> None:
    name = f"{MODULES[1]}.weight"
    with read_patch(given).open(merged / "old", threads=1) as model:
        whole = model.tensor(name)
        some = model.rows(name, 100, 103)
    assert some.data == whole.data[100 * COLUMNS * 2 : 103 * COLUMNS * 2]


def test_squashing_keeps_the_factors(merged: Path, given: Path, tmp_path: Path) -> None:
    create_patch(merged / "new", merged / "old", tmp_path / "back", effort="fast", threads=1)
    create_patch(merged / "old", merged / "new", tmp_path / "again", strategy="dense", threads=1)
    squash_patches([given, tmp_path / "back", tmp_path / "again"], tmp_path / "all")
    apply_patch(tmp_path / "all", merged / "old", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(merged / "new")
    squash_patches([given, tmp_path / "back"], tmp_path / "both")
    apply_patch(tmp_path / "both", merged / "old", tmp_path / "same")
    assert tree(tmp_path / "same") == tree(merged / "old")


def test_a_known_adapter_makes_the_same_patch_on_any_threads(
    merged: Path, given: Path, tmp_path: Path
) -> None:
    again = made(merged, tmp_path / "p", adapter=merged / "lora", threads=3)
    assert again.read_bytes() == given.read_bytes()


def test_changes_of_another_kind_stay_dense(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 0.04, (ROWS, COLUMNS))
    model = {"model.safetensors": {"w": Tensor("BF16", (ROWS, COLUMNS), bf16(weights))}}
    tuned = bf16(weights + rng.normal(0, 1e-3, weights.shape))
    write(model, tmp_path / "old")
    new = {"model.safetensors": {"w": replace(model["model.safetensors"]["w"], data=tuned)}}
    write(new, tmp_path / "new")
    report = create_patch(tmp_path / "old", tmp_path / "new", tmp_path / "p", strategy="low_rank", threads=1)
    assert recipes(tmp_path / "p") == {"content": 1}
    assert report.unsearched_matrices == 0


def test_matrices_that_the_memory_is_too_small_for(merged: Path, tmp_path: Path) -> None:
    report = create_patch(
        merged / "old", merged / "new", tmp_path / "p", memory_budget_bytes=64 << 20, threads=1
    )
    assert report.unsearched_matrices == 2
    assert recipes(tmp_path / "p") == {"content": 2, "source": 1}


def test_calls_that_cannot_be(merged: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    with pytest.raises(InvalidInputError, match="unknown effort"):
        made(merged, out, effort="some")
    with pytest.raises(InvalidInputError, match="no use of an adapter"):
        made(merged, out, strategy="dense", adapter=merged / "lora")
    with pytest.raises(InvalidInputError, match="an adapter is exact"):
        made(merged, out, adapter=merged / "lora", approximate="sign_scale")
    with pytest.raises(InvalidInputError, match="adapter_config"):
        made(merged, out, adapter=merged / "old")
    config = (merged / "lora" / "adapter_config.json").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "adapter_config.json").write_text(config)
    a, b = np.zeros((RANK, 8)), np.zeros((8, RANK))
    tensors = {"layers.9.q_proj.lora_A.weight": a, "layers.9.q_proj.lora_B.weight": b}
    safetensors(tmp_path / "other" / "adapter_model.safetensors", tensors)
    with pytest.raises(InvalidInputError, match="fits no tensors"):
        made(merged, out, adapter=tmp_path / "other")
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"other"}


def test_factors_have_their_place_in_the_budget(merged: Path, given: Path, tmp_path: Path) -> None:
    windows = 4 * read_patch(given).patch.window_bytes
    with pytest.raises(InvalidInputError, match="memory budget"):
        apply_patch(given, merged / "old", tmp_path / "out", memory_budget_bytes=windows + ROOM_BYTES - 1)
    assert not (tmp_path / "out").exists()
    apply_patch(given, merged / "old", tmp_path / "out", memory_budget_bytes=windows + ROOM_BYTES)
    assert tree(tmp_path / "out") == tree(merged / "new")
    dense = made(merged, tmp_path / "dense.tnpatch", strategy="dense")
    apply_patch(dense, merged / "old", tmp_path / "dense", memory_budget_bytes=windows)
    assert tree(tmp_path / "dense") == tree(merged / "new")
