"""New weights in the memory of a process: all of them, or the old ones bit by bit, whatever fails."""

from __future__ import annotations

import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delta.models import Model, Tensor, make, nudged, weights, write
from loading.swaps import both, data_of, resident, swap, tensors_of
from textnlp_fast.delta import create_patch
from textnlp_fast.errors import (
    DeviceError,
    InvalidInputError,
    WrongBaseError,
)
from textnlp_fast.storage import Repository


def test_the_new_weights_are_there(patch: Path, old: Model, new: Model) -> None:
    loaded = resident(old)
    places = {name: array.ctypes.data for name, array in loaded.items()}
    report = swap(loaded, patch)
    assert data_of(loaded) == data_of(resident(new))
    assert {name: array.ctypes.data for name, array in loaded.items()} == places
    assert (report.source_version, report.target_version) == ("1.0.0", "1.1.0")
    assert (report.tensors, report.changed_tensors) == (4, 3)
    assert report.changed_bytes == 2 * 16384 + 8


def test_forth_and_back_along_a_chain(tmp_path: Path, old: Model, new: Model) -> None:
    forth = both(tmp_path / "forth", old, new)
    back = both(tmp_path / "back", new, old)
    loaded = resident(old)
    for _ in range(3):
        swap(loaded, forth)
        assert data_of(loaded) == data_of(resident(new))
        swap(loaded, back)
        assert data_of(loaded) == data_of(resident(old))


def test_what_is_not_the_models_stays(patch: Path, old: Model) -> None:
    loaded = resident(old)
    loaded["rotary.inv_freq"] = np.arange(8, dtype=np.uint8)
    swap(loaded, patch)
    assert loaded["rotary.inv_freq"].tolist() == list(range(8))


# --- what does not fit -------------------------------------------------------------------------------------------


def test_other_weights_are_refused(patch: Path, old: Model, new: Model) -> None:
    loaded = resident(old)
    loaded["norm"][0] ^= 1
    before = data_of(loaded)
    with pytest.raises(WrongBaseError, match="'norm'") as caught:
        swap(loaded, patch)
    assert not caught.value.is_target
    assert data_of(loaded) == before


def test_the_target_itself_is_no_failure_to_lose_sleep_over(patch: Path, new: Model) -> None:
    with pytest.raises(WrongBaseError, match="target already") as caught:
        swap(resident(new), patch)
    assert caught.value.is_target


def test_a_part_of_the_model(patch: Path, old: Model, new: Model) -> None:
    loaded = resident(old)
    del loaded["k"]
    with pytest.raises(InvalidInputError, match="'k'"):
        swap(loaded, patch)
    swap(loaded, patch, partial=True)
    assert loaded["q"].tobytes() == resident(new)["q"].tobytes()


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    embedding, moved = weights(3), nudged(weights(3), 4)
    old: Model = {"model.safetensors": {"embed": embedding, "head": embedding}}
    new: Model = {"model.safetensors": {"embed": moved, "head": moved}}
    parted: Model = {"model.safetensors": {"embed": moved, "head": embedding}}
    loaded = {"embed": resident(old)["embed"]}
    loaded["head"] = loaded["embed"]
    report = swap(loaded, both(tmp_path, old, new))
    assert loaded["head"].tobytes() == moved.data
    assert report.changed_tensors == 1
    loaded["embed"][:] = np.frombuffer(embedding.data, np.uint8)
    with pytest.raises(InvalidInputError, match="share their memory"):
        swap(loaded, both(tmp_path / "parted", old, parted))
    assert loaded["embed"].tobytes() == embedding.data


def test_memory_that_cannot_be_swapped(patch: Path, old: Model) -> None:
    loaded: dict[str, Any] = dict(resident(old))
    whole = np.concatenate([loaded["q"], loaded["k"]])

    def refused(change: dict[str, Any], match: str, kind: type[Exception] = InvalidInputError) -> None:
        with pytest.raises(kind, match=match):
            swap({**loaded, **change}, patch)

    refused({"q": loaded["q"].reshape(64, 256).T}, "C-contiguous")
    frozen = loaded["q"].copy()
    frozen.flags.writeable = False
    refused({"q": frozen}, "cannot be written")
    refused({"q": whole[:16384], "k": whole[16000 : 16000 + 16384]}, "shares a part")
    refused({"q": loaded["q"][:100].copy()}, "100 bytes in memory")
    refused({"q": [1, 2]}, "no tensor but list")
    with pytest.raises(InvalidInputError, match="dict of tensors"):
        swap([1], patch)
    with pytest.raises(InvalidInputError, match="no tensor in memory"):
        swap({"other": loaded["q"]}, patch, partial=True)

    class Elsewhere:
        class device:
            type = "xpu"

            def __str__(self) -> str:
                return "xpu:0"

        detach = is_contiguous = numel = None

    refused({"q": Elsewhere()}, "on CUDA devices", DeviceError)


def test_structure_that_memory_cannot_follow(tmp_path: Path, old: Model) -> None:
    first = dict(old["model-1.safetensors"])  # type: ignore[arg-type]
    grown: Model = {**old, "model-1.safetensors": {**first, "extra": weights(8)}}
    with pytest.raises(InvalidInputError, match=r"adds tensors.*'extra'"):
        swap(resident(old), both(tmp_path / "a", old, grown))
    flat = Tensor("BF16", (128, 64), first["q"].data)
    turned: Model = {**old, "model-1.safetensors": {**first, "q": flat}}
    patch = both(tmp_path / "b", old, turned)
    with pytest.raises(InvalidInputError, match="header"):
        swap(resident(old), patch)
    with pytest.raises(InvalidInputError, match="BF16"):
        swap(resident(old), patch, source=tmp_path / "b" / "old")


def test_a_header_that_changes_and_shapes_that_stay(tmp_path: Path, old: Model) -> None:
    first = dict(old["model-1.safetensors"])  # type: ignore[arg-type]
    other: Model = {**old, "model-1.safetensors": {"norm": first["norm"], "q": nudged(first["q"], 2)}}
    patch = both(tmp_path, old, other)
    loaded = resident(old)
    swap(loaded, patch, source=tmp_path / "old")
    assert data_of(loaded) == data_of(resident(other))


# --- what is made of what ----------------------------------------------------------------------------------------


def test_tensors_that_change_places(tmp_path: Path) -> None:
    a, b, c = weights(1), weights(2), weights(3)
    old: Model = {"model.safetensors": {"a": a, "b": b, "c": c}}
    new: Model = {"model.safetensors": {"a": b, "b": c, "c": a}}
    loaded = resident(old)
    swap(loaded, both(tmp_path, old, new))
    assert data_of(loaded) == data_of(resident(new))


def test_a_matrix_turned_onto_itself(tmp_path: Path) -> None:
    matrix = np.frombuffer(weights(4, rows=128).data, np.uint16).reshape(128, 128)
    old: Model = {"model.safetensors": {"m": Tensor("BF16", (128, 128), matrix.tobytes())}}
    new: Model = {"model.safetensors": {"m": Tensor("BF16", (128, 128), matrix.T.tobytes())}}
    loaded = resident(old)
    swap(loaded, both(tmp_path, old, new))
    assert data_of(loaded) == data_of(resident(new))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30))
def test_any_two_versions(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    dice = random.Random(seed)
    kinds = [("BF16", 2), ("F8_E4M3", 1), ("F32", 4), ("BOOL", 1), ("F64", 8)]
    old_tensors: dict[str, Tensor] = {}
    for n in range(dice.randrange(1, 7)):
        dtype, width = dice.choice(kinds)
        shape = dice.choice([(), (0, 3), (7,), (dice.randrange(1, 40), 128), (1, 6000)])
        count = int(np.prod(shape, dtype=np.int64))
        data = (
            bytes(dice.randrange(2) for _ in range(count))
            if dtype == "BOOL"
            else dice.randbytes(count * width)
        )
        old_tensors[f"t{n}"] = Tensor(dtype, shape, data)
    new_tensors = {}
    for name, tensor in old_tensors.items():
        twins = [t.data for t in old_tensors.values() if (t.dtype, t.shape) == (tensor.dtype, tensor.shape)]
        data = bytearray(dice.choice([tensor.data, dice.choice(twins)]))
        for _ in range(dice.randrange(4)):
            if data:
                data[dice.randrange(len(data))] ^= 1
        new_tensors[name] = Tensor(tensor.dtype, tensor.shape, bytes(data))
    root = tmp_path_factory.mktemp("swap")
    old, new = {"model.safetensors": old_tensors}, {"model.safetensors": new_tensors}
    loaded = resident(old)  # type: ignore[arg-type]
    swap(loaded, both(root, old, new), undo_budget_bytes=dice.choice([0, 500, 1 << 20]))  # type: ignore[arg-type]
    assert data_of(loaded) == {name: tensor.data for name, tensor in new_tensors.items()}


# --- size --------------------------------------------------------------------------------------------------------


def test_memory_follows_the_window_and_not_the_model(tmp_path: Path) -> None:
    """A model of 48 MB whose every part changes a little: neither a copy of it nor one of its tensor."""
    rows = 24 << 10
    matrix = np.random.default_rng(5).integers(0x3C00, 0x3D00, (rows, 1024), np.uint16)
    moved = matrix.copy()
    moved[::50, ::40] += 1
    models: list[Model] = [
        {"model.safetensors": {"m": Tensor("BF16", (rows, 1024), side.tobytes())}} for side in (matrix, moved)
    ]
    ends = [write(model, tmp_path / name) for model, name in zip(models, ("old", "new"), strict=True)]
    create_patch(*ends, tmp_path / "p.tnpatch", window_bytes=1 << 20)
    loaded = {"m": matrix.reshape(-1).view(np.uint8)}
    tracemalloc.start()
    try:
        report = swap(loaded, tmp_path / "p.tnpatch", memory_budget_bytes=8 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(matrix, moved)
    assert report.undo_bytes < 0.02 * matrix.nbytes
    assert peak < 0.25 * matrix.nbytes


def test_torch_modules(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    torch.manual_seed(0)

    def build() -> Any:
        model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 8))
        return model.to(torch.bfloat16)

    model, other = build(), build()
    with torch.no_grad():
        for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
            b.copy_(a + 1 if not a.is_floating_point() else a * 1.01)
    for side, name in ((model, "old"), (other, "new")):
        safetensors_torch.save_file(side.state_dict(), tmp_path / f"{name}.safetensors")
    create_patch(tmp_path / "old.safetensors", tmp_path / "new.safetensors", tmp_path / "p.tnpatch")
    weight = model[0].weight
    swap(model, tmp_path / "p.tnpatch")
    assert model[0].weight is weight
    assert weight.requires_grad
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    model[0].weight = torch.nn.Parameter(model[0].weight.t().contiguous().t())
    with pytest.raises(InvalidInputError, match="not contiguous"):
        swap(model, tmp_path / "p.tnpatch")


def test_the_guides_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = Path(__file__).resolve().parents[2] / "docs" / "guide" / "swap.md"
    first, second, _, slices, _ = re.findall(
        r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL
    )
    tensors = {"w": Tensor("F32", (64, 32), np.arange(2048, dtype=np.float32).tobytes())}
    versions: list[Model] = [
        {"model.safetensors": {"w": nudged(tensors["w"], n) if n else tensors["w"]}} for n in range(3)
    ]
    old, new = (
        write({f"v1.{n}.safetensors": versions[n]["model.safetensors"]}, tmp_path / f"v1.{n}.safetensors")
        for n in (0, 1)
    )
    make(old, new, tmp_path / "changes.tnpatch")
    repository = Repository.open(tmp_path / "weights", create=True)
    for n, version in enumerate(versions):
        repository.push(write(version, tmp_path / f"v{n}"), "custom-llm", f"1.{n}.0")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(first, str(guide), "exec"), names)
    assert names["model"]["w"].tobytes() == tensors_of(versions[1])["w"].data
    exec(compile(second, str(guide), "exec"), names)
    exec(compile(slices, str(guide), "exec"), names)
    assert names["by_rules"] == names["layout"]
    assert names["model"]["w"].tobytes() == tensors_of(versions[2])["w"].data
