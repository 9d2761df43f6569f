"""What the tests of loading share: versions of a small model, devices to load to, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codec.devices import NO_DEVICE
from delta.models import Model, Tensor, nudged, weights, write
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.tensors.device_memory import DeviceArray

#: The same test on the processor and, where there is one, on a device.
DEVICES = ["cpu", pytest.param("cuda:0", marks=[pytest.mark.gpu, NO_DEVICE])]
WINDOW = 1 << 12
OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)


def bytes_of(loaded: Any) -> bytes:
    if isinstance(loaded, DeviceArray):
        return bytes(loaded.to_host())
    if isinstance(loaded, np.ndarray):
        return loaded.tobytes()
    import torch  # noqa: PLC0415

    return bytes(loaded.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())


def all_bytes(loaded: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: bytes_of(tensor) for name, tensor in loaded.items()}


def expected(model: Model) -> dict[str, bytes]:
    return {
        name: tensor.data
        for file in model.values()
        if isinstance(file, dict)
        for name, tensor in file.items()
    }


def first_version() -> Model:
    """Two files; tied tensors, one without elements, a scalar, small ones of several types."""
    q = weights(1)
    return {
        "model-1.safetensors": {"q": q, "tied": q, "k": weights(2), "v": weights(3)},
        "model-2.safetensors": {
            "norm": Tensor("F32", (3,), bytes(range(12))),
            "step": Tensor("I64", (), b"\x07" + bytes(7)),
            "nothing": Tensor("F32", (0, 4), b""),
            "scale": Tensor("F8_E4M3", (5,), b"\x30\x31\x32\x33\x34"),
            "mask": Tensor("BOOL", (4,), b"\x01\x00\x01\x01"),
        },
        "config.json": b"{}",
    }


def later_version(model: Model, seed: int) -> Model:
    """Some tensors a little changed."""
    first = dict(model["model-1.safetensors"])  # type: ignore[arg-type]
    first["q"] = nudged(first["q"], seed)
    first["k"] = nudged(first["k"], seed + 1)
    if seed % 2:
        first["tied"] = first["q"]
    return {**model, "model-1.safetensors": first}


def fused_version(model: Model) -> Model:
    """Another layout: k and v are one tensor, a little changed."""
    first = dict(model["model-1.safetensors"])  # type: ignore[arg-type]
    parts = [first.pop(name) for name in ("k", "v")]
    first["kv"] = nudged(Tensor("BF16", (128, 128), b"".join(part.data for part in parts)), 77)
    return {**model, "model-1.safetensors": first}


def push_history(repository: Repository, folder: Path) -> dict[str, Model]:
    """1.0.0 to 1.3.0, a chain of deltas, and 2.0.0, whose base is a recipe."""
    models: dict[str, Model] = {}
    model = first_version()
    for number in range(4):
        models[f"1.{number}.0"] = model
        parent = None if number == 0 else f"1.{number - 1}.0"
        repository.push(write(model, folder / f"1.{number}"), "m", f"1.{number}.0", parent=parent)
        model = later_version(model, 10 * number + 3)
    models["2.0.0"] = fused_version(models["1.3.0"])
    repository.push(write(models["2.0.0"], folder / "2.0"), "m", "2.0.0", parent="1.3.0")
    return models


def flip(path: Path, position: int) -> None:
    """Damages one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 0x10
    path.write_bytes(data)
