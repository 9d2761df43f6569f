"""Steps of real training on a device: decoded, compared, hashed and cut as the core does. Needs the shared data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codec.devices import INFO, NO_DEVICE, Bytes, to_device, to_host
from textnlp_fast import chunking, hashing
from textnlp_fast.delta import codec
from textnlp_fast.tensors import SafetensorsFile

CHECKPOINTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "checkpoints"
pytestmark = [
    pytest.mark.gpu,
    NO_DEVICE,
    pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason="the shared checkpoints are not here"),
]

# The emulator takes some 5 us an element: a part of every tensor, of two frames.
MOST_BYTES = 20_000 if INFO["emulated"] else 1 << 30
PAIRS = [
    ("base", "rl_0001"),
    ("rl_0100", "rl_0101"),
    ("base", "sft_0010"),
    ("base", "sft_0100"),
    ("pre_0600", "pre_0700"),
    ("base", "lora_f32"),
]


def tensors(name: str) -> list[Bytes]:
    file = SafetensorsFile.open(CHECKPOINTS / f"{name}.safetensors")
    data = np.fromfile(file.path, np.uint8)
    return [data[tensor.begin : tensor.end][:MOST_BYTES].copy() for tensor in file.tensors]


@pytest.mark.parametrize("pair", PAIRS, ids=" -> ".join)
def test_a_step(pair: tuple[str, str]) -> None:
    before, after = tensors(pair[0]), tensors(pair[1])
    frame = 10_048 if INFO["emulated"] else codec.DEFAULT_FRAME_SIZE_BYTES
    payloads = [
        codec.encode(new, old, dtype="BF16", frame_size_bytes=frame)
        for old, new in zip(before, after, strict=True)
    ]
    arrays, expected = [to_device(old) for old in before], [to_device(new) for new in after]
    for old, new, a, b in zip(before, after, arrays, expected, strict=True):
        assert codec.diff(a, b, dtype="BF16") == codec.diff(old, new, dtype="BF16")
    codec.decode_many(payloads, arrays, arrays)
    for new, array in zip(after, arrays, strict=True):
        assert to_host(array).tobytes() == new.tobytes()
    assert hashing.blake3_many(arrays) == hashing.blake3_many(after)


def test_without_a_base() -> None:
    data = tensors("base")
    outs = [to_device(np.zeros(tensor.nbytes, np.uint8), offset=1) for tensor in data]
    codec.decode_many([codec.encode(tensor, dtype="BF16") for tensor in data], outs)
    assert [to_host(out).tobytes() for out in outs] == [tensor.tobytes() for tensor in data]


def test_files_are_cut_and_hashed() -> None:
    for name in ("base", "rl_0101"):
        data = np.fromfile(CHECKPOINTS / f"{name}.safetensors", np.uint8)
        array = to_device(data, offset=1)
        assert chunking.boundaries(array).tolist() == chunking.boundaries(data).tolist()
        if not INFO["emulated"]:
            assert hashing.xet_hash(array) == hashing.xet_hash(data)
