"""Weights on a device get new bytes where they lie, by the same steps as those in host memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textnlp_fast
from codec.devices import INFO, NO_DEVICE, to_device, to_host
from delta.models import Model, Tensor, make, nudged, weights, write
from loading.swaps import ERRORS, Trap, data_of, resident
from textnlp_fast import _native
from textnlp_fast.errors import (
    CorruptDataError,
    DeviceError,
    InvalidInputError,
    SwapCancelledError,
    WrongBaseError,
)
from textnlp_fast.storage import Repository, TransferOptions

pytestmark = [pytest.mark.gpu, NO_DEVICE]


def on_device(model: Model, *, offset: int = 0) -> dict[str, Any]:
    return {
        name: to_device(data, offset=offset, interface=bool(n % 2))
        for n, (name, data) in enumerate(resident(model).items())
    }


def bytes_of(loaded: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: to_host(array).tobytes() for name, array in loaded.items()}


def swap(loaded: Any, update: Any, **options: Any) -> Any:
    return textnlp_fast.swap(loaded, update, **{"memory_budget_bytes": 64 << 20, "threads": 2, **options})


def models() -> tuple[Model, Model]:
    """Every way a tensor is made: a delta, nothing old, a copy of another, one turned round, one that stays."""
    a, b = weights(1, rows=24), weights(2, rows=24)
    square = np.frombuffer(weights(4, rows=128).data, np.uint16).reshape(128, 128)
    old = {
        "delta": a,
        "fresh": weights(3, rows=8),
        "left": b,
        "right": weights(5, rows=24),
        "turned": Tensor("BF16", (128, 128), square.tobytes()),
        "norm": Tensor("F32", (3,), bytes(12)),
        "count": Tensor("I64", (), bytes(8)),
        "stays": weights(6, rows=4),
    }
    new = {
        **old,
        "delta": nudged(a, 1),
        "fresh": weights(9, rows=8),
        "left": old["right"],
        "right": nudged(b, 7),
        "turned": Tensor("BF16", (128, 128), square.T.tobytes()),
        "norm": Tensor("F32", (3,), b"\x01" * 12),
        "count": Tensor("I64", (), b"\x07" + bytes(7)),
    }
    return {"model.safetensors": old}, {"model.safetensors": new}


@pytest.mark.parametrize("offset", [0, 2])
def test_a_patch(tmp_path: Path, offset: int) -> None:
    old, new = models()
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    loaded = on_device(old, offset=offset)
    report = swap(loaded, patch)
    assert bytes_of(loaded) == data_of(resident(new))
    assert (report.tensors, report.changed_tensors) == (8, 7)
    with pytest.raises(WrongBaseError) as caught:
        swap(loaded, patch)
    assert caught.value.is_target


def test_versions_of_a_repository(tmp_path: Path) -> None:
    options = TransferOptions(shard_bytes=1 << 16, threads=2, prices=None)
    repository = Repository.open(tmp_path / "r", create=True, options=options, window_bytes=1 << 12)
    first, second = models()
    third: Model = {"model.safetensors": {**second["model.safetensors"], "delta": weights(8, rows=24)}}  # type: ignore[dict-item]
    third["model.safetensors"]["left"] = nudged(second["model.safetensors"]["left"], 3)  # type: ignore[index]
    for n, model in enumerate((first, second, third)):
        repository.push(write(model, tmp_path / f"v{n}"), "m", f"1.{n}.0")
    loaded = on_device(first)
    for n, model in ((2, third), (0, first), (1, second)):
        swap(loaded, f"m@1.{n}.0", repository=repository)
        assert bytes_of(loaded) == data_of(resident(model)), n


def test_some_on_the_host_and_some_on_the_device(tmp_path: Path) -> None:
    old, new = models()
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    host, device = resident(old), on_device(old)
    loaded = {name: (host if n % 3 else device)[name] for n, name in enumerate(host)}
    swap(loaded, patch)
    found = {
        name: array.tobytes() if isinstance(array, np.ndarray) else to_host(array).tobytes()
        for name, array in loaded.items()
    }
    assert found == data_of(resident(new))


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    embedding, moved = weights(3, rows=8), nudged(weights(3, rows=8), 4)
    old: Model = {"model.safetensors": {"embed": embedding, "head": embedding}}
    new: Model = {"model.safetensors": {"embed": moved, "head": moved}}
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    shared = to_device(resident(old)["embed"])
    report = swap({"embed": shared, "head": shared}, patch)
    assert report.changed_tensors == 1
    assert to_host(shared).tobytes() == moved.data


@pytest.mark.parametrize("make_error", [*ERRORS, lambda: DeviceError("the device fell off the bus")])
def test_a_failure_anywhere_leaves_the_old_weights(tmp_path: Path, make_error: Any) -> None:
    a, b = weights(1, rows=20), weights(2, rows=4)
    old: Model = {"model.safetensors": {"a": a, "b": b, "c": Tensor("F32", (3,), bytes(12))}}
    new: Model = {
        "model.safetensors": {
            "a": nudged(a, 1),
            "b": weights(7, rows=4),
            "c": Tensor("F32", (3,), b"\x01" * 12),
        }
    }
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    before, after = data_of(resident(old)), data_of(resident(new))
    at = 0
    while True:
        at += 1
        loaded = on_device(old)
        with pytest.MonkeyPatch.context() as patched:
            trap = Trap(patched, at, make_error())
            try:
                swap(loaded, patch, undo_budget_bytes=100)
            except BaseException as error:  # noqa: BLE001  (interrupts too)
                cause: BaseException | None = error
                while cause is not None and cause is not trap.error:
                    cause = cause.__cause__
                assert cause is trap.error or isinstance(error, SwapCancelledError)
                assert bytes_of(loaded) == before, f"call {at}"
                continue
        assert not trap.sprung
        assert bytes_of(loaded) == after
        break
    assert at > 15


def test_a_bad_frame_in_the_middle_names_its_tensor(tmp_path: Path) -> None:
    a = weights(1, rows=24)
    old: Model = {"model.safetensors": {"a": a, "b": weights(2, rows=24)}}
    new: Model = {"model.safetensors": {"a": nudged(a, 1), "b": weights(9, rows=24)}}
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    loaded = on_device(old)
    decode = textnlp_fast.delta.codec.decode_many

    def damage(payloads: Any, outs: Any, bases: Any, **options: Any) -> None:
        if bases[0] is None:
            payloads = [bytes(payloads[0][:-3]) + b"\xff\xff\xff", *payloads[1:]]
        decode(payloads, outs, bases, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(textnlp_fast.delta.codec, "decode_many", damage)
        with pytest.raises(CorruptDataError, match="'b'") as caught:
            swap(loaded, patch)
    assert "old weights are in place" in caught.value.hint
    assert bytes_of(loaded) == data_of(resident(old))


@pytest.mark.skipif(not INFO["emulated"], reason="a real device would have to be full")
def test_a_device_without_memory_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = models()
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    loaded = on_device(old)

    def full(size_bytes: int, device: int, stream: int) -> Any:
        raise MemoryError("the device has no memory left for this call")

    monkeypatch.setattr(_native, "DeviceMemory", full)
    with pytest.raises(DeviceError, match="no 135168 bytes left"):
        swap(loaded, patch)
    assert bytes_of(loaded) == data_of(resident(old))


def test_memory_that_cannot_be_swapped(tmp_path: Path) -> None:
    old, new = models()
    patch = make(write(old, tmp_path / "old"), write(new, tmp_path / "new"), tmp_path / "p.tnpatch")
    loaded = on_device(old)
    frozen = resident(old)["norm"]
    frozen.flags.writeable = False
    if INFO["emulated"]:
        from codec.devices import InterfaceArray  # noqa: PLC0415

        with pytest.raises(InvalidInputError, match="'norm' cannot be written"):
            swap({**loaded, "norm": InterfaceArray(frozen)}, patch)
    with pytest.raises(InvalidInputError, match="bytes in memory"):
        swap({**loaded, "norm": to_device(np.zeros(16, np.uint8))}, patch)
    assert bytes_of(loaded) == data_of(resident(old))
