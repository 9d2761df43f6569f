"""Windows over time, against their definition taken second by second."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.scaling.rivals.windows import MaxWindow, MeanWindow, SumWindow


def _mean_of_buckets(written: dict[int, float], now: int, window: int) -> float | None:
    """Knative's rule: the mean over the buckets from the first write or the window's start, to the last write."""
    writes = sorted(written)
    first = writes[0]
    for earlier, later in pairwise(writes):
        # Nothing for a whole window: it begins anew. (At exactly a window, Knative's versions differ.)
        if later - earlier >= window:
            first = later
    oldest = now - window + 1
    if writes[-1] < oldest:
        return None
    seconds = range(max(first, oldest), writes[-1] + 1)
    return sum(written.get(second, 0.0) for second in seconds) / len(seconds)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 40), st.floats(0.0, 1000.0), min_size=1),
    st.integers(0, 10),
    st.sampled_from([5, 6, 60]),
)
def test_a_sample_a_second_is_the_mean_of_knatives_buckets(
    written: dict[int, float], silence: int, window: int
) -> None:
    mean = MeanWindow(float(window))
    for second in sorted(written):
        mean.mean(float(second))
        mean.add(second - 1.0, float(second), written[second])
    now = max(written) + silence
    expected = _mean_of_buckets(written, now, window)
    assert mean.mean(float(now)) == (None if expected is None else pytest.approx(expected, abs=1e-5))


def test_knatives_own_numbers() -> None:
    """TestTimedFloat64BucketsWindowAverage, but for what arrives out of order."""
    mean = MeanWindow(5.0)
    mean.add(-1.0, 0.0, 1.0)
    assert mean.mean(0.0) == 1.0
    for second in range(1, 5):
        mean.add(second - 1.0, float(second), second + 1.0)
    assert mean.mean(4.0) == 15.0 / 5.0
    assert mean.mean(6.0) == (15.0 - 1.0 - 2.0) / (5.0 - 2.0)
    mean.add(5.0, 6.0, 91.0)
    assert mean.mean(6.0) == pytest.approx((15.0 - 1.0 - 2.0 + 91.0) / 5.0)
    assert mean.mean(11.0) is None
    mean.add(59.0, 60.0, 1984.0)
    assert mean.mean(60.0) == 1984.0


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 30.0), st.floats(0.0, 100.0)), min_size=1, max_size=30),
    st.floats(1.0, 60.0),
)
def test_the_integral_is_the_area_within_the_window(
    steps: list[tuple[float, float]], window_s: float
) -> None:
    mean, now_s, samples = MeanWindow(window_s), 0.0, []
    for step_s, value in steps:
        mean.add(now_s, now_s + step_s, value)
        samples.append((now_s, now_s + step_s, value))
        now_s += step_s
        area = sum(max(0.0, end_s - max(begin_s, now_s - window_s)) * v for begin_s, end_s, v in samples)
        assert mean.integral(now_s) == pytest.approx(area, abs=1e-4)


def test_a_day_of_steps_leaves_no_drift() -> None:
    mean = MeanWindow(60.0)
    for step in range(8640):
        mean.add(step * 10.0, step * 10.0 + 10.0, 1e9 if step % 7 == 0 else 0.1 * (step % 3))
    for step in range(8640, 8646):
        mean.add(step * 10.0, step * 10.0 + 10.0, 7.0)
    assert mean.mean(86460.0) == 7.0


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(0, 9)), min_size=1, max_size=40),
    st.floats(0.0, 50.0),
)
def test_largest_and_sum_are_of_what_is_younger_than_the_window(
    steps: list[tuple[float, int]], window_s: float
) -> None:
    most, total, now_s, events = MaxWindow(window_s), SumWindow(window_s), 0.0, []
    for step_s, value in steps:
        now_s += step_s
        most.add(now_s, value)
        total.add(now_s, value)
        events.append((now_s, value))
        young = [v for time_s, v in events if time_s > now_s - window_s]
        assert most.largest(now_s, -1.0) == max(young, default=-1.0)
        assert total.total(now_s) == sum(young)


@pytest.mark.parametrize(
    "dumped",
    [
        None,
        "text",
        {},
        [[1.0]],
        [[1.0, "2", 3]],
        [[1.0, float("nan"), 3]],
        [[True, 1.0, 2]],
        [[0, 1, 0], [5, 2, 1]],
        [3],
    ],
)
@pytest.mark.parametrize("window", [MeanWindow, MaxWindow, SumWindow])
def test_what_is_no_dump_is_refused(window: type[MeanWindow], dumped: object) -> None:
    kept = window(60.0)
    with pytest.raises(CorruptDataError):
        kept.load(dumped)
