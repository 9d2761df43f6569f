"""The token bucket, on a clock of its own, and what it does to a real transfer."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.objectstore.transfers.bandwidth import TokenBucket
from textnlp_fast.objectstore.transfers.progress import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(1e3, 1e9),
    pieces=st.lists(st.tuples(st.integers(1, 1 << 22), st.floats(0, 2)), min_size=1, max_size=60),
)
def test_no_stretch_of_time_carries_more_than_the_rate_and_a_burst(
    rate: float, pieces: list[tuple[int, float]]
) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    passed = 0
    for size, idle_s in pieces:
        clock.now += idle_s
        passed += size
        clock.now += bucket.take(size)
        assert passed <= rate * (clock.now + 0.25) * (1 + 1e-9) + 1


@given(rate=st.floats(1e3, 1e9), sizes=st.lists(st.integers(1, 1 << 22), min_size=1, max_size=60))
def test_it_wastes_no_time(rate: float, sizes: list[int]) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    for size in sizes:
        clock.now += bucket.take(size)
    assert clock.now <= sum(sizes) / rate * (1 + 1e-6) + 1e-6


def test_many_threads_share_one_bucket() -> None:
    clock = Clock()
    bucket = TokenBucket(1e6, clock)
    waits: list[float] = []

    def take() -> None:
        for _ in range(100):
            waits.append(bucket.take(1000))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 800 kB of which 250 were there: the last to pay waits for the rest.
    assert max(waits) == 0.55


def test_the_rate_shown_is_that_of_the_last_seconds_and_the_time_left_follows_from_it() -> None:
    clock = Clock()
    meter = Meter(1_000_000, 10, clock)
    meter.resumed(2, 200_000)
    for _ in range(20):
        clock.now += 1
        meter.add(1000)
        meter.now()
    for _ in range(30):
        clock.now += 1
        meter.add(10_000)
        last = meter.now()
    assert last.rate_bytes_per_s == 10_000
    assert last.done_bytes == 200_000 + 20_000 + 300_000
    assert last.eta_s == 48
    meter.add(-300_000)
    assert meter.now().done_bytes == 220_000
    assert meter.now().rate_bytes_per_s >= 0
