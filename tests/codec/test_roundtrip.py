"""Any two byte strings of any dtype come back bit for bit, in every way of cutting, calling and threading."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amounts import examples
from codec.inputs import (
    BASES,
    CHANGES,
    COUNTS,
    DTYPES,
    FRAME_SIZES,
    ISAS,
    decoded,
    forced,
    modes,
    pair,
    pairs,
)
from reference.codec_elements import TYPES
from textnlp_fast.delta import codec

MAX_HEADER = 9


@settings(max_examples=examples(300), deadline=None)
@given(
    case=pairs(),
    frame_size=st.sampled_from(FRAME_SIZES),
    threads=st.sampled_from([1, 2, 3]),
    with_base=st.booleans(),
)
def test_any_pair_comes_back(
    case: tuple[str, bytes, bytes], frame_size: int, threads: int, with_base: bool
) -> None:
    dtype, target, other = case
    base = other if with_base else None
    payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=frame_size, threads=threads)
    assert len(payload) <= codec.encode_bound(len(target), frame_size_bytes=frame_size)
    for isa in ISAS:
        with forced(isa):
            assert decoded(payload, len(target), base, threads=threads) == target
            again = codec.encode(target, base, dtype=dtype, frame_size_bytes=frame_size, threads=4 - threads)
            assert again == payload, isa


@pytest.mark.parametrize("change", sorted(CHANGES))
@pytest.mark.parametrize("base_kind", sorted(BASES))
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_kind_of_change(dtype: str, base_kind: str, change: str) -> None:
    for seed, count in enumerate((1, 33, 1000, 4100)):
        target, base = pair(dtype, count, seed, base_kind, change)
        payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=4096)
        assert decoded(payload, len(target), base) == target
        alone = codec.encode(target, dtype=dtype, frame_size_bytes=4096)
        assert decoded(alone, len(target)) == target
        assert not codec.scan(alone).needs_base


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("dtype", ["OPAQUE", "BF16", "F32", "F64"])
def test_sizes_around_lanes_vectors_and_frames(dtype: str, count: int) -> None:
    for frame_size in (64, 128, 1 << 20):
        for change in ("sparse", "dense", "other"):
            target, base = pair(dtype, count, count, "weights", change)
            payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=frame_size)
            assert decoded(payload, len(target), base) == target


@pytest.mark.parametrize("dtype", ["U8", "BF16", "F32", "F64"])
@pytest.mark.parametrize("frame_size", [4096, 1 << 18])
def test_sizes_around_a_frame(dtype: str, frame_size: int) -> None:
    size = TYPES[dtype].size
    whole = frame_size // size
    for count in (whole - 1, whole, whole + 1, 2 * whole + 31):
        target, base = pair(dtype, count, count)
        payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=frame_size)
        found = codec.frames(payload)
        assert [frame.decoded_bytes for frame in found[:-1]] == [frame_size] * (len(found) - 1)
        assert sum(frame.decoded_bytes for frame in found) == len(target)
        assert decoded(payload, len(target), base) == target


@pytest.mark.parametrize("dtype", ["F8_E4M3", "BF16", "F32", "F64"])
@pytest.mark.parametrize("change", ["sparse", "dense", "wide", "other"])
def test_several_segments(dtype: str, change: str) -> None:
    # Four segments from 2^18 elements on, the last one shorter and not a whole number of turns.
    count = (1 << 18) + 77
    target, base = pair(dtype, count, 5, "weights", change)
    frame_size = 1 << 22
    payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=frame_size)
    alone = codec.encode(target, dtype=dtype, frame_size_bytes=frame_size)
    for isa in ISAS:
        with forced(isa):
            assert codec.encode(target, base, dtype=dtype, frame_size_bytes=frame_size) == payload, isa
            assert codec.encode(target, dtype=dtype, frame_size_bytes=frame_size) == alone, isa
            assert decoded(payload, len(target), base) == target
            assert decoded(alone, len(target)) == target


@pytest.mark.parametrize("together", [False, True], ids=["spread", "together"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.19, 0.1999, 0.2, 0.2001, 0.21, 0.3, 1.0])
@pytest.mark.parametrize("dtype", ["BF16", "I16", "F32"])
def test_shares_of_changes_around_the_sparse_limit(dtype: str, share: float, together: bool) -> None:
    """Encoders may pack changed elements while they are few: however many, and wherever they are."""
    for count in (40, 10_000, 10_007, 140_000):
        rng = np.random.default_rng(count)
        base = np.frombuffer(pair(dtype, count, count)[1], dtype=f"u{TYPES[dtype].size}")
        places = np.arange(count) if together else rng.permutation(count)
        target = base.copy()
        target[places[: round(share * count)]] += rng.integers(1, 30, round(share * count)).astype(base.dtype)
        payloads = set()
        for isa in ISAS:
            with forced(isa):
                payloads.add(codec.encode(target, base, dtype=dtype))
        assert len(payloads) == 1
        assert decoded(payloads.pop(), target.nbytes, base.tobytes()) == target.tobytes()


@settings(max_examples=examples(100), deadline=None)
@given(case=pairs(), frame_size=st.sampled_from([64, 128, 4096]), threads=st.sampled_from([1, 2]))
def test_in_place_over_the_base(case: tuple[str, bytes, bytes], frame_size: int, threads: int) -> None:
    dtype, target, base = case
    payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=frame_size)
    for isa in ISAS:
        with forced(isa):
            held = bytearray(base)
            codec.decode_into(payload, held, held, threads=threads)
            assert bytes(held) == target


@settings(max_examples=examples(100), deadline=None)
@given(
    case=pairs(counts=st.integers(0, 9000)),
    window=st.integers(1, 5),
    frame_size=st.sampled_from([64, 128, 4096]),
)
def test_windows_make_the_tensors_payload(
    case: tuple[str, bytes, bytes], window: int, frame_size: int
) -> None:
    dtype, target, base = case
    whole = codec.encode(target, base, dtype=dtype, frame_size_bytes=frame_size)
    step = window * frame_size
    parts = [
        codec.encode(target[at : at + step], base[at : at + step], dtype=dtype, frame_size_bytes=frame_size)
        for at in range(0, len(target), step)
    ]
    assert b"".join(parts) == whole
    joined = b"".join(
        decoded(part, len(target[at : at + step]), base[at : at + step])
        for part, at in zip(parts, range(0, len(target), step), strict=True)
    )
    assert joined == target


@settings(max_examples=examples(60), deadline=None)
@given(case=pairs(counts=st.integers(0, 6000)), cut=st.floats(0, 1))
def test_scan_finds_the_whole_frames_of_a_cut_stream(case: tuple[str, bytes, bytes], cut: float) -> None:
    dtype, target, base = case
    payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=128)
    held = payload[: int(cut * len(payload))]
    found = codec.scan(held)
    assert found.encoded_bytes <= len(held)
    ahead = codec.frames(payload)
    assert codec.frames(held) == ahead[: found.frames]
    if found.frames < len(ahead):
        assert found.encoded_bytes + ahead[found.frames].encoded_bytes > len(held)
    part = found.decoded_bytes
    assert decoded(held[: found.encoded_bytes], part, base[:part]) == target[:part]
    assert found.needs_base == any(frame.needs_base for frame in ahead[: found.frames])


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_byte(dtype: str) -> None:
    target, base = pair(dtype, 40_000 // TYPES[dtype].size, 3, "weights", "dense")
    payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=1024, threads=1)
    for threads in (0, 2, 5, 64):
        again = codec.encode(target, base, dtype=dtype, frame_size_bytes=1024, threads=threads)
        assert again == payload
        assert decoded(payload, len(target), base, threads=threads) == target


def test_calls_from_many_threads_do_not_meet() -> None:
    """The lock is released while the core works: every call must have its own scratch."""
    cases = [pair(dtype, 20_000 + 977 * number, number) for number, dtype in enumerate(DTYPES)]

    def there_and_back(number: int) -> bool:
        dtype = DTYPES[number % len(DTYPES)]
        target, base = cases[number % len(DTYPES)]
        payload = codec.encode(target, base, dtype=dtype, frame_size_bytes=4096, threads=2)
        return decoded(payload, len(target), base, threads=2) == target

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(there_and_back, range(4 * len(DTYPES))))


def test_modes_are_what_the_data_asks_for() -> None:
    noise, base = pair("BF16", 1 << 15, 1, "noise", "other")
    assert modes(codec.encode(base, base, dtype="BF16")) == ["same"]
    assert modes(codec.encode(noise, base, dtype="BF16")) == ["raw"]
    target, base = pair("BF16", 1 << 15, 1, "weights", "sparse")
    assert modes(codec.encode(target, base, dtype="BF16")) == ["sparse"]
    target, base = pair("BF16", 1 << 15, 1, "weights", "dense")
    assert modes(codec.encode(target, base, dtype="BF16")) == ["delta"]
    assert modes(codec.encode(target, dtype="BF16")) == ["planes"]


def test_coding_pays() -> None:
    """Loose floors under the size: a codec that stored everything raw would pass every other test here."""
    target, base = pair("BF16", 1 << 18, 1, "weights", "sparse")
    assert len(codec.encode(target, base, dtype="BF16")) < len(target) / 10
    target, base = pair("BF16", 1 << 18, 1, "weights", "dense")
    assert len(codec.encode(target, base, dtype="BF16")) < len(target) / 2
    assert len(codec.encode(target, dtype="BF16")) < 0.72 * len(target)
    assert len(codec.encode(bytes(1 << 20), dtype="BF16")) < 32


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_never_grows_beyond_a_header(dtype: str) -> None:
    for count in (1, 32, 1000, 40_000 // TYPES[dtype].size):
        target, base = pair(dtype, count, count, "noise", "other")
        for prior in (None, base):
            payload = codec.encode(target, prior, dtype=dtype, frame_size_bytes=64)
            frames = -(-len(target) // 64)
            assert len(payload) <= len(target) + frames * MAX_HEADER
            assert len(payload) <= codec.encode_bound(len(target), frame_size_bytes=64)


def test_nothing_is_coded_as_nothing() -> None:
    assert codec.encode(b"", dtype="F32") == b""
    assert codec.encode(b"", b"", dtype="F32") == b""
    assert codec.frames(b"") == []
    assert decoded(b"", 0) == b""
    assert codec.encode_bound(0) == 0
