"""Tensors of a version or a file, in memory: the same bytes as were pushed, or an error and nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import textnlp_fast
from codec.devices import INFO
from delta.models import Model, Tensor, weights, write
from loading.loads import DEVICES, OPTIONS, WINDOW, all_bytes, bytes_of, expected, push_history
from textnlp_fast import load
from textnlp_fast.contents.windows import Progress
from textnlp_fast.delta.recipe import Whole
from textnlp_fast.errors import (
    DeviceError,
    InvalidInputError,
    LoadCancelledError,
    LoadTimeoutError,
    MissingPackageError,
    ModelNotFoundError,
    SafetensorsError,
)
from textnlp_fast.loading.streaming import _LEAST_BUDGET_BYTES
from textnlp_fast.storage import Repository
from textnlp_fast.tensors.device_memory import DeviceArray

History = tuple[Path, dict[str, Model]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("version", ["1.0.0", "1.1.0", "1.3.0", "2.0.0"])
def test_every_version(history: History, version: str, device: str) -> None:
    folder, models = history
    loaded = load("m", version, repository=folder, device=device, threads=2)
    assert all_bytes(loaded) == expected(models[version])
    kind = np.ndarray if device == "cpu" else DeviceArray
    assert all(type(tensor) is kind for tensor in loaded.values())
    assert loaded["tied"].shape == (64, 128)


def test_the_history_is_what_the_tests_are_about(history: History) -> None:
    """Chains of several deltas, and a base that is a recipe."""
    folder, _ = history
    contents = Repository.open(folder).manifest("m", "2.0.0").contents
    assert any(
        content.base is not None and not isinstance(content.base, Whole) for content in contents.values()
    )
    third = Repository.open(folder).manifest("m", "1.3.0")
    assert sum(isinstance(content.base, Whole) for content in third.contents.values()) >= 5
    assert {content.codec for content in third.contents.values()} >= {"frames"}


@pytest.mark.parametrize("device", DEVICES)
def test_files(tmp_path: Path, history: History, device: str) -> None:
    _, models = history
    path = write(models["1.3.0"], tmp_path / "model")
    assert all_bytes(load(path, device=device, threads=2)) == expected(models["1.3.0"])
    one = load(path / "model-2.safetensors", device=device)
    assert all_bytes(one) == {
        name: tensor.data
        for name, tensor in models["1.3.0"]["model-2.safetensors"].items()  # type: ignore[union-attr]
    }


@pytest.mark.parametrize("device", DEVICES)
def test_from_memory(tmp_path: Path, device: str) -> None:
    url = f"memory://load-{tmp_path.name}-{device}"
    repository = Repository.open(url, create=True, options=OPTIONS, window_bytes=WINDOW)
    models = push_history(repository, tmp_path)
    assert all_bytes(load("m@1.2.0", repository=url, device=device)) == expected(models["1.2.0"])
    assert all_bytes(load("m", repository=repository, device=device)) == expected(models["2.0.0"])


@pytest.mark.parametrize("device", DEVICES)
def test_stored_as_they_are(tmp_path: Path, history: History, device: str) -> None:
    """Windows that are their own bytes, and such below deltas."""
    _, models = history
    raw = OPTIONS.__class__(shard_bytes=1 << 16, threads=2, compression=False)
    folder = tmp_path / "r"
    Repository.open(folder, create=True, options=raw, window_bytes=WINDOW).push(
        write(models["1.0.0"], tmp_path / "a"), "m", "1.0.0"
    )
    Repository.open(folder, options=OPTIONS).push(
        write(models["1.1.0"], tmp_path / "b"), "m", "1.1.0", parent="1.0.0"
    )
    for version in ("1.0.0", "1.1.0"):
        assert all_bytes(load("m", version, repository=folder, device=device)) == expected(models[version])


def test_numpy_types(history: History) -> None:
    folder, models = history
    loaded = load("m", "1.0.0", repository=folder)
    assert loaded["q"].dtype == ml_dtypes.bfloat16
    assert loaded["scale"].dtype == ml_dtypes.float8_e4m3fn
    assert (loaded["norm"].dtype, loaded["step"].dtype, loaded["mask"].dtype) == ("f4", "i8", "?")
    assert (loaded["step"].shape, loaded["step"].item()) == ((), 7)
    assert loaded["nothing"].shape == (0, 4)
    loaded["q"][0] = 1  # the caller's own
    assert expected(models["1.0.0"])["tied"] == loaded["tied"].tobytes()


def test_torch_types(history: History) -> None:
    torch = pytest.importorskip("torch")
    folder, models = history
    loaded = load("m", "1.0.0", repository=folder, framework="torch")
    assert all_bytes(loaded) == expected(models["1.0.0"])
    assert loaded["q"].dtype == torch.bfloat16
    assert loaded["scale"].dtype == torch.float8_e4m3fn
    assert (loaded["nothing"].shape, loaded["step"].item()) == (torch.Size([0, 4]), 7)


def test_types_that_numpy_lacks(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(MissingPackageError, match="ml_dtypes") as caught:
        load("m", "1.0.0", repository=history[0])
    assert "pip install" in caught.value.hint
    assert load("m", "1.0.0", repository=history[0], names=["norm"])["norm"].shape == (3,)


def test_elements_that_share_bytes(tmp_path: Path) -> None:
    path = write({"m.safetensors": {"x": Tensor("F4", (4, 3), bytes(range(6)))}}, tmp_path / "m")
    loaded = load(path)["x"]
    assert (loaded.dtype, loaded.tolist()) == (np.uint8, list(range(6)))
    with pytest.raises(InvalidInputError, match="several elements a byte"):
        load(path, slices={"x": (0, 0, 2)})


# --- what is wanted ---------------------------------------------------------------------------------------------


def test_some_of_them(history: History) -> None:
    folder, _ = history
    assert load("m", "1.0.0", repository=folder, names=["q", "n*"]).keys() == {"q", "norm", "nothing"}
    assert load("m", "1.0.0", repository=folder, names=lambda name: name == "k").keys() == {"k"}
    assert load("m", "1.0.0", repository=folder, files=["*-2.*"]).keys() >= {"norm", "step"}
    for wrong in ({"names": ["q", "absent"]}, {"slices": {"absent.*": (0, 0, 2)}}):
        with pytest.raises(InvalidInputError, match="absent"):
            load("m", "1.0.0", repository=folder, **wrong)  # type: ignore[arg-type]


def test_one_name_in_two_files(tmp_path: Path) -> None:
    model: Model = {"a.safetensors": {"x": weights(1)}, "sub/b.safetensors": {"x": weights(2)}}
    path = write(model, tmp_path / "m")
    with pytest.raises(InvalidInputError, match="'x' is in") as caught:
        load(path)
    assert "files=" in caught.value.hint
    assert bytes_of(load(path, files=["sub/*"])["x"]) == weights(2).data


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stored", [True, False])
def test_into_arrays_that_are_there(tmp_path: Path, history: History, device: str, stored: bool) -> None:
    folder, models = history
    into: dict[str, Any] = {"q": np.zeros((64, 128), np.uint16), "norm": np.zeros(3, np.float32)}
    if device != "cpu":
        into["k"] = DeviceArray.empty((64, 128), "BF16", 16384)
    where: Any = {"source": "m", "version": "1.3.0", "repository": folder}
    if not stored:
        where = {"source": write(models["1.3.0"], tmp_path / "model")}
    loaded = load(**where, device=device, into=into)
    assert loaded.keys() == into.keys()
    assert all(loaded[name] is into[name] for name in into)
    assert all_bytes(loaded) == {name: expected(models["1.3.0"])[name] for name in into}


def test_arrays_that_do_not_fit(history: History) -> None:
    folder, _ = history
    frozen = np.zeros((64, 128), np.uint16)
    frozen.flags.writeable = False
    for array, reason in (
        (np.zeros((64, 64), np.uint16), "shape"),
        (np.zeros((64, 128), np.uint32), "takes 16384 bytes"),
        (np.zeros((128, 64), np.uint16).T, "contiguous"),
        (frozen, "written"),
        ([1, 2], "shape"),
    ):
        with pytest.raises(InvalidInputError, match=reason):
            load("m", "1.0.0", repository=folder, into={"q": array})
    with pytest.raises(InvalidInputError, match="absent"):
        load("m", "1.0.0", repository=folder, into={"absent": np.zeros(1)})


# --- wrong calls --------------------------------------------------------------------------------------------------


def test_wrong_calls(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = history
    monkeypatch.delenv("TEXTNLP_FAST_REPO", raising=False)
    with pytest.raises(InvalidInputError, match="which one") as caught:
        load("m", "1.0.0")
    assert "TEXTNLP_FAST_REPO" in caught.value.hint
    with pytest.raises(InvalidInputError, match="does not exist"):
        load(tmp_path / "absent")
    with pytest.raises(ModelNotFoundError):
        load("absent", repository=folder)
    for wrong, reason in (
        ({"device": "tpu"}, "none of"),
        ({"device": "cuda:x"}, "none of"),
        ({"framework": "mxnet"}, "not known"),
        ({"memory_budget_bytes": 1}, "at least"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"threads": -1}, "threads"),
        ({"slices": {"q": (2, 0, 2)}}, "axis 2"),
        ({"slices": {"q": (0, 2, 2)}}, "rank 2"),
        ({"slices": {"q": (0, 0, 3)}}, "evenly"),
        ({"slices": {"q": (0, 1)}}, "the slice"),
        ({"slices": {"q": "row"}}, "the slice"),
    ):
        with pytest.raises(InvalidInputError, match=reason):
            load("m", "1.0.0", repository=folder, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="is not version"):
        load("m@1.0.0", "1.1.0", repository=folder)
    monkeypatch.setenv("TEXTNLP_FAST_REPO", str(folder))
    assert "kv" in load("m")
    assert load("m", "1.0.0").keys() == textnlp_fast.load("m@1.0.0").keys()


@pytest.mark.skipif(INFO["device_count"] != 0, reason="there is a device")
def test_without_a_device(history: History) -> None:
    for device in ("cuda", "cuda:0"):
        with pytest.raises(DeviceError, match="no CUDA device"):
            load("m", repository=history[0], device=device)
    assert isinstance(load("m", repository=history[0], device="auto")["norm"], np.ndarray)


@pytest.mark.gpu
@pytest.mark.skipif(INFO["device_count"] == 0, reason="no CUDA device")
def test_devices(history: History) -> None:
    with pytest.raises(DeviceError, match="there is no cuda:99"):
        load("m", repository=history[0], device="cuda:99")
    with pytest.raises(InvalidInputError, match="numpy has no arrays"):
        load("m", repository=history[0], device="cuda", framework="numpy")
    assert isinstance(load("m", repository=history[0], device="auto")["norm"], DeviceArray)


@pytest.mark.parametrize("damage", ["cut short", "long header", "no header"])
def test_files_that_break_the_format(tmp_path: Path, damage: str) -> None:
    path = write({"m.safetensors": {"x": weights(1)}}, tmp_path / "m") / "m.safetensors"
    data = path.read_bytes()
    path.write_bytes(
        {"cut short": data[:-1], "long header": b"\xff" * 7 + data[7:], "no header": b"12"}[damage]
    )
    with pytest.raises(SafetensorsError):
        load(path)


# --- progress, and stopping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stored", [True, False])
def test_progress_and_cancelling_at_every_step(
    tmp_path: Path, history: History, device: str, stored: bool
) -> None:
    folder, models = history
    where: Any = {"source": "m", "version": "1.2.0", "repository": folder}
    if not stored:
        where = {"source": write(models["1.2.0"], tmp_path / "model")}
    heard: list[Progress] = []
    load(**where, device=device, progress=heard.append)
    total = sum(map(len, expected(models["1.2.0"]).values()))
    assert [each.done_bytes for each in heard] == sorted(each.done_bytes for each in heard)
    assert {(each.stage, each.total_bytes) for each in heard} == {("load", total)}
    for stop in range(len(heard)):
        event = threading.Event()
        calls = 0

        def count(progress: Progress, at: int = stop, event: threading.Event = event) -> None:
            nonlocal calls
            calls += 1
            if calls > at:
                event.set()

        with pytest.raises(LoadCancelledError):
            load(**where, device=device, progress=count, cancelled=event)
    before = threading.Event()
    before.set()
    with pytest.raises(LoadCancelledError):
        load(**where, device=device, cancelled=before)
    with pytest.raises(LoadTimeoutError):
        load(**where, device=device, timeout_s=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_an_error_of_the_callers_own(history: History, device: str) -> None:
    def fail(progress: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load("m", "1.2.0", repository=history[0], device=device, progress=fail)


def test_the_least_memory_will_do(history: History) -> None:
    folder, models = history
    loaded = load("m", "2.0.0", repository=folder, memory_budget_bytes=_LEAST_BUDGET_BYTES, threads=8)
    assert all_bytes(loaded) == expected(models["2.0.0"])
