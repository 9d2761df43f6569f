"""The CUDA twins: their arithmetic lane by lane, what they say without a device, the kernels with one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

from codec.devices import INFO, NO_DEVICE, address, to_device, to_host
from textnlp_fast import _native
from textnlp_fast.errors import DeviceError, InvalidInputError

WIDTHS = [1, 2, 4, 8]
F8_E4M3, F16, BF16, F32, U8 = 4, 8, 9, 12, 2


def ordered(bits: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
    """Place of a float in the order of all floats of its width, by the definition."""
    sign = bits.dtype.type(1 << (bits.dtype.itemsize * 8 - 1))
    return np.where(bits & sign, ~bits, bits | sign)


def patterns(width: int, seed: int) -> npt.NDArray[np.unsignedinteger]:
    """Random bits, and every pattern near zero, infinity, NaN and the two ends."""
    dtype = np.dtype(f"u{width}")
    top = 1 << (width * 8 - 1)
    edges = [
        value % (2 * top)
        for base in (0, top, top // 2, top + top // 2)
        for value in range(base - 3, base + 4)
    ]
    data = np.frombuffer(np.random.default_rng(seed).bytes(4096 * width), dtype)
    return np.concatenate([np.array(edges, dtype), data])


def lanes(
    operation: str, left: npt.NDArray[np.unsignedinteger], right: npt.NDArray[np.unsignedinteger]
) -> npt.NDArray[np.unsignedinteger]:
    out = np.empty_like(left)
    _native.twin_lanes(operation, left, right, out, left.dtype.itemsize)
    return out


@pytest.mark.parametrize("width", WIDTHS)
def test_difference_counts_the_floats_between(width: int) -> None:
    target, base = patterns(width, 1), np.roll(patterns(width, 2), 5)
    expected = ordered(target) - ordered(base)
    assert np.array_equal(lanes("ulp_difference", target, base), expected)
    assert np.array_equal(lanes("ulp_apply", base, expected), target)


def test_every_pair_of_bytes() -> None:
    target, base = (grid.ravel().astype(np.uint8) for grid in np.meshgrid(np.arange(256), np.arange(256)))
    difference = lanes("ulp_difference", target, base)
    assert np.array_equal(difference, ordered(target) - ordered(base))
    assert np.array_equal(lanes("ulp_apply", base, difference), target)


@pytest.mark.parametrize(("dtype", "width"), [(np.float16, 2), (np.float32, 4), (np.float64, 8)])
def test_neighbouring_floats_are_one_apart(dtype: type[np.floating], width: int) -> None:
    values = np.random.default_rng(3).standard_normal(1000).astype(dtype)
    following = np.nextafter(values, dtype(np.inf))
    bits = f"u{width}"
    assert (lanes("ulp_difference", following.view(bits), values.view(bits)) == 1).all()


def test_lanes_refuse_a_wrong_call() -> None:
    data = np.zeros(8, np.uint8)
    with pytest.raises(InvalidInputError, match="width"):
        _native.twin_lanes("ulp_apply", data, data, data.copy(), 3)
    with pytest.raises(InvalidInputError, match="differ in size"):
        _native.twin_lanes("ulp_apply", data, data[:4], data.copy(), 1)
    with pytest.raises(InvalidInputError, match="operation"):
        _native.twin_lanes("xor", data, data, data.copy(), 1)


def test_info_says_what_there_is() -> None:
    assert set(INFO) == {
        "compiled",
        "emulated",
        "runtime_version",
        "driver_version",
        "device_count",
        "reason",
    }
    assert (INFO["runtime_version"] > 0) == (INFO["compiled"] and not INFO["emulated"])
    assert bool(INFO["reason"]) == (INFO["device_count"] == 0)


def test_imports_where_no_device_is_visible() -> None:
    code = (
        "from textnlp_fast import _native; info = _native.cuda_info();"
        "assert info['device_count'] == 0 and info['reason']"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"CUDA_VISIBLE_DEVICES": "", "PATH": ""}, timeout=60
    )


@pytest.mark.skipif(INFO["device_count"] > 0, reason="a CUDA device is present")
def test_without_a_device_the_calls_say_so() -> None:
    data = np.zeros(64, np.uint8)
    address = data.ctypes.data
    with pytest.raises(DeviceError):
        _native.cuda_xor(address, address, address, 64, 0)


@pytest.mark.gpu
@NO_DEVICE
@pytest.mark.parametrize(
    ("dtype", "width", "is_float"),
    [(F8_E4M3, 1, True), (F16, 2, True), (BF16, 2, True), (F32, 4, True), (U8, 1, False)],
)
@pytest.mark.parametrize("offset", [0, 1])
def test_kernels_equal_the_definition(dtype: int, width: int, is_float: bool, offset: int) -> None:
    target, base = patterns(width, 1)[offset:], np.roll(patterns(width, 2), 5)[offset:]
    left, right = (to_device(array.view(np.uint8), offset=offset * width) for array in (target, base))
    out, back, mixed = (to_device(np.zeros(target.nbytes, np.uint8), offset=offset * width) for _ in range(3))
    stream = 0
    _native.cuda_ulp_difference(address(left), address(right), address(out), len(target), dtype, stream)
    _native.cuda_ulp_apply(address(right), address(out), address(back), len(target), dtype, stream)
    _native.cuda_xor(address(left), address(right), address(mixed), target.nbytes, stream)
    expected = ordered(target) - ordered(base) if is_float else target - base
    assert np.array_equal(to_host(out).view(target.dtype), expected)
    assert np.array_equal(to_host(back).view(target.dtype), target)
    assert np.array_equal(to_host(mixed).view(target.dtype), target ^ base)
