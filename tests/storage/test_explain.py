"""Explanations of versions and of files: what became of each tensor, how it sums up, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.delta import codec
from textnlp_fast.delta.measure import Sums
from textnlp_fast.errors import InvalidInputError, SafetensorsError, UnsafeFileError
from textnlp_fast.storage import Repository
from textnlp_fast.storage.explain import (
    Change,
    Explanation,
    Line,
    Side,
    grid_of,
    lines_of,
    pair_up,
    sort_lines,
    total_of,
)
from textnlp_fast.storage.explain_files import explain_files
from textnlp_fast.storage.explain_words import headline_of, summary_of

Tensors = Mapping[str, npt.NDArray[Any]]
BF16 = ml_dtypes.bfloat16
NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "uint8": "U8", "int64": "I64"}


def write(path: Path, tensors: Tensors) -> Path:
    header, offset = {}, 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": array.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values())
    )
    return path


def make(seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> npt.NDArray[Any]:
        return rng.normal(0, 0.02, shape).astype(BF16)

    tensors = {"model.embed_tokens.weight": weights(64, 32)}
    for layer in range(3):
        stem = f"model.layers.{layer}"
        tensors[f"{stem}.self_attn.q_proj.weight"] = weights(32, 32)
        tensors[f"{stem}.mlp.up_proj.weight"] = weights(48, 32)
        tensors[f"{stem}.input_layernorm.weight"] = np.ones(32, BF16)
    return {**tensors, "model.norm.weight": np.ones(32, BF16), "lm_head.weight": weights(64, 32)}


def tuned(tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
    """Attention moves much, MLPs a little, the rest not at all."""
    rng = np.random.default_rng(1)
    moved = dict(tensors)
    for name, array in tensors.items():
        share = 0.5 if "attn" in name else 0.05 if "mlp" in name else 0
        change = np.where(rng.random(array.shape) < share, rng.normal(0, 1e-3, array.shape), 0)
        moved[name] = (array.astype(np.float64) + change).astype(BF16)
    return moved


def explained(tmp_path: Path, old: Tensors, new: Tensors, where: str) -> Explanation:
    """By both roads: through a repository, and straight from the files."""
    files = (
        write(tmp_path / "old" / "model.safetensors", old),
        write(tmp_path / "new" / "model.safetensors", new),
    )
    if where == "files":
        return explain_files(*files)
    repository = Repository.open(tmp_path / "repository", create=True, window_bytes=1 << 12)
    repository.push(files[0].parent, "m", "1.0.0")
    repository.push(files[1].parent, "m", "1.1.0")
    return repository.explain("m", "1.0.0", "1.1.0")


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {line.label: line for line in lines}


@pytest.fixture(params=["files", "repository"])
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_figures_are_those_of_numpy(tmp_path: Path, where: str) -> None:
    old, new = make(), tuned(make())
    explanation = explained(tmp_path, old, new, where)
    assert explanation.bytes_of == ("codec" if where == "files" else "repository")
    lines = by_name(lines_of(explanation, "tensor"))
    assert list(lines) == list(old)
    for name, line in lines.items():
        a, b = old[name].astype(np.float64), new[name].astype(np.float64)
        sums = line.sums
        assert sums.changed == np.count_nonzero(a != b)
        if not sums.changed:
            assert (line.status, line.stored_bytes, line.rank) == ("same", None, None)
            assert sums == Sums(elements=a.size)
            continue
        assert sums.change_norm == pytest.approx(np.linalg.norm(b - a), rel=1e-9)
        assert sums.weight_norm == pytest.approx(np.linalg.norm(a), rel=1e-9)
        assert sums.max_change == np.max(np.abs(b - a))
        values = np.linalg.svd(b - a, compute_uv=False)
        shares = values[values > 0] / values.sum()
        assert line.rank is not None
        assert line.rank.value == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
        assert line.rank_fraction == pytest.approx(line.rank.value / min(a.shape))
        if where == "files":
            payload = codec.encode(new[name].tobytes(), old[name].tobytes(), dtype="BF16")
            assert line.stored_bytes == len(payload)
            assert not line.estimated
        assert line.bits_per_weight == pytest.approx(8 * (line.stored_bytes or 0) / a.size)
        assert line.strategy in ("delta", "sparse", "raw", "alone")


def test_both_roads_measure_the_same(tmp_path: Path) -> None:
    old, new = make(), tuned(make())
    first = explained(tmp_path / "a", old, new, "files")
    second = explained(tmp_path / "b", old, new, "repository")
    for one, other in zip(first.changes, second.changes, strict=True):
        assert (one.status, one.side.name, one.rank) == (other.status, other.side.name, other.rank)
        assert one.sums is not None
        assert other.sums is not None
        assert one.sums.ulps == other.sums.ulps
        # The repository's windows are smaller, so that sums are rounded elsewhere.
        if one.sums.change_norm is None or other.sums.change_norm is None:
            assert one.sums == other.sums
        else:
            assert one.sums.change_norm == pytest.approx(other.sums.change_norm, rel=1e-12)


def test_groups_are_the_sums_of_their_tensors(tmp_path: Path) -> None:
    explanation = explained(tmp_path, make(), tuned(make()), "files")
    layers = by_name(lines_of(explanation, "layer"))
    assert list(layers) == ["embedding", "layer 0", "layer 1", "layer 2", "norm", "head"]
    kinds = by_name(lines_of(explanation, "kind"))
    assert list(kinds) == ["embedding", "attention", "mlp", "norm", "head"]
    total = total_of(explanation)
    for groups in (layers, kinds):
        assert sum(line.sums.changed for line in groups.values()) == total.sums.changed
        assert sum(line.elements for line in groups.values()) == total.elements
        assert sum(line.stored_bytes or 0 for line in groups.values()) == total.stored_bytes
        assert sum(
            line.sums.change_norm**2 for line in groups.values() if line.sums.change_norm
        ) == pytest.approx(total.sums.change_norm**2 if total.sums.change_norm else 0)
    assert (layers["layer 1"].tensors, layers["layer 1"].changed_tensors, layers["layer 1"].layer) == (
        3,
        2,
        1,
    )
    assert (kinds["attention"].sums.changed_fraction or 0) > 5 * (kinds["mlp"].sums.changed_fraction or 1)
    rows, columns, cells = grid_of(explanation, "changed")
    assert (rows, columns) == (["0", "1", "2"], ["attention", "mlp", "norm"])
    assert cells[:, 2].tolist() == [0, 0, 0]
    tensor = by_name(lines_of(explanation, "tensor"))["model.layers.2.mlp.up_proj.weight"]
    assert cells[2, 1] == tensor.sums.changed_fraction
    assert grid_of(explanation, "relative")[2][2, 1] == tensor.sums.relative_norm


def test_lines_are_sorted_and_those_without_a_figure_come_last(tmp_path: Path) -> None:
    explanation = explained(tmp_path, make(), tuned(make()), "files")
    lines = lines_of(explanation, "tensor")
    norms = [line.sums.change_norm for line in sort_lines(lines, "norm")]
    known = [norm for norm in norms if norm is not None]
    assert known == sorted(known, reverse=True)
    assert norms[len(known) :] == [None] * (len(lines) - len(known))
    assert sort_lines(lines, "name") == lines
    with pytest.raises(InvalidInputError, match="cannot sort by"):
        sort_lines(lines, "colour")


def test_what_became_of_the_tensors(tmp_path: Path, where: str) -> None:
    old = make()
    old["model.layers.0.self_attn.k_proj.weight"] = old["lm_head.weight"] + BF16(1)
    new = dict(old)
    new["extra.weight"] = old["lm_head.weight"] + BF16(2)
    del new["model.norm.weight"]
    new["renamed.weight"] = new.pop("model.layers.0.self_attn.k_proj.weight")
    new["lm_head.weight"] = np.zeros((65, 32), BF16)
    new["model.layers.1.mlp.up_proj.weight"] = old["model.layers.1.mlp.up_proj.weight"].reshape(32, 48)
    new["model.embed_tokens.weight"] = old["model.embed_tokens.weight"].astype(np.float32)
    explanation = explained(tmp_path, old, new, where)
    status = {change.side.name: change.status for change in explanation.changes if change.status != "same"}
    assert status == {
        "model.embed_tokens.weight": "retyped",
        "model.layers.1.mlp.up_proj.weight": "reshaped",
        "lm_head.weight": "reshaped",
        "extra.weight": "added",
        "renamed.weight": "renamed",
        "model.norm.weight": "removed",
    }
    words = summary_of(explanation)
    for part in (
        "1 tensor is new: extra.weight.",
        "1 tensor is gone: model.norm.weight.",
        "1 tensor has a new name and the same bytes: model.layers.0.self_attn.k_proj.weight -> renamed.weight.",
        "2 tensors have other shapes: model.layers.1.mlp.up_proj.weight [48, 32] -> [32, 48], "
        "lm_head.weight [64, 32] -> [65, 32].",
        "1 tensor has another dtype: model.embed_tokens.weight BF16 -> F32.",
    ):
        assert part in words
    stored = {change.side.name for change in explanation.changes if change.stored_bytes}
    assert stored == {"model.embed_tokens.weight", "lm_head.weight", "extra.weight"}


def test_nothing_changed(tmp_path: Path, where: str) -> None:
    explanation = explained(tmp_path, make(), make(), where)
    assert {change.status for change in explanation.changes} == {"same"}
    assert summary_of(explanation).startswith("Nothing changed: all 12 tensors of ")
    assert total_of(explanation).stored_bytes is None


def test_nothing_in_common(tmp_path: Path, where: str) -> None:
    explanation = explained(tmp_path, {"a": np.ones(4, BF16)}, {"b": np.zeros((2, 2), BF16)}, where)
    assert "No tensor is in both" in summary_of(explanation)
    assert headline_of(explanation) == "1 tensor, none of which both models have"


def test_empty_tensors_and_scalars(tmp_path: Path, where: str) -> None:
    old = {"none": np.zeros((0, 4), BF16), "scalar": np.array(1.0, BF16), "int": np.arange(6, dtype=np.int64)}
    new = {**old, "scalar": np.array(2.0, BF16), "int": old["int"] + (old["int"] == 3) * 5}
    lines = by_name(lines_of(explained(tmp_path, old, new, where), "tensor"))
    assert lines["none"].status == "same"
    assert (lines["scalar"].sums.changed, lines["scalar"].sums.max_ulp) == (1, 128)
    assert (lines["int"].sums.max_change, lines["int"].rank) == (5.0, None)


def test_broken_weights_are_said(tmp_path: Path, where: str) -> None:
    old = make()
    new = {name: array.copy() for name, array in old.items()}
    new["lm_head.weight"][0, :3] = np.nan, np.inf, -np.inf
    explanation = explained(tmp_path, old, new, where)
    assert "3 weights became NaN or infinite." in summary_of(explanation)
    assert "1 weight" not in summary_of(explanation)
    line = by_name(lines_of(explanation, "tensor"))["lm_head.weight"]
    assert (line.sums.changed, line.sums.change_norm) == (3, 0.0)


def test_a_large_model_is_estimated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    old = {"w": rng.normal(0, 0.02, (4096, 1024)).astype(BF16)}
    new = {"w": np.where(rng.random(old["w"].shape) < 0.1, old["w"] * BF16(1.01), old["w"])}
    files = write(tmp_path / "a.safetensors", old), write(tmp_path / "b.safetensors", new)
    exact, some = explain_files(*files), explain_files(*files, encode_bytes=3 << 20, with_rank=False)
    (whole,), (part,) = exact.changes, some.changes
    assert part.estimated
    assert not whole.estimated
    assert part.stored_bytes == pytest.approx(whole.stored_bytes, rel=0.05)
    assert part.sums == whole.sums
    assert (part.rank, whole.rank is not None) == (None, True)
    assert "about" in summary_of(some)
    assert "estimate" in summary_of(some)
    assert "estimate" not in summary_of(exact)


def test_files_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "good.safetensors", {"w": np.ones(4, BF16)})
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\xff" * 40)
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "config.json").write_text("{}")
    for bad, error in (
        (broken, SafetensorsError),
        (tmp_path / "pickles", UnsafeFileError),
        (tmp_path / "empty", InvalidInputError),
        (tmp_path / "words", InvalidInputError),
        (tmp_path / "nowhere", InvalidInputError),
    ):
        for pair in ((good, bad), (bad, good)):
            with pytest.raises(error):
                explain_files(*pair)


def test_two_stacks_are_told_apart() -> None:
    names = [
        f"{stack}.block.{layer}.layer.0.SelfAttention.q.weight"
        for stack in ("encoder", "decoder")
        for layer in (0, 1)
    ]
    changes = tuple(
        Change(
            status="changed",
            old=None,
            new=Side(name, "BF16", (2, 2), 8),
            sums=Sums(elements=4, changed=place),
        )
        for place, name in enumerate(names)
    )
    explanation = Explanation(old="a", new="b", bytes_of="codec", changes=changes)
    assert [line.label for line in lines_of(explanation, "layer")] == [
        "decoder.block.0",
        "decoder.block.1",
        "encoder.block.0",
        "encoder.block.1",
    ]
    rows, columns, cells = grid_of(explanation, "changed")
    assert (rows, columns) == (["decoder 0", "decoder 1", "encoder 0", "encoder 1"], ["attention"])
    assert cells[:, 0].tolist() == [0.5, 0.75, 0.0, 0.25]


SIDES = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.sampled_from(["BF16", "F32"]), st.sampled_from([(2,), (1, 2)]), st.sampled_from("xyz")),
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(old=SIDES, new=SIDES)
def test_pairing_uses_every_tensor_once(
    old: dict[str, tuple[str, tuple[int, ...], str]], new: dict[str, tuple[str, tuple[int, ...], str]]
) -> None:
    before, after = (
        {name: Side(name, dtype, shape, 4, digest) for name, (dtype, shape, digest) in sides.items()}
        for sides in (old, new)
    )
    changes = pair_up(before, after, lambda side, _: side.digest or "")
    assert sorted(change.old.name for change in changes if change.old) == sorted(old)
    assert [change.new.name for change in changes if change.new] == list(new)
    for change in changes:
        if change.status in ("same", "renamed"):
            assert change.old is not None
            assert change.new is not None
            assert old[change.old.name] == new[change.new.name]
            assert (change.old.name == change.new.name) == (change.status == "same")
    # No rename is missed: what is new and what is gone has nothing in common.
    added = {new[change.side.name] for change in changes if change.status == "added"}
    removed = {old[change.side.name] for change in changes if change.status == "removed"}
    assert not added & removed
