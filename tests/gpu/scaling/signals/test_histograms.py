"""Quantiles and shares of histograms against the very observations that were counted."""

from __future__ import annotations

import bisect
import math

from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.gpu.scaling.signals.histograms import cleaned, grown, merged, quantile, share_within

BOUNDS = (0.005, 0.02, 0.1, 0.5, 1.0, 5.0, math.inf)
VALUES = st.lists(st.floats(0.0, 20.0), max_size=60)


def counted(values: list[float]) -> dict[float, float]:
    return {bound: float(sum(value <= bound for value in values)) for bound in BOUNDS}


@given(VALUES, VALUES, st.floats(0.01, 0.999))
def test_the_quantile_of_a_difference_is_in_the_bucket_of_the_exact_one(
    before: list[float], new: list[float], share: float
) -> None:
    more = grown(counted(before), counted(before + new))
    assert more is not None
    found = quantile(more, share)
    if not new:
        assert found is None
        return
    exact = sorted(new)[max(0, math.ceil(share * len(new) - 1e-9) - 1)]
    place = bisect.bisect_left(BOUNDS, exact)
    assert found is not None
    if math.isinf(BOUNDS[place]):
        assert found == BOUNDS[-2]
    else:
        assert (0.0, *BOUNDS)[place] - 1e-9 <= found <= BOUNDS[place] + 1e-9


@given(VALUES, st.sampled_from(BOUNDS[:-1]))
def test_shares_are_exact_at_bounds(values: list[float], limit: float) -> None:
    found = share_within(counted(values), limit)
    assert found == (sum(value <= limit for value in values) / len(values) if values else None)


@given(VALUES, st.floats(0.0, 20.0))
def test_shares_between_bounds_lie_between_theirs(values: list[float], limit: float) -> None:
    found = share_within(counted(values), limit)
    if not values:
        assert found is None
        return
    place = bisect.bisect_right(BOUNDS, limit)
    lower = 0.0 if place == 0 else sum(value <= BOUNDS[place - 1] for value in values) / len(values)
    upper = sum(value <= BOUNDS[place] for value in values) / len(values)
    assert found is not None
    assert lower - 1e-9 <= found <= upper + 1e-9


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_the_sum_of_replicas_is_the_histogram_of_all(parts: list[list[float]]) -> None:
    assert merged(counted(one) for one in parts) == counted([value for one in parts for value in one])


def test_replicas_with_other_buckets_are_added_where_they_agree() -> None:
    assert merged([{1.0: 1.0, 2.0: 3.0, math.inf: 3.0}, {2.0: 1.0, 4.0: 2.0, math.inf: 2.0}]) == {
        2.0: 4.0,
        math.inf: 5.0,
    }
    assert merged([]) is None


@given(VALUES, VALUES)
def test_a_process_that_began_anew_counts_from_nothing(old: list[float], new: list[float]) -> None:
    if len(new) < len(old):
        assert grown(counted(old), counted(new)) == counted(new)


def test_what_is_no_histogram_is_none() -> None:
    assert cleaned({1.0: 2.0}) is None
    assert cleaned({1.0: 2.0, math.inf: 1.0}) is None
    assert cleaned({1.0: math.nan, math.inf: 1.0}) is None
    assert cleaned({math.nan: 1.0, math.inf: 1.0}) is None
    # The total rose while a bucket fell.
    assert grown({1.0: 5.0, math.inf: 5.0}, {1.0: 1.0, math.inf: 9.0}) is None
