"""How near the codec comes to what the bytes of quantised tensors can take, counted here from their frequencies.

A symbol is a byte, with a distribution of its own for each byte of a word: what a table a plane can know.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from codec.inputs import ISAS, decoded, forced, modes
from textnlp_fast.delta import codec

Matrix = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

# Of the limit, and bytes of the frame's header: what tables, states and rounded shares may take.
MOST_OVER = 1.003
HEADER = 9


def entropy_bytes(data: Bytes, word: int = 1) -> float:
    """The bytes that the bytes of ``data`` take under their frequencies, place by place in words of ``word``."""
    total = 0.0
    for place in range(word):
        symbols = data[place::word].tolist()
        for count in Counter(symbols).values():
            total += count * math.log2(len(symbols) / count)
    return total / 8


def weights(seed: int, rows: int = 1024, columns: int = 1024) -> Matrix:
    """Normal, with rows of different sizes, as those of trained matrices are."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(-4, 0.3, (rows, 1)))
    return (rng.normal(0, 1, (rows, columns)) * sizes).astype(np.float32)


def moved(matrix: Matrix, share: float) -> Matrix:
    rng = np.random.default_rng(9)
    return (matrix + rng.normal(0, share, matrix.shape) * np.abs(matrix).mean()).astype(np.float32)


def int4(matrix: Matrix) -> Bytes:
    groups = matrix.reshape(-1, 128)
    codes = np.rint(groups / (np.abs(groups).max(axis=1, keepdims=True) / 7.5)).clip(-8, 7).astype(np.int8)
    pairs = (codes + 8).astype(np.uint8).reshape(-1, 2)
    return (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8)


def int4_words(matrix: Matrix) -> Bytes:
    """Eight inputs of an output to a word, the outputs side by side, as GPTQ has them."""
    low = int4(matrix).reshape(matrix.shape[0], -1, 4)
    return np.ascontiguousarray(low.transpose(1, 0, 2)).reshape(-1)


def mx(matrix: Matrix, kind: npt.DTypeLike, top: int) -> tuple[Bytes, Bytes]:
    """Elements of an MX format, a byte each, and the exponents that 32 of them share."""
    blocks = matrix.reshape(-1, 32)
    shared = np.frexp(np.abs(blocks).max(axis=1))[1] - 1 - top
    codes = np.ldexp(blocks, -shared[:, None]).astype(kind).view(np.uint8)
    return codes.reshape(-1), (shared + 127).astype(np.uint8)


def mxfp4(matrix: Matrix) -> Bytes:
    codes = mx(matrix, ml_dtypes.float4_e2m1fn, 2)[0].reshape(-1, 2)
    return (codes[:, 0] & 15 | codes[:, 1] << 4).astype(np.uint8)


def e8m0(matrix: Matrix) -> Bytes:
    """Exponents of as many blocks as fill a frame."""
    return np.concatenate([mx(np.roll(matrix, n), ml_dtypes.float8_e4m3fn, 8)[1] for n in range(32)])


def fp8(matrix: Matrix, kind: npt.DTypeLike) -> Bytes:
    scale = np.abs(matrix).max() / float(ml_dtypes.finfo(kind).max)
    return (matrix / scale).astype(kind).view(np.uint8).reshape(-1)


def int8(matrix: Matrix) -> Bytes:
    codes = np.rint(matrix / (np.abs(matrix).max(axis=1, keepdims=True) / 127)).astype(np.int8)
    return codes.view(np.uint8).reshape(-1)


LAYOUTS: dict[str, tuple[str, int, Callable[[Matrix], Bytes]]] = {
    "fp8 e4m3": ("F8_E4M3", 1, lambda matrix: fp8(matrix, ml_dtypes.float8_e4m3fn)),
    "fp8 e5m2": ("F8_E5M2", 1, lambda matrix: fp8(matrix, ml_dtypes.float8_e5m2)),
    "MXFP8": ("F8_E4M3", 1, lambda matrix: mx(matrix, ml_dtypes.float8_e4m3fn, 8)[0]),
    "E8M0": ("OPAQUE", 1, e8m0),
    "int8": ("I8", 1, int8),
    "int4 in bytes": ("U8", 1, int4),
    "int4 in words": ("I32", 4, int4_words),
    "int4 in long words": ("I64", 8, int4_words),
    "MXFP4": ("U8", 1, mxfp4),
}
PACKED = ("int4 in bytes", "int4 in words", "int4 in long words", "MXFP4")


@pytest.mark.parametrize("name", LAYOUTS)
def test_alone_at_the_limit(name: str) -> None:
    dtype, word, make = LAYOUTS[name]
    data = make(weights(1))
    limit = entropy_bytes(data, word)
    payload = codec.encode(data, dtype=dtype)
    assert len(payload) <= MOST_OVER * limit + HEADER * len(codec.frames(payload))
    for isa in ISAS:
        with forced(isa):
            assert codec.encode(data, dtype=dtype) == payload
            assert decoded(payload, data.nbytes) == data.tobytes()


def nibble_steps(target: Bytes, base: Bytes) -> Bytes:
    """What each half of a byte moved by, modulo 16."""
    halves = [np.stack([side & 15, side >> 4], axis=1).reshape(-1) for side in (target, base)]
    return (halves[0] - halves[1]) & 15


@pytest.mark.parametrize("share", [0.002, 0.02, 0.1, 0.5, 3])
@pytest.mark.parametrize("name", PACKED)
def test_packed_deltas_as_good_as_halves_of_bytes(name: str, share: float) -> None:
    dtype, word, make = LAYOUTS[name]
    old = weights(2)
    base, target = make(old), make(moved(old, share))
    payload = codec.encode(target, base, dtype=dtype)
    assert decoded(payload, target.nbytes, base.tobytes()) == target.tobytes()
    by_halves = entropy_bytes(nibble_steps(target, base))
    assert len(payload) <= 1.02 * min(by_halves, entropy_bytes(target, word)) + 400


@pytest.mark.parametrize("name", PACKED)
def test_requantised_packed_tensors_are_differences(name: str) -> None:
    """Many small moves: where no places are told, the difference is."""
    dtype, _, make = LAYOUTS[name]
    old = weights(3)
    base, target = make(old), make(moved(old, 0.3))
    payload = codec.encode(target, base, dtype=dtype)
    assert set(modes(payload)) == {"difference"}
    held = bytearray(base.tobytes())
    codec.decode_into(payload, held, held)
    assert bytes(held) == target.tobytes()


def test_numbers_in_words_stay_numbers() -> None:
    """Words that count are not taken for packed ones."""
    base = np.arange(0, 1 << 20, 16, dtype="<i4") * 7
    target = base + np.random.default_rng(1).integers(-100, 100, base.size, dtype=np.int32)
    payload = codec.encode(target, base, dtype="I32")
    assert {frame.dtype for frame in codec.frames(payload)} == {"I32"}
    assert len(payload) < 1.02 * base.size + 400  # 200 values take 7.6 bits


def test_widened_floats_are_seen_through() -> None:
    """bf16 in fp32, from one version to the next: as small as fp32 alone, and as bytes."""
    rng = np.random.default_rng(1)
    narrow = rng.normal(0, 1, 1 << 16).astype(ml_dtypes.bfloat16)
    later = (narrow.astype(np.float32) * rng.normal(1, 0.01, narrow.size)).astype(ml_dtypes.bfloat16)
    base, target = (side.astype("<f4").tobytes() for side in (narrow, later))
    payload = codec.encode(target, base, dtype="F32")
    assert decoded(payload, len(target), base) == target
    assert len(payload) < 0.7 * len(codec.encode(target, dtype="F32"))
    assert len(payload) < 1.05 * len(codec.encode(target, base, dtype="U8"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_never_larger_than_raw_and_a_header(name: str) -> None:
    dtype, word, make = LAYOUTS[name]
    whole = make(weights(4, 64, 256))
    noise = np.random.default_rng(4).integers(0, 256, whole.size, dtype=np.uint8)
    for data in (whole, noise):
        for count in (1, 31, 33, 500, 1027):
            part = data[: count * word]
            payload = codec.encode(part, dtype=dtype)
            assert len(payload) <= part.size + HEADER
            assert decoded(payload, part.size) == part.tobytes()
