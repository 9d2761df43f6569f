"""Sums of differences against plain numpy in float64, with ml_dtypes to say what small floats mean."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.delta import codec, measure
from textnlp_fast.delta.values import bits_of, counts_ulps, values_of
from textnlp_fast.errors import InvalidInputError

TYPES: dict[str, npt.DTypeLike] = {
    "BOOL": np.uint8,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
FLOATS = {"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"}


def size_of(dtype: str) -> int:
    return np.dtype(TYPES[dtype]).itemsize


def place(code: int, dtype: str) -> int:
    """Where a code stands among all codes, in the order of what they stand for."""
    bits = 8 * size_of(dtype)
    if dtype in FLOATS:
        size = code & (1 << bits - 1) - 1
        return -size - 1 if code >> bits - 1 else size
    return code - (1 << bits) if dtype[0] == "I" and code >> bits - 1 else code


def oracle(old: bytes, new: bytes, dtype: str) -> dict[str, object]:
    """Element by element, in Python's own numbers where they are exact."""
    size = size_of(dtype)
    codes = [
        (int.from_bytes(old[at : at + size], "little"), int.from_bytes(new[at : at + size], "little"))
        for at in range(0, len(old), size)
    ]
    with np.errstate(all="ignore"):
        values = [
            (float(a), float(b))
            for a, b in zip(np.frombuffer(old, TYPES[dtype]), np.frombuffer(new, TYPES[dtype]), strict=True)
        ]
    moves = [abs(place(b, dtype) - place(a, dtype)) for a, b in codes if a != b]
    if dtype in ("U64", "I64"):
        changes = [float(abs(place(b, dtype) - place(a, dtype))) for a, b in codes]
    else:
        changes = [abs(b - a) for a, b in values if math.isfinite(a) and math.isfinite(b)]
    changes = [change for change in changes if math.isfinite(change)]
    histogram = [0] * 66
    for move in moves:
        histogram[move.bit_length()] += 1
    return {
        "elements": len(codes),
        "changed": len(moves),
        "max_ulp": max(moves, default=0),
        "sum_ulp": float(sum(moves)),
        "ulps": histogram,
        "weight_norm": math.hypot(*(a for a, _ in values if math.isfinite(a))),
        "change_norm": math.hypot(*changes),
        "max_change": max(changes, default=0.0),
        "became_nonfinite": sum(math.isfinite(a) and not math.isfinite(b) for a, b in values),
        "became_finite": sum(not math.isfinite(a) and math.isfinite(b) for a, b in values),
    }


def check(sums: measure.Sums, expected: dict[str, object], dtype: str) -> None:
    for name, value in expected.items():
        found = getattr(sums, name)
        if name in ("max_ulp", "sum_ulp", "ulps") and not counts_ulps(dtype):
            assert found in (None, ()), name
        elif name == "ulps":
            assert isinstance(value, list)
            assert list(found) + [0] * (66 - len(found)) == value
        elif isinstance(value, float) and math.isfinite(value):
            assert found == pytest.approx(value, rel=1e-9, abs=0), name
        else:
            assert found == value, name


def moved(old: bytes, seed: int, share: float) -> bytes:
    """The bytes with some of them different, in places that neighbour each other or do not."""
    rng = np.random.default_rng(seed)
    array = np.frombuffer(old, np.uint8).copy()
    chosen = rng.random(len(array)) < share
    array[chosen] += rng.integers(1, 4, int(chosen.sum()), dtype=np.uint8)
    return array.tobytes()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.7])
@pytest.mark.parametrize("dtype", TYPES)
def test_all_kinds_of_numbers(dtype: str, share: float) -> None:
    """Random bits hold every NaN, infinity, zero and subnormal of the small types, and plenty of the large."""
    old = np.random.default_rng(5).bytes(4096 * size_of(dtype))
    new = moved(old, 6, share)
    sums = measure.measure(memoryview(old), memoryview(new), dtype=dtype)
    check(sums, oracle(old, new, dtype), dtype)
    stats = codec.diff(old, new, dtype=dtype if counts_ulps(dtype) else "OPAQUE")
    assert sums.changed == stats.changed


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"])
def test_every_eight_bit_float(dtype: str) -> None:
    codes = bytes(range(256))
    found = values_of(bits_of(memoryview(codes), dtype), dtype)
    expected = np.frombuffer(codes, TYPES[dtype]).astype(np.float64)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(sorted(TYPES)),
    count=st.integers(0, 300),
    cut=st.integers(0, 300),
    seed=st.integers(0, 2**32),
)
def test_windows_add_up(dtype: str, count: int, cut: int, seed: int) -> None:
    old = np.random.default_rng(seed).bytes(count * size_of(dtype))
    new = moved(old, seed + 1, 0.3)
    at = min(cut, count) * size_of(dtype)
    parts = [
        measure.measure(memoryview(old)[piece], memoryview(new)[piece], dtype=dtype)
        for piece in (slice(0, at), slice(at, None))
    ]
    check(measure.merge(*parts), oracle(old, new, dtype), dtype)


def test_more_than_a_block() -> None:
    rng = np.random.default_rng(1)
    old = rng.normal(0, 0.02, 150_001).astype(np.float32)
    new = np.where(rng.random(len(old)) < 0.1, old * np.float32(1.01), old)
    sums = measure.measure(memoryview(old).cast("B"), memoryview(new).cast("B"), dtype="F32")
    change = new.astype(np.float64) - old.astype(np.float64)
    assert sums.change_norm == pytest.approx(np.linalg.norm(change), rel=1e-12)
    assert sums.weight_norm == pytest.approx(np.linalg.norm(old.astype(np.float64)), rel=1e-12)
    assert sums.max_change == np.max(np.abs(change))
    assert sums.relative_norm == pytest.approx(
        np.linalg.norm(change) / np.linalg.norm(old.astype(np.float64))
    )


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_norms_of_extreme_numbers(scale: float) -> None:
    old, new = np.array([3.0, 0.0, 1.0]) * scale, np.array([0.0, 4.0, 1.0]) * scale
    sums = measure.measure(memoryview(old).cast("B"), memoryview(new).cast("B"), dtype="F64")
    assert sums.change_norm == pytest.approx(5 * scale, rel=1e-12)
    assert sums.weight_norm == pytest.approx(math.sqrt(10) * scale, rel=1e-12)


def test_large_integers_keep_small_changes() -> None:
    old = np.array([2**62 + 1, -(2**62)], np.int64)
    new = np.array([2**62 + 2, -(2**62) + 5], np.int64)
    sums = measure.measure(memoryview(old).cast("B"), memoryview(new).cast("B"), dtype="I64")
    assert (sums.max_change, sums.max_ulp) == (5.0, 5)
    assert sums.change_norm == pytest.approx(math.sqrt(26))


@pytest.mark.parametrize(("dtype", "unit"), [("C64", 8), ("F4", 1), ("F6_E2M3", 1), ("OPAQUE", 1)])
def test_what_has_no_order_is_only_counted(dtype: str, unit: int) -> None:
    old, new = bytes(64), bytes(63) + b"\x01"
    sums = measure.measure(memoryview(old), memoryview(new), dtype=dtype)
    assert (sums.elements, sums.changed) == (64 // unit, 1)
    assert (sums.max_ulp, sums.mean_ulp, sums.change_norm, sums.relative_norm) == (None, None, None, None)
    both = measure.merge(sums, measure.measure(memoryview(old), memoryview(old), dtype="F32"))
    assert (both.changed, both.max_ulp) == (1, 0)


def test_sizes_that_do_not_match_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        measure.measure(memoryview(bytes(8)), memoryview(bytes(4)), dtype="F32")
    with pytest.raises(InvalidInputError):
        measure.measure(memoryview(bytes(7)), memoryview(bytes(7)), dtype="F32")
