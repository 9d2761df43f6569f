"""The controller of streams on simulated links: near the best, never far beyond, and quick to give way."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.objectstore.transfers.concurrency import StreamController

WINDOWS = 200


class Link:
    """Each stream gets `each`, all together `capacity`; beyond `crowd` streams they hinder each other."""

    def __init__(self, capacity: float, each: float, crowd: int, noise: float, seed: int) -> None:
        self.capacity, self.each, self.crowd = capacity, each, crowd
        self._noise = noise
        self._random = random.Random(seed)

    def true_rate(self, streams: int) -> float:
        hindered = 0.9 ** max(0, streams - self.crowd)
        return min(self.capacity, streams * self.each) * hindered

    def rate(self, streams: int) -> float:
        return self.true_rate(streams) * self._random.uniform(1 - self._noise, 1 + self._noise)

    def best(self, most: int) -> float:
        return max(self.true_rate(streams) for streams in range(1, most + 1))


links = st.builds(
    Link,
    capacity=st.floats(1e6, 1e10),
    each=st.floats(1e6, 1e9),
    crowd=st.integers(8, 64),
    noise=st.sampled_from([0.0, 0.01]),
    seed=st.integers(0, 1 << 20),
)


@given(link=links, most=st.integers(1, 64), start=st.integers(1, 8))
def test_it_comes_near_the_best_rate_and_stays_there(link: Link, most: int, start: int) -> None:
    controller = StreamController(most=most, streams=start)
    rates = []
    for _ in range(WINDOWS):
        assert 1 <= controller.streams <= most
        rates.append(link.true_rate(controller.streams))
        controller.observe(link.rate(controller.streams))
    settled = rates[WINDOWS // 2 :]
    assert sum(settled) / len(settled) >= 0.7 * min(link.best(most), link.best(max(1, link.crowd)))


@given(link=links, most=st.integers(1, 64))
def test_it_does_not_use_many_more_streams_than_pay(link: Link, most: int) -> None:
    controller = StreamController(most=most)
    counts = []
    for _ in range(WINDOWS):
        counts.append(controller.streams)
        controller.observe(link.rate(controller.streams))
    enough = max(4, -(-link.capacity // link.each))  # as many as fill the link, or as it starts with
    settled = sorted(counts[WINDOWS // 2 :])
    assert settled[len(settled) // 2] <= 2 * enough


@given(allowed=st.integers(1, 40), most=st.integers(1, 64))
def test_a_server_that_refuses_more_than_so_many_is_rarely_asked_for_more(allowed: int, most: int) -> None:
    controller = StreamController(most=most)
    refused = 0
    for _ in range(WINDOWS):
        if controller.streams > allowed:
            refused += 1
            controller.refused()
        else:
            controller.observe(controller.streams * 1e7)
    assert controller.streams <= max(allowed, 2 * allowed)
    # Doubling overshoots a few times at first, then the pauses between two tries grow.
    assert refused <= 25


def test_a_refusal_takes_half_and_one_stream_is_left_at_last() -> None:
    controller = StreamController(most=64, streams=40)
    seen = []
    for _ in range(8):
        controller.refused()
        seen.append(controller.streams)
    assert seen == [20, 10, 5, 2, 1, 1, 1, 1]


def test_a_network_that_grows_faster_is_noticed() -> None:
    controller = StreamController(most=64)
    for _ in range(100):
        controller.observe(min(5e7, controller.streams * 1e7))
    before = controller.streams
    for _ in range(400):
        controller.observe(min(50e7, controller.streams * 1e7))
    assert controller.streams > 3 * before
