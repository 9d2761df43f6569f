"""Whatever the bits, what comes out keeps the bound, as the oracle counts it weight by weight."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from delta.inputs import FLOATS, INTEGERS, Words, changes, moved, special_bits, weights
from reference.approximations import largest_changes, size_of_change, steps_apart, value
from textnlp_fast.delta import change as change_room
from textnlp_fast.delta import codec
from textnlp_fast.delta.approximate import (
    Approximation,
    LowRank,
    MaxAbs,
    MaxUlp,
    SignScale,
    Threshold,
    TopK,
)
from textnlp_fast.delta.change import Change
from textnlp_fast.delta.elements import ELEMENTS
from textnlp_fast.delta.ladder import at_most_off, climbed
from textnlp_fast.delta.quantise import Quantiser, applies, quantise

# Types whose matrices have no signs and factors.
EXACT_MATRICES = ("F8_E4M3", "F8_E5M2", "F64")
ALL = (MaxUlp(2), MaxAbs(1e-3), TopK(0.3), Threshold(1e-3), LowRank(1), SignScale(), SignScale("row"))
errors = st.one_of(
    st.sampled_from([1e-3, 0.5, 1.0, 2.0**-133, 5e-324, 1e300]),
    st.floats(min_value=0, exclude_min=True, allow_infinity=False),
)


def special_survives(dtype: str, target: Words, got: Words) -> None:
    finite = ELEMENTS[dtype].is_finite(target)
    assert np.array_equal(got[~finite], target[~finite])
    assert ELEMENTS[dtype].is_finite(got[finite]).all()


def bf16(*bits: int) -> Words:
    return np.array(bits, np.uint16)


@settings(max_examples=400)
@given(changes(), st.one_of(st.integers(1, 10), st.integers(1, 2**31 - 1)))
@example(("BF16", bf16(0x7F7F, 0xFF7F), bf16(0x7F80, 0xFF80)), 3)  # infinities beside the largest numbers
@example(("F8_E4M3", np.array([0x7E, 0x00], np.uint8), np.array([0x70, 0x80], np.uint8)), 2**31 - 1)
def test_max_ulp(case: tuple[str, Words, Words], steps: int) -> None:
    dtype, target, base = case
    got, promise = quantise(MaxUlp(steps), target, base, dtype=dtype)
    special_survives(dtype, target, got)
    furthest = 0
    for after, before, sent in zip(target.tolist(), base.tolist(), got.tolist(), strict=True):
        off = steps_apart(after, sent, dtype)
        furthest = max(furthest, off)
        assert off <= steps
        if (
            value(after, dtype) is not None is not value(before, dtype)
            and steps_apart(after, before, dtype) <= steps
        ):
            assert sent == before
    assert promise.max_ulp == furthest


@given(changes(), st.integers(1, 9), st.integers(0, 8))
def test_every_ladder_keeps_the_bound_with_few_rungs(
    case: tuple[str, Words, Words], steps: int, eighths: int
) -> None:
    dtype, target, base = case
    element = ELEMENTS[dtype]
    got = climbed(element, target, base, steps, eighths)
    special_survives(dtype, target, got)
    first = steps + 1 + steps * eighths // 8
    low, high = element.ordered_range
    for after, before, sent in zip(target.tolist(), base.tolist(), got.tolist(), strict=True):
        assert steps_apart(after, sent, dtype) <= steps
        place = int(element.ordered(np.array([sent], element.word))[0])
        if value(after, dtype) is None or place in (low, high):
            continue
        rung = steps_apart(before, sent, dtype)
        assert rung == 0 or (rung - first) % (2 * steps + 1) == 0


@settings(max_examples=400)
@given(changes(FLOATS + INTEGERS), errors)
@example(("F32", np.array([0x4B800001], np.uint32), np.array([0x4B800000], np.uint32)), 2.0)
@example(("F64", np.array([0x3FF0000000000000], np.uint64), np.array([0x0000000000000001], np.uint64)), 1.0)
def test_max_abs(case: tuple[str, Words, Words], error: float) -> None:
    dtype, target, base = case
    got, _ = quantise(MaxAbs(error), target, base, dtype=dtype)
    special_survives(dtype, target, got)
    for after, before, sent in zip(target.tolist(), base.tolist(), got.tolist(), strict=True):
        a, b, c = (value(bits, dtype) for bits in (after, before, sent))
        if a is None:
            continue
        assert c is not None
        assert abs(a - c) <= Fraction(error)
        if dtype in FLOATS and b is not None and abs(a - b) <= Fraction(error):
            assert sent == before


@given(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False), errors
)
@example(1.0, 5e-324, 1.0)
@example(1.0, -5e-324, 1.0)
@example(-1.0, 2.0**-60, 1.0)
def test_bounds_are_compared_exactly(a: float, b: float, error: float) -> None:
    within = at_most_off(np.array([a]), np.array([b]), error)[0]
    assert within == (abs(Fraction(a) - Fraction(b)) <= Fraction(error))
    own = abs(a - b)
    if 0 < own < math.inf:
        within = at_most_off(np.array([a]), np.array([b]), own)[0]
        assert within == (abs(Fraction(a) - Fraction(b)) <= Fraction(own))


@settings(max_examples=300)
@given(changes(FLOATS + INTEGERS), st.sampled_from([0.01, 0.1, 0.3, 0.5, 1.0]))
@example(("U64", np.array([2**64 - 1, 0], np.uint64), np.array([0, 2**64 - 1], np.uint64)), 0.01)
def test_top_k(case: tuple[str, Words, Words], share: float) -> None:
    dtype, target, base = case
    got, promise = quantise(TopK(share), target, base, dtype=dtype)
    count = math.ceil(share * target.size)
    kept = largest_changes(target.tolist(), base.tolist(), dtype, count)
    expected = [a if place in kept else b for place, (a, b) in enumerate(zip(target, base, strict=True))]
    assert got.tolist() == expected
    assert promise.kept == len(kept)
    special_survives(dtype, target, got)


@given(changes(), errors)
def test_threshold(case: tuple[str, Words, Words], least: float) -> None:
    dtype, target, base = case
    got, _ = quantise(Threshold(least), target, base, dtype=dtype)
    special_survives(dtype, target, got)
    for after, before, sent in zip(target.tolist(), base.tolist(), got.tolist(), strict=True):
        a, b = value(after, dtype), value(before, dtype)
        if a is None or b is None or size_of_change(a, b) >= least:
            assert sent == after
        else:
            assert sent == before


@pytest.mark.parametrize("asked", ALL, ids=str)
@given(case=changes(FLOATS + INTEGERS))
def test_no_change_stays_none_and_specials_survive(
    asked: Approximation, case: tuple[str, Words, Words]
) -> None:
    dtype, target, base = case
    even = target.size // 2 * 2
    shape = (2, even // 2)
    same, promise = quantise(asked, target[:even], target[:even], dtype=dtype, shape=shape)
    assert np.array_equal(same, target[:even])
    assert (promise.kept, promise.max_ulp, promise.max_abs, promise.dropped_l2) == (0, 0, 0, 0)
    got, _ = quantise(asked, target[:even], base[:even], dtype=dtype, shape=shape)
    special_survives(dtype, target[:even], got)


@pytest.mark.parametrize("asked", ALL, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_blocks_can_be_had_in_any_order_and_size(
    asked: Approximation, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = weights(dtype, 60 * 40, 1)
    target = moved(dtype, base, 2, size=0.004)
    base[:20] = np.resize(np.array(special_bits(dtype), base.dtype), 20)
    whole, promise = quantise(asked, target, base, dtype=dtype, shape=(60, 40))
    assert promise.kept > 0
    assert (promise.asked is None) == (isinstance(asked, LowRank | SignScale) and dtype in EXACT_MATRICES)
    assert promise.dropped_l2 > 0 or promise.asked is None or dtype.startswith("F8")
    monkeypatch.setattr(change_room, "BLOCK_ELEMENTS", 104)
    small = Quantiser(asked, Change.of(target, base, dtype=dtype, shape=(60, 40)))
    again, promised = np.concatenate(list(small.blocks())), small.promise()
    if isinstance(asked, LowRank):  # sums of blocks of other sizes round otherwise
        assert promised.dropped_l2 == pytest.approx(promise.dropped_l2, rel=0.01)
    elif not isinstance(
        asked, MaxUlp | MaxAbs | SignScale
    ):  # their first look is at a sample, or sums by blocks
        assert np.array_equal(again, whole)
    order = [(begin, min(begin + 77, 2400)) for begin in range(0, 2400, 77)]
    for begin, end in reversed(order):
        assert np.array_equal(small.block(begin, end), again[begin:end])


def test_it_is_cheaper_the_more_is_allowed() -> None:
    base = weights("BF16", 1 << 16, 3)
    target = moved("BF16", base, 4, size=0.0004)

    def size_of(asked: Approximation | None) -> int:
        sent = target if asked is None else quantise(asked, target, base, dtype="BF16")[0]
        return len(codec.encode(sent.view(np.uint8), base.view(np.uint8), dtype="BF16", threads=1))

    for ladder in (
        [None, MaxUlp(1), MaxUlp(2), MaxUlp(4), MaxUlp(8), MaxUlp(16)],
        [None, MaxAbs(1e-4), MaxAbs(3e-4), MaxAbs(1e-3)],
        [None, TopK(0.5), TopK(0.1), TopK(0.01)],
        [None, Threshold(1e-4), Threshold(3e-4), Threshold(1e-3)],
    ):
        sizes = [size_of(asked) for asked in ladder]
        assert all(more < less * 0.97 for less, more in itertools.pairwise(sizes)), sizes
    # Against keeping the exact target wherever the base is not allowed, which the bound would also permit.
    apart = ELEMENTS["BF16"].ordered(target).astype(int) - ELEMENTS["BF16"].ordered(base)
    naive = np.where(abs(apart) <= 2, base, target)
    plain = len(codec.encode(naive.view(np.uint8), base.view(np.uint8), dtype="BF16", threads=1))
    assert size_of(MaxUlp(2)) < 0.85 * plain


def test_what_is_not_approximated_is_exact() -> None:
    assert not applies(MaxUlp(1), "I32", (4,))
    assert not applies(Threshold(1.0), "U8", (4,))
    assert applies(TopK(0.1), "I32", (4,))
    assert not applies(TopK(0.1), "BOOL", (4,))
    assert not applies(MaxUlp(1), "OPAQUE", (4,))
    assert not applies(SignScale(), "BF16", (4,))
    assert not applies(LowRank(16), "BF16", (32, 32))
    assert applies(LowRank(1), "BF16", (32, 32))
    target, base = b"\x01\x02\x03\x04", b"\x01\x02\x03\x09"
    sent, promise = quantise(TopK(0.1), target, base, dtype="OPAQUE")
    assert sent.tobytes() == target
    assert (promise.asked, promise.elements, promise.kept) == (None, 4, 1)
    empty, promise = quantise(MaxUlp(1), b"", b"", dtype="BF16", shape=(0, 5))
    assert empty.size == promise.elements == 0
