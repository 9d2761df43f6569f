"""Casts, order and entropies of the benches, against ml_dtypes, numpy's own types and plain counting."""

from __future__ import annotations

import math
from collections import Counter

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropy import conditional, pooled_and_apart, standalone_bits, ulp_bits
from formats import FORMATS, cast, fp8_values

LARGEST = {"F8_E4M3": 448.0, "F8_E5M2": 57344.0}
ORACLES = {
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
FLOATS = st.lists(st.floats(-440, 440, width=32), max_size=40)


@given(FLOATS)
@pytest.mark.parametrize("name", ORACLES)
def test_casts_round_as_ml_dtypes_does(name: str, values: list[float]) -> None:
    # With its largest number in the array, the scale of fp8 is 1.
    array = np.array([*values, LARGEST.get(name, 1.0)], np.float32)
    expected = array.astype(ORACLES[name]).view(np.uint8)
    assert np.array_equal(cast(array, name), expected)


@pytest.mark.parametrize("name", LARGEST)
def test_fp8_meets_every_number_and_every_tie(name: str) -> None:
    numbers = fp8_values(name)
    assert numbers[-1] == LARGEST[name]
    halfway = (numbers[1:] + numbers[:-1]) / 2
    near = [np.nextafter(halfway, np.float32(side)) for side in (0, np.inf)]
    array = np.concatenate([numbers, halfway, *near]).astype(np.float32)
    array = np.concatenate([array, -array])
    assert np.array_equal(cast(array, name), array.astype(ORACLES[name]).view(np.uint8))


@pytest.mark.parametrize("name", LARGEST)
@pytest.mark.parametrize("scale", [1e-6, 3e-3, 1.0, 7e4])
def test_fp8_scales_by_a_power_of_two_to_just_fit(name: str, scale: float) -> None:
    values = np.random.default_rng(1).standard_normal(500).astype(np.float32) * np.float32(scale)
    stored = np.abs(cast(values, name).view(ORACLES[name]).astype(np.float32))
    assert LARGEST[name] / 2 <= stored.max() <= LARGEST[name]
    factor = stored.max() / np.abs(values).max()
    assert abs(math.log2(factor) - round(math.log2(factor))) < 0.2  # rounding of the maximum apart


def test_int4_packs_two_to_a_byte() -> None:
    values = np.array([[7, -7, 1], [0.5, 0.0, -0.5]], np.float32)
    assert cast(values, "U8").tolist() == [0x97, 0x71, 0x90]
    assert cast(values[0], "I8").view(np.int8).tolist() == [127, -127, 18]


def _random(name: str, count: int, seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, count * FORMATS[name].width, dtype=np.uint8)


@pytest.mark.parametrize("name", FORMATS)
def test_ulps_lead_back_to_the_target_on_any_bits(name: str) -> None:
    form = FORMATS[name]
    target, base = _random(name, 5000, 1), _random(name, 5000, 2)
    assert np.array_equal(form.moved(base, form.ulps(target, base)), form.words(target))


@pytest.mark.parametrize(("name", "dtype"), [("F16", np.float16), ("F32", np.float32)])
def test_neighbouring_numbers_are_one_ulp_apart(name: str, dtype: type[np.floating]) -> None:
    numbers = np.array([-3.5, -1e-7, 1e-7, 1.0, 2.0, 1000.0], dtype)
    above = np.nextafter(numbers, dtype(np.inf))
    assert FORMATS[name].ulps(above.view(np.uint8), numbers.view(np.uint8)).tolist() == [1] * 6


def _counted(pairs: list[tuple[int, int]]) -> float:
    """Bits of the first of each pair given the second, by the definition."""
    joint, contexts = Counter(pairs), Counter(context for _, context in pairs)
    return -sum(count * math.log2(count / contexts[context]) for (_, context), count in joint.items())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=200))
def test_conditional_entropy_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    symbols, contexts = (np.array(side, np.uint16) for side in zip(*pairs, strict=True))
    assert conditional(symbols, contexts) == pytest.approx(_counted(pairs), abs=1e-6)


def test_reference_of_a_delta_counts_signed_ulps_under_the_base_exponent() -> None:
    random = np.random.default_rng(3)
    values = random.standard_normal(4000).astype(np.float32)
    moved = values + random.standard_normal(4000).astype(np.float32) * np.float32(0.01)
    base, target = (side.astype(ml_dtypes.bfloat16) for side in (values, moved))

    def place(number: float) -> int:
        bits = int(np.array(number, ml_dtypes.bfloat16).view(np.uint16))
        return -(bits & 0x7FFF) - 1 if bits >> 15 else bits

    pairs = [
        (place(t) - place(b), int(b.view(np.uint16)) >> 7 & 255) for t, b in zip(target, base, strict=True)
    ]
    found = ulp_bits(target.view(np.uint8), base.view(np.uint8), FORMATS["BF16"])
    assert found == pytest.approx(_counted(pairs), abs=1e-6)


@pytest.mark.parametrize(("step", "span", "bits"), [(1, 256, 8), (1, 4, 2), (4, 64, 6 + 2), (8, 32, 5 + 2)])
def test_a_wide_difference_costs_six_bits_by_frequency_and_the_rest_raw(
    step: int, span: int, bits: int
) -> None:
    base = np.full(256, 1.0, np.float32)
    sizes = 256 + np.arange(256) % span * step  # nine bits: the leading one, six by frequency, two raw
    target = (base.view(np.uint32) + sizes.astype(np.uint32)).view(np.uint8)
    assert ulp_bits(target, base.view(np.uint8), FORMATS["F32"]) == pytest.approx(256 * bits)


def test_tables_of_their_own_never_cost_tensors_more() -> None:
    random = np.random.default_rng(4)
    tensors = [
        cast(random.standard_normal(2000).astype(np.float32) * np.float32(s), "BF16") for s in (1, 1e-3)
    ]
    pooled, apart = pooled_and_apart(standalone_bits, FORMATS["BF16"], tensors)
    assert 8 < apart <= pooled - 0.9  # nearly disjoint exponents: pooling loses the bit that tells them apart
