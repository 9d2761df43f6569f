"""What a patch costs: tensors that moved, turned or changed their type are found, and strategies keep their word."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from delta.models import Model, Tensor, files_of, tree, write
from reference import patch as reference
from textnlp_fast.delta import apply_patch, create_patch, inspect_patch, read_patch, squash_patches
from textnlp_fast.delta.patch import Strategy

Weights = npt.NDArray[np.float32]


def tensor(values: Weights, dtype: str = "BF16") -> Tensor:
    kind = ml_dtypes.bfloat16 if dtype == "BF16" else np.float32
    return Tensor(dtype, values.shape, values.astype(kind).tobytes())


def weights(seed: int, rows: int = 192, columns: int = 128) -> Weights:
    """Values that bf16 has, so that a cast back is exact."""
    drawn = np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32)
    return drawn.astype(ml_dtypes.bfloat16).astype(np.float32)


def stepped(values: Weights, seed: int) -> Weights:
    """One weight in a hundred a little larger."""
    moved = np.random.default_rng(seed).random(values.shape) < 0.01
    return np.where(moved, values * np.float32(1.01), values)


Q, K, V = (weights(seed) for seed in range(3))
OLD: Model = {"model.safetensors": {"q": tensor(Q), "k": tensor(K), "v": tensor(V)}}
WAYS: dict[str, dict[str, Tensor]] = {
    "renamed": {f"layers.0.{name}": tensor(stepped(w, 9)) for name, w in (("x", Q), ("y", K), ("z", V))},
    "turned": {"q": tensor(np.ascontiguousarray(stepped(Q, 9).T)), "k": tensor(K), "v": tensor(V)},
    "fused": {"qkv": tensor(stepped(np.concatenate([Q, K, V]), 9))},
    "cast": {"q": tensor(Q, "F32"), "k": tensor(K, "F32"), "v": tensor(V, "F32")},
    "grown": {"q": tensor(np.concatenate([Q, weights(5, 8)])), "k": tensor(K), "v": tensor(V)},
}


@pytest.mark.parametrize("way", WAYS)
def test_what_moved_is_found(tmp_path: Path, way: str) -> None:
    old, new = write(OLD, tmp_path / "old"), write({"new.safetensors": WAYS[way]}, tmp_path / "new")
    report = create_patch(old, new, tmp_path / "p", window_bytes=1 << 14)
    apply_patch(tmp_path / "p", old, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(new)
    assert report.patch_bytes < report.raw_bytes / 12
    with read_patch(tmp_path / "p").open(old) as opened:
        for name, content in WAYS[way].items():
            assert opened.tensor(name).data == content.data
            assert (
                opened.rows(name, 7, 30).data == content.data[7 * content.row_bytes : 30 * content.row_bytes]
            )
    if way in {"renamed", "fused", "grown"}:
        assert reference.apply((tmp_path / "p").read_bytes(), tree(old)) == tree(new)


def test_ways_in_a_row_squash(tmp_path: Path) -> None:
    """Recipes over contents that only the patch makes."""
    chain: list[Model] = [OLD]
    first = WAYS["fused"]["qkv"]
    chain.append({"m.safetensors": {"qkv": first}})
    values = np.frombuffer(first.data, ml_dtypes.bfloat16).reshape(first.shape).astype(np.float32)
    chain.append({"m.safetensors": {"t": tensor(np.ascontiguousarray(stepped(values, 1).T))}})
    chain.append({"m.safetensors": {"t": tensor(stepped(values, 1).T.copy(), "F32")}})
    places = [write(model, tmp_path / str(number)) for number, model in enumerate(chain)]
    patches = []
    for number in range(3):
        patches.append(tmp_path / f"{number}.tnpatch")
        create_patch(places[number], places[number + 1], patches[-1], window_bytes=1 << 14)
    report = squash_patches(patches, tmp_path / "all.tnpatch")
    assert report.patch_bytes < report.raw_bytes / 12
    assert inspect_patch(tmp_path / "all.tnpatch").other_contents == 2
    apply_patch(tmp_path / "all.tnpatch", places[0], tmp_path / "out", threads=2)
    assert tree(tmp_path / "out") == files_of(chain[-1])
    with read_patch(tmp_path / "all.tnpatch").open(places[0]) as opened:
        wanted = chain[-1]["m.safetensors"]
        assert isinstance(wanted, dict)
        assert opened.rows("t", 3, 9).data == wanted["t"].data[3 * 576 * 4 : 9 * 576 * 4]


def test_strategies_are_exact_and_auto_is_no_larger(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    few = weights(7, 4096, 256)
    many = weights(8, 4096, 256)
    old: Model = {"m.safetensors": {"few": tensor(few), "many": tensor(many)}}
    noise = rng.normal(0, 1e-3, many.shape).astype(np.float32)
    scale = np.linspace(0.01, 3, 4096, dtype=np.float32)[:, None]
    new: Model = {"m.safetensors": {"few": tensor(stepped(few, 2)), "many": tensor(many + noise * scale)}}
    write(old, tmp_path / "old")
    write(new, tmp_path / "new")
    strategies: tuple[Strategy, ...] = ("dense", "sparse", "auto")
    sizes: dict[str, dict[str, int]] = {}
    for strategy in strategies:
        create_patch(tmp_path / "old", tmp_path / "new", tmp_path / strategy, strategy=strategy)
        summary = inspect_patch(tmp_path / strategy)
        assert summary.strategy == strategy
        sizes[strategy] = {row.name: row.stored_bytes for row in summary.tensors}
        apply_patch(tmp_path / strategy, tmp_path / "old", tmp_path / f"out-{strategy}")
        assert tree(tmp_path / f"out-{strategy}") == files_of(new)
    assert sizes["sparse"]["few"] < sizes["dense"]["few"]
    assert sizes["dense"]["many"] < sizes["sparse"]["many"]
    for name in ("few", "many"):
        assert sizes["auto"][name] <= min(sizes["dense"][name], sizes["sparse"][name])
