"""BLAKE3 and the statistics of changes on a device equal the core's."""

from __future__ import annotations

import numpy as np
import pytest

from codec.devices import NO_DEVICE, to_device
from textnlp_fast import hashing
from textnlp_fast.delta import codec
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.tensors.element_types import DTYPES

pytestmark = [pytest.mark.gpu, NO_DEVICE]

SIZES = [0, 1, 63, 64, 1024, 1025, 8192, 8193, 70_000, 262_144, 300_001]


def noise(size: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


@pytest.mark.parametrize("offset", [0, 1, 4])
def test_digests(offset: int) -> None:
    data = [noise(size, size) for size in SIZES]
    expected = [hashing.blake3(array) for array in data]
    assert hashing.blake3_many(data) == expected
    arrays = [to_device(array, offset=offset, interface=offset == 1) for array in data]
    assert hashing.blake3_many(arrays) == expected
    assert hashing.blake3(arrays[-1]) == expected[-1]
    assert hashing.blake3_hex(arrays[3]) == expected[3].hex()


def test_what_is_not_all_on_a_device() -> None:
    array = to_device(noise(10))
    with pytest.raises(InvalidInputError, match="host memory"):
        hashing.blake3_many([array, noise(10)])
    assert hashing.blake3_many([]) == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics(dtype: str) -> None:
    a, b = noise(40_000, 1), noise(40_000, 2)
    b[:30_000] = a[:30_000]
    expected = codec.diff(a, b, dtype=dtype)
    assert codec.diff(to_device(a), to_device(b, offset=8), dtype=dtype) == expected
    assert codec.diff(to_device(a, offset=8, interface=True), to_device(a), dtype=dtype).changed == 0


def test_wrong_pairs() -> None:
    a = to_device(noise(16))
    with pytest.raises(InvalidInputError, match="size"):
        codec.diff(a, to_device(noise(8)), dtype="BF16")
    with pytest.raises(InvalidInputError, match="multiple"):
        codec.diff(to_device(noise(7)), to_device(noise(7)), dtype="BF16")
    with pytest.raises(InvalidInputError, match="host memory"):
        codec.diff(a, noise(16), dtype="BF16")
