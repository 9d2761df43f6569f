"""The doors: which buffers come in without a copy, and which are refused with a reason."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codec.inputs import DTYPES, ISAS, decoded, forced, pair
from reference.codec_elements import TYPES, ordered
from reference.codec_streams import elements
from textnlp_fast.delta import codec
from textnlp_fast.errors import InvalidInputError


def check(target: Any, base: Any, raw: tuple[bytes, bytes], dtype: str) -> None:
    expected = codec.encode(raw[0], raw[1], dtype=dtype)
    assert codec.encode(target, base, dtype=dtype) == expected
    assert decoded(expected, len(raw[0]), base) == raw[0]


def test_bytes_and_views_of_them() -> None:
    raw = pair("F32", 1000, 1)
    check(bytearray(raw[0]), memoryview(raw[1]), raw, "F32")
    wide = memoryview(bytearray(raw[0])).cast("f", (10, 100))
    check(wide, memoryview(raw[1]).cast("I"), raw, "F32")
    inside = memoryview(b"xyz" + raw[0] + b"!")[3:-1]
    check(inside, raw[1], raw, "F32")


@pytest.mark.parametrize("shape", [(1000,), (10, 100), (1, 10, 2, 50)])
def test_numpy_of_any_shape(shape: tuple[int, ...]) -> None:
    raw = pair("F32", 1000, 2)
    target, base = (np.frombuffer(part, dtype=np.float32).reshape(shape) for part in raw)
    check(target, base, raw, "F32")
    out = np.full(shape, np.nan, dtype=np.float32)
    codec.decode_into(codec.encode(target, base, dtype="F32"), out, base)
    assert out.tobytes() == raw[0]
    held = base.copy()
    codec.decode_into(codec.encode(target, base, dtype="F32"), held, held)
    assert held.tobytes() == raw[0]


def test_a_scalar_and_an_empty_array() -> None:
    assert decoded(codec.encode(np.array(1.5, dtype=np.float32), dtype="F32"), 4) == np.float32(1.5).tobytes()
    assert codec.encode(np.empty((0, 7), dtype=np.float32), dtype="F32") == b""
    codec.decode_into(b"", np.empty((3, 0), dtype=np.float32))


def test_mmap(tmp_path: Path) -> None:
    raw = pair("BF16", 5000, 3)
    (tmp_path / "target").write_bytes(raw[0])
    (tmp_path / "base").write_bytes(raw[1])
    with (
        (tmp_path / "target").open("rb") as target_file,
        (tmp_path / "base").open("r+b") as base_file,
        mmap.mmap(target_file.fileno(), 0, access=mmap.ACCESS_READ) as target,
        mmap.mmap(base_file.fileno(), 0) as base,
    ):
        check(target, base, raw, "BF16")
        codec.decode_into(codec.encode(target, base, dtype="BF16"), base, base)
        base.flush()
    assert (tmp_path / "base").read_bytes() == raw[0]


def test_ctypes_array() -> None:
    raw = pair("I32", 256, 4)
    target = (ctypes.c_int32 * 256).from_buffer_copy(raw[0])
    check(memoryview(target), raw[1], raw, "I32")


def test_ml_dtypes_arrays() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    for dtype, kind in (("BF16", ml_dtypes.bfloat16), ("F8_E4M3", ml_dtypes.float8_e4m3fn)):
        raw = pair(dtype, 1000, 5)
        target, base = (np.frombuffer(part, dtype=kind) for part in raw)
        check(target, base, raw, dtype)


def test_torch_tensors_with_bfloat16() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    raw = pair("BF16", 6000, 6)
    target, base = (torch.frombuffer(bytearray(part), dtype=torch.bfloat16).reshape(60, 100) for part in raw)
    check(target, base, raw, "BF16")
    out = torch.zeros_like(base)
    payload = codec.encode(target, base, dtype="BF16")
    codec.decode_into(payload, out, base)
    assert torch.equal(out.view(torch.int16), target.view(torch.int16))
    held = base.clone()
    codec.decode_into(payload, held, held)
    assert torch.equal(held.view(torch.int16), target.view(torch.int16))
    with pytest.raises(InvalidInputError, match="contiguous"):
        codec.encode(target.T, dtype="BF16")
    with pytest.raises(InvalidInputError, match="contiguous"):
        codec.decode_into(payload, out.T, base)


@pytest.mark.parametrize("dtype", ["U8", "BF16", "F32", "F64"])
@pytest.mark.parametrize("shift", [1, 3, 7, 31, 63])
def test_odd_addresses(dtype: str, shift: int) -> None:
    """Safetensors does not align tensors: everything works at any address, and writes nowhere else."""
    target, base = pair(dtype, 3001, shift)
    for change in (target, base):
        payload = codec.encode(change, base, dtype=dtype, frame_size_bytes=4096)
        for isa in ISAS:
            with forced(isa):
                far = shifted(change, shift), shifted(base, 63 - shift)
                assert codec.encode(*far, dtype=dtype, frame_size_bytes=4096) == payload
                room = np.full(len(target) + 256, 0xA5, dtype=np.uint8)
                codec.decode_into(
                    shifted(payload, shift + 1), room[128 + shift : 128 + shift + len(target)], far[1]
                )
                assert room[128 + shift : 128 + shift + len(target)].tobytes() == change
                assert (room[: 128 + shift] == 0xA5).all()
                assert (room[128 + shift + len(target) :] == 0xA5).all()


def shifted(data: bytes, by: int) -> Any:
    """``data`` at an address that is ``by`` past a multiple of 64."""
    room = np.empty(len(data) + 128, dtype=np.uint8)
    begin = -room.ctypes.data % 64 + by
    room[begin : begin + len(data)] = np.frombuffer(data, dtype=np.uint8)
    view = room[begin : begin + len(data)]
    assert view.ctypes.data % 64 == by % 64
    return view


def test_arrays_that_are_not_contiguous_are_refused() -> None:
    strided = np.zeros(200, dtype=np.float32)[::2]
    fortran = np.zeros((4, 8), dtype=np.float32, order="F")
    for array in (strided, fortran):
        with pytest.raises(InvalidInputError, match=r"target.*contiguous"):
            codec.encode(array, dtype="F32")
        with pytest.raises(InvalidInputError, match=r"base.*contiguous"):
            codec.encode(array.copy("C"), array, dtype="F32")
        payload = codec.encode(array.copy("C"), dtype="F32")
        with pytest.raises(InvalidInputError, match=r"out.*contiguous"):
            codec.decode_into(payload, array)
    with pytest.raises(InvalidInputError, match=r"payload.*contiguous"):
        codec.decode_into(memoryview(b"ab" * 20)[::2], bytearray(20))


def test_outputs_that_cannot_be_written_are_refused() -> None:
    payload = codec.encode(b"abcd", dtype="U8")
    frozen = np.zeros(4, dtype=np.uint8)
    frozen.flags.writeable = False
    for out in (b"1234", memoryview(b"1234"), frozen):
        with pytest.raises(InvalidInputError, match=r"out.*writable"):
            codec.decode_into(payload, out)
        with pytest.raises(InvalidInputError, match=r"out.*writable"):
            codec.encode_into(b"", out, dtype="U8")


def test_what_is_no_buffer_is_refused() -> None:
    for thing in (object(), 7, "text", None, [1, 2]):
        with pytest.raises((InvalidInputError, TypeError)):
            codec.encode(thing, dtype="U8")
        with pytest.raises((InvalidInputError, TypeError)):
            codec.decode_into(b"", thing)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_that_do_not_fit_are_refused(dtype: str) -> None:
    size = TYPES[dtype].size
    target, base = pair(dtype, 100, 1)
    with pytest.raises(InvalidInputError, match="differ in size"):
        codec.encode(target, base[:-size], dtype=dtype)
    with pytest.raises(InvalidInputError, match="differ in size"):
        codec.encode(target, base + bytes(size), dtype=dtype)
    payload = codec.encode(target, base, dtype=dtype)
    with pytest.raises(InvalidInputError, match="differ in size"):
        codec.decode_into(payload, bytearray(len(target)), base[:-size])
    if size > 1:
        with pytest.raises(InvalidInputError, match="multiple of the element size"):
            codec.encode(target[:-1], dtype=dtype)
    with pytest.raises(InvalidInputError, match="encode_bound"):
        codec.encode_into(target, bytearray(len(target)), dtype=dtype)


def test_a_delta_without_its_base_is_refused() -> None:
    target, base = pair("BF16", 3000, 1)
    for payload in (codec.encode(target, base, dtype="BF16"), codec.encode(base, base, dtype="BF16")):
        assert codec.scan(payload).needs_base
        out = bytearray(len(target))
        with pytest.raises(InvalidInputError, match="base"):
            codec.decode_into(payload, out)


def test_an_output_that_overlaps_the_base_is_refused() -> None:
    target, base = pair("BF16", 3000, 1)
    payload = codec.encode(target, base, dtype="BF16")
    room = np.zeros(2 * len(base), dtype=np.uint8)
    room[: len(base)] = np.frombuffer(base, dtype=np.uint8)
    for shift in (1, 64, len(base) - 1):
        with pytest.raises(InvalidInputError, match="overlaps"):
            codec.decode_into(payload, room[shift : shift + len(base)], room[: len(base)])
    codec.decode_into(payload, room[len(base) :], room[: len(base)])
    assert room[len(base) :].tobytes() == target


def test_an_output_that_overlaps_the_input_is_refused() -> None:
    room = np.zeros(4096, dtype=np.uint8)
    for at in (0, 1, 999):
        with pytest.raises(InvalidInputError, match="overlaps"):
            codec.encode_into(room[:1000], room[at : at + 1100], dtype="U8")
        with pytest.raises(InvalidInputError, match="overlaps"):
            codec.encode_into(bytes(1000), room[at : at + 1100], room[:1000], dtype="U8")
    written = codec.encode_into(room[:1000], room[1000:2100], dtype="U8")
    payload = room[1000 : 1000 + written]
    for begin in (1, 1000, 1000 + written - 1):
        with pytest.raises(InvalidInputError, match="overlaps"):
            codec.decode_into(payload, room[begin : begin + 1000])
    codec.decode_into(payload, room[2100:3100])


def test_arguments_out_of_range_are_refused() -> None:
    for frame_size in (0, 1, 63, 65, (1 << 24) + 64):
        with pytest.raises(InvalidInputError, match="frame size"):
            codec.encode(b"abcd", dtype="U8", frame_size_bytes=frame_size)
    for frame_size in (-1, 1 << 70):
        with pytest.raises((InvalidInputError, TypeError, OverflowError)):
            codec.encode(b"abcd", dtype="U8", frame_size_bytes=frame_size)
    with pytest.raises((InvalidInputError, TypeError)):
        codec.encode(b"abcd", dtype="U8", threads=-1)
    with pytest.raises(InvalidInputError, match="OPAQUE"):
        codec.encode(b"abcd", dtype="F4")


@pytest.mark.parametrize("dtype", DTYPES)
def test_diff_counts_steps_between_neighbours(dtype: str) -> None:
    target, base = pair(dtype, 2000, 9, "weights", "sparse")
    steps = [abs(a - b) for a, b in zip(places(target, dtype), places(base, dtype), strict=True)]
    found = codec.diff(target, base, dtype=dtype)
    assert found.elements == len(steps)
    assert found.changed == sum(1 for step in steps if step)
    assert found.max_ulp == max(steps)
    assert found.mean_abs_ulp == pytest.approx(sum(steps) / len(steps))


def places(data: bytes, dtype: str) -> list[int]:
    """Where each element stands among the values of its type."""
    element = TYPES[dtype]
    if dtype in ("I8", "I16", "I32", "I64"):
        return [int(value) for value in np.frombuffer(data, dtype=dtype.lower().replace("i", "int"))]
    return [ordered(value, element) for value in elements(data, element.size)]


def test_diff_refuses_different_sizes() -> None:
    with pytest.raises(InvalidInputError, match="differ in size"):
        codec.diff(b"12", b"123", dtype="U8")
    with pytest.raises(InvalidInputError, match="multiple of the element size"):
        codec.diff(b"123", b"123", dtype="U16")
