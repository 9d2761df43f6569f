"""Order, value and rounding of raw bits, against exact fractions and ml_dtypes."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.approximations import MANTISSA_BITS, steps_apart, value
from reference.codec_elements import TYPES
from textnlp_fast.delta.elements import ELEMENTS, words_of
from textnlp_fast.errors import InvalidInputError

PEERS = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
EVERY_BYTE = list(range(256))


def some_bits(dtype: str) -> list[int]:
    """All patterns of small types, ends and a spread of large ones."""
    bits = TYPES[dtype].bits
    if bits <= 16:
        return list(range(1 << bits))
    rng = np.random.default_rng(3)
    half, whole = 1 << (bits - 1), 1 << bits
    ends = [0, 1, 2, half - 1, half, half + 1, whole - 1]
    if dtype in MANTISSA_BITS:
        infinity = ((1 << TYPES[dtype].exponent) - 1) << MANTISSA_BITS[dtype]
        ends += [infinity, infinity - 1, infinity + 1]
    return ends + [int.from_bytes(rng.bytes(bits // 8), "little") for _ in range(500)]


@pytest.mark.parametrize("dtype", sorted(ELEMENTS))
def test_values_order_and_finiteness(dtype: str) -> None:
    element = ELEMENTS[dtype]
    bits = some_bits(dtype)
    words = np.array(bits, element.word)
    order = element.ordered(words)
    assert np.array_equal(element.from_ordered(order), words)
    low, high = element.ordered_range
    for pattern, got, place, finite in zip(
        bits, element.values(words), order.tolist(), element.is_finite(words), strict=True
    ):
        exact = value(pattern, dtype)
        assert finite == (exact is not None) == (low <= place <= high)
        if exact is None:
            assert not math.isfinite(got)
        else:
            assert got == float(exact)
    for a, b in itertools.pairwise(bits):
        i, j = (int(element.ordered(np.array([word], element.word))[0]) for word in (a, b))
        assert abs(i - j) == steps_apart(a, b, dtype)
        if (one := value(a, dtype)) is not None and (two := value(b, dtype)) is not None and one != two:
            assert (i < j) == (one < two)


@pytest.mark.parametrize("dtype", sorted(PEERS))
def test_rounding_is_that_of_other_libraries(dtype: str) -> None:
    element = ELEMENTS[dtype]
    rng = np.random.default_rng(5)
    numbers = element.values(np.array(some_bits(dtype), element.word))
    finite = np.unique(numbers[np.isfinite(numbers)])
    middles = finite[:-1] / 2 + finite[1:] / 2
    wanted = np.concatenate(
        [
            finite,
            middles,
            np.nextafter(middles, np.inf),
            np.nextafter(middles, -np.inf),
            rng.normal(0, 1, 500),
        ]
    )
    wanted = np.concatenate(
        [wanted, [0.0, -0.0, np.inf, -np.inf, 463.9, 464.0, 464.1, 61439.0, 61440.0, 1e30]]
    )
    with np.errstate(over="ignore"):
        singles = wanted.astype(np.float32)
        if dtype != "F64":
            wanted = singles
        expected = wanted.astype(PEERS[dtype]).view(element.word)
    got = element.rounded(wanted)
    assert np.array_equal(got, expected)
    assert not element.is_finite(element.rounded(np.array([np.nan], np.float32)))[0]


@given(st.sampled_from(sorted(MANTISSA_BITS)), st.data())
def test_a_step_is_the_distance_of_neighbours(dtype: str, data: st.DataObject) -> None:
    element = ELEMENTS[dtype]
    bits = data.draw(st.integers(0, element.largest - 1))
    a, b = value(bits, dtype), value(bits + 1, dtype)
    assert a is not None
    assert b is not None
    field = int(element.exponents(np.array([bits], element.word))[0])
    assert b - a == Fraction(element.step(field)) or element.step(field) == 0


def test_bytes_that_are_no_whole_elements_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="7 bytes are no whole elements of BF16"):
        words_of(b"1234567", ELEMENTS["BF16"])
