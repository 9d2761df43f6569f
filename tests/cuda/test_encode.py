"""Frames encoded on a device are the core's, byte by byte: golden vectors, every type and change, many at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codec.devices import INFO, NO_DEVICE, Bytes, to_device, to_host
from codec.inputs import BASES, CHANGES, DTYPES, coders, modes, pair, pairs, stepped
from codec.test_vectors import INDEX, part
from textnlp_fast.delta import codec
from textnlp_fast.errors import InvalidInputError

pytestmark = [pytest.mark.gpu, NO_DEVICE]

# Steps of a fiber are slow: long vectors have shorter twins.
LONG = 1 << 18
VECTORS = [v for v in INDEX if v["encode"] and (not INFO["emulated"] or v["size"] <= LONG)]
CHECKPOINTS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "checkpoints"


def array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8).copy()


def on_device(data: bytes | None, offset: int = 0) -> Any:
    return None if data is None else to_device(array(data), offset=offset)


def encoded(target: bytes, base: bytes | None, dtype: str, frame: int = 1 << 20, offset: int = 0) -> bytes:
    """Through a buffer in host memory, its end checked to be as it was."""
    bound = codec.encode_bound(len(target), frame_size_bytes=frame)
    out = np.full(bound, 0xA5, np.uint8)
    written = codec.encode_into(
        on_device(target, offset), out, on_device(base, offset), dtype=dtype, frame_size_bytes=frame
    )
    assert (out[written:] == 0xA5).all()
    return out[:written].tobytes()


def agrees(target: bytes, base: bytes | None, dtype: str, frame: int = 1 << 20, offset: int = 0) -> bytes:
    expected = codec.encode(target, base, dtype=dtype, frame_size_bytes=frame)
    found = encoded(target, base, dtype, frame, offset)
    assert modes(found) == modes(expected)
    assert found == expected
    return found


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    base = None if vector["base"] is None else part(vector["base"])
    found = encoded(part(vector["target"]), base, vector["dtype"], vector["frame_size"], vector["size"] % 5)
    assert found == part(vector["payload"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_change(dtype: str) -> None:
    for n, change in enumerate(sorted(CHANGES)):
        target, base = pair(dtype, 1500, n, "weights", change)
        agrees(target, base, dtype, frame=4096, offset=n % 4)
    for n, kind in enumerate(sorted(BASES)):
        _, base = pair(dtype, 1500, n, kind, "sparse")
        agrees(base, None, dtype, frame=4096, offset=n % 3)


@settings(max_examples=60, deadline=None)
@example(("BF16", b"", b""), 64, 0, True)
@example(("F64", b"12345678", b"12345679"), 64, 1, True)
@given(pairs(), st.sampled_from([64, 128, 4096, 1 << 20]), st.integers(0, 9), st.booleans())
def test_any_pair(pair_of: tuple[str, bytes, bytes], frame: int, offset: int, with_base: bool) -> None:
    dtype, target, base = pair_of
    agrees(target, base if with_base else None, dtype, frame, offset)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_steps(dtype: str) -> None:
    found = set()
    for seed, (size, odd, still) in enumerate(
        [(1e-3, 0, 0), (1e-4, 0.01, 0.3), (3e-5, 0.002, 0), (1e-3, 0.2, 0)]
    ):
        _, base = pair(dtype, 3000, seed, "weights", "sparse")
        target = stepped(dtype, base, size, seed, stay=0.1 * (seed % 2), odd=odd, still=still)
        found |= set(coders(agrees(target, base, dtype)))
    assert 2 in found


@pytest.mark.parametrize(
    ("dtype", "change", "mode"),
    [
        ("BF16", "sparse", "sparse"),
        ("BF16", "dense", "delta"),
        ("U8", "nibbles", "difference"),
        ("I32", "dense", "delta"),
        ("F32", "wide", "delta"),
    ],
)
def test_long_frames(dtype: str, change: str, mode: str) -> None:
    """Planes are sampled, blocks glanced at, elements coded in lanes only where there are many."""
    target, base = pair(dtype, 70000, 7, "weights", change)
    agrees(target, None, dtype)
    assert mode in modes(agrees(target, base, dtype, offset=1))


def test_many_at_once_there_and_here() -> None:
    rng = np.random.default_rng(5)
    cases = []
    for n in range(120):
        dtype = DTYPES[n % len(DTYPES)]
        change = sorted(CHANGES)[n % len(CHANGES)]
        target, base = pair(dtype, int(rng.integers(0, 300)), n, "weights", change)
        cases.append((dtype, target, None if n % 3 == 0 else base))
    expected = [codec.encode(target, base, dtype=dtype) for dtype, target, base in cases]
    targets = [
        to_device(array(target), offset=n % 7, interface=True) for n, (_, target, _) in enumerate(cases)
    ]
    bases = [on_device(base, n % 3) for n, (_, _, base) in enumerate(cases)]
    assert codec.encode_many(targets, bases, dtypes=[case[0] for case in cases]) == expected
    assert (
        codec.encode_many([c[1] for c in cases], [c[2] for c in cases], dtypes=[c[0] for c in cases])
        == expected
    )
    target, base = pair("BF16", 3000, 1, "weights", "dense")
    out = to_device(np.full(codec.encode_bound(6000, frame_size_bytes=512), 0xA5, np.uint8), offset=3)
    written = codec.encode_into(on_device(target), out, on_device(base), dtype="BF16", frame_size_bytes=512)
    wanted = codec.encode(target, base, dtype="BF16", frame_size_bytes=512)
    assert to_host(out)[:written].tobytes() == wanted
    assert (to_host(out)[written:] == 0xA5).all()


@pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason="no checkpoints here")
@pytest.mark.parametrize("name", ["rl_0100", "rl_0101", "sft_0001", "pre_0700"])
def test_checkpoints(name: str) -> None:
    """The first of each of the larger tensors, as much as the emulator is quick with."""
    old, new = (Path(CHECKPOINTS / f"{which}.safetensors").read_bytes() for which in ("base", name))
    head = [json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]) for data in (old, new)]
    shared = [key for key in head[0] if key != "__metadata__" and head[0][key] == head[1].get(key)]
    for key in sorted(shared, key=lambda key: -head[0][key]["data_offsets"][1])[:3]:
        at = head[0][key]["data_offsets"][0]
        size = min(head[0][key]["data_offsets"][1] - at, 1 << 16)
        parts = [data[8 + int.from_bytes(data[:8], "little") + at :][:size] for data in (old, new)]
        agrees(parts[1], parts[0], head[0][key]["dtype"], offset=2)


def test_wrong_calls() -> None:
    data = np.arange(256, dtype=np.uint8)
    there = to_device(data, interface=True)
    with pytest.raises(InvalidInputError, match="encode_bound"):
        codec.encode_into(there, np.zeros(100, np.uint8), dtype="U8")
    with pytest.raises(InvalidInputError, match="size"):
        codec.encode(there, to_device(data[:128]), dtype="U8")
    with pytest.raises(InvalidInputError, match="host memory"):
        codec.encode(there, data, dtype="U8")
    with pytest.raises(InvalidInputError, match="multiple of 64"):
        codec.encode(there, dtype="U8", frame_size_bytes=100)
    with pytest.raises(InvalidInputError, match="multiple of the element"):
        codec.encode(to_device(data[:3], interface=True), dtype="BF16")
    with pytest.raises(InvalidInputError, match="as many"):
        codec.encode_many([there], dtypes=["U8", "U8"])
    with pytest.raises(InvalidInputError, match="multiple of the element") as caught:
        codec.encode_many([there, to_device(data[:3], interface=True)], dtypes=["U8", "BF16"])
    assert caught.value.job == 1
    assert codec.encode_many([], dtypes=[]) == []
