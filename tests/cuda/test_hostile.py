"""Odd sizes, odd addresses, arrays that overlap or have no bytes: the device does what the core does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.devices import INFO, NO_DEVICE, Bytes, EmulatedArray, to_device, to_host
from codec.inputs import late_step, modes, pair
from textnlp_fast import chunking, hashing
from textnlp_fast.delta import codec, low_rank
from textnlp_fast.errors import CorruptDataError, InvalidInputError, TextnlpFastError, UnsupportedFormatError
from textnlp_fast.tensors.element_types import DTYPES

pytestmark = [pytest.mark.gpu, NO_DEVICE]


def noise(size: int, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from([*DTYPES]),
    elements=st.one_of(st.integers(0, 300), st.sampled_from([8191, 8192, 8193, 16_400])),
    offsets=st.tuples(st.integers(0, 17), st.integers(0, 17)),
    same=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_statistics_at_any_address(
    dtype: str, elements: int, offsets: tuple[int, int], same: float, seed: int
) -> None:
    a, b = noise(elements * 8, seed), noise(elements * 8, seed + 1)
    keep = int(same * a.size)
    b[:keep] = a[:keep]
    expected = codec.diff(a, b, dtype=dtype)
    assert (
        codec.diff(to_device(a, offset=offsets[0]), to_device(b, offset=offsets[1]), dtype=dtype) == expected
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 17)), max_size=12), st.integers(0, 2**32))
def test_digests_at_any_address(parts: list[tuple[int, int]], seed: int) -> None:
    data = [noise(size, seed + n) for n, (size, _) in enumerate(parts)]
    arrays = [to_device(part, offset=parts[n][1]) for n, part in enumerate(data)]
    assert hashing.blake3_many(arrays) == hashing.blake3_many(data)


@pytest.mark.parametrize("interface", [False, True])
def test_arrays_without_bytes(interface: bool) -> None:
    nothing = np.zeros(0, np.uint8)
    array = to_device(nothing, interface=interface)
    assert hashing.blake3_many([array, array]) == [hashing.blake3(b"")] * 2
    assert hashing.xet_hash(array) == hashing.xet_hash(nothing)
    assert chunking.boundaries(array).size == 0
    assert codec.diff(array, array, dtype="BF16") == codec.diff(nothing, nothing, dtype="BF16")
    codec.decode_many([b"", b""], [array, array], [None, array])
    with pytest.raises(CorruptDataError):
        codec.decode_into(codec.encode(noise(64, 0), dtype="U8"), array)
    with pytest.raises(CorruptDataError):
        codec.decode_into(b"", to_device(noise(64, 0)))


def test_an_array_twice() -> None:
    data = noise(9000, 1)
    array = to_device(data)
    assert hashing.blake3_many([array] * 5) == [hashing.blake3(data)] * 5
    assert codec.diff(array, array, dtype="U8").changed == 0


@pytest.mark.skipif(not INFO["emulated"], reason="cuts one host array into two")
def test_what_overlaps_is_refused() -> None:
    data = noise(256, 2)
    payload = codec.encode(data[:128], data[:128], dtype="U8")
    room = data.copy()
    low, high = EmulatedArray(room[:128]), EmulatedArray(room[64:192])
    for base, out in ((low, high), (high, low)):
        with pytest.raises(InvalidInputError, match="overlaps the base"):
            codec.decode_into(payload, out, base)
    factors = low_rank.Factors(1, 64, 1, 1.0, bytes(256), bytes(4), "F32", "F32")
    with pytest.raises(InvalidInputError, match="overlaps the base"):
        low_rank.predict_into(low, high, factors, dtype="BF16")
    assert room.tobytes() == data.tobytes()
    # Side by side is not over each other.
    codec.decode_into(payload, EmulatedArray(room[128:]), low)
    assert room[128:].tobytes() == data[:128].tobytes()


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 40])
def test_payloads_cut_short_or_with_more(cut: int) -> None:
    data, base = noise(4096, 3), noise(4096, 4)
    for against in (None, base):
        whole = codec.encode(data, against, dtype="BF16")
        on_device = None if against is None else to_device(base)
        out = to_device(np.zeros(4096, np.uint8))
        for wrong in (whole[:-cut], whole + bytes(cut), whole + whole[:cut], whole[cut:]):
            with pytest.raises(TextnlpFastError) as by_core:
                codec.decode_into(wrong, np.zeros(4096, np.uint8), against)
            with pytest.raises(type(by_core.value)):
                codec.decode_into(wrong, out, on_device)
        codec.decode_into(whole, out, on_device)
        assert to_host(out).tobytes() == data.tobytes()


def verdict(payload: bytes, target: Bytes, base: Bytes, *, on_device: bool) -> bytes | None:
    """What comes out, None if the frame is refused."""
    out = np.zeros_like(target)
    try:
        if on_device:
            there = to_device(out)
            codec.decode_into(payload, there, to_device(base))
            return to_host(there).tobytes()
        codec.decode_into(payload, out, base)
    except (CorruptDataError, UnsupportedFormatError, InvalidInputError):
        return None
    return out.tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "I8", "F32", "U64"])
def test_short_lists_damaged_anywhere(dtype: str) -> None:
    """Learned frames with a bit changed: the device refuses what the core refuses."""
    target, base = late_step(9000) if dtype == "BF16" else pair(dtype, 900, 6, "weights", "sparse")
    payload = codec.encode(target, base, dtype=dtype)
    assert modes(payload) == ["learned"]
    sides = np.frombuffer(target, np.uint8), np.frombuffer(base, np.uint8)
    assert verdict(payload, *sides, on_device=True) == target
    rng = np.random.default_rng(len(payload))
    for at in {*range(7, min(50, len(payload))), *rng.integers(7, len(payload), 40).tolist()}:
        broken = bytearray(payload)
        broken[at] ^= 1 << int(rng.integers(8))
        assert verdict(bytes(broken), *sides, on_device=True) == verdict(
            bytes(broken), *sides, on_device=False
        )
