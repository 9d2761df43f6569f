"""Leases: of any number of waiters, on clocks that run apart, never two believe that they hold one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import ConflictError, CorruptDataError
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.objectstore.lease import RATE_BOUND, Lease, acquire

SECONDS = 10.0
_numbers = itertools.count()


def new_store() -> ObjectStore:
    return open_store(f"memory://lease-{os.getpid()}-{next(_numbers)}")


class Time:
    """The true time. Sleeping lets it pass, and others act."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self, rate: float, offset: float) -> Callable[[], float]:
        return lambda: offset + self.now * rate


class Party:
    """Someone who wants the lease, by a clock of its own; a step of its life is one action."""

    def __init__(self, name: str, store: ObjectStore, time: Time, rate: float, offset: float) -> None:
        self.name, self.store, self.time = name, store, time
        self.clock = time.clock(rate, offset)
        self.rate = rate
        self.lease: Lease | None = None

    def act(self, action: str, meanwhile: Callable[[], None]) -> None:
        if action == "acquire" and self.lease is None:

            def sleep(seconds: float) -> None:
                self.time.now += seconds / self.rate
                meanwhile()

            with suppress(ConflictError):
                self.lease = acquire(
                    self.store,
                    "leases/x.json",
                    holder=self.name,
                    seconds=SECONDS,
                    clock=self.clock,
                    sleep=sleep,
                )
        elif action == "renew" and self.lease is not None:
            try:
                self.lease.renew()
            except ConflictError:
                self.lease = None
        elif action == "release" and self.lease is not None:
            self.lease.release()
            self.lease = None
        elif action == "forget":  # killed: the lease stays where it is
            self.lease = None

    @property
    def believes(self) -> bool:
        return self.lease is not None and self.lease.is_held


STEPS = st.tuples(
    st.integers(0, 2), st.sampled_from(["acquire", "acquire", "renew", "release", "forget"]), st.floats(0, 6)
)


@given(
    steps=st.lists(STEPS, min_size=4, max_size=30),
    rates=st.lists(st.floats(1 - RATE_BOUND / 2.2, 1 + RATE_BOUND / 2.2), min_size=3, max_size=3),
    offsets=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
    data=st.data(),
)
@settings(max_examples=300 if "TEXTNLP_FAST_NIGHTLY" in os.environ else 60, deadline=None)
def test_never_two_believe_that_they_hold_it(
    steps: list[tuple[int, str, float]], rates: list[float], offsets: list[float], data: st.DataObject
) -> None:
    store, time = new_store(), Time()
    parties = [Party(f"p{number}", store, time, rates[number], offsets[number]) for number in range(3)]
    tokens: list[int] = []

    def at_most_one() -> None:
        assert sum(party.believes for party in parties) <= 1
        for party in parties:
            if party.believes and party.lease is not None and party.lease.token not in tokens:
                assert not tokens or party.lease.token > tokens[-1]
                tokens.append(party.lease.token)

    for number, action, passed in steps:

        def meanwhile(waiter: int = number) -> None:
            at_most_one()
            other = parties[data.draw(st.sampled_from([each for each in range(3) if each != waiter]))]
            other.act(data.draw(st.sampled_from(["renew", "release", "forget", "rest"])), lambda: None)
            at_most_one()

        parties[number].act(action, meanwhile)
        at_most_one()
        time.now += passed
        at_most_one()


def test_a_lease_that_was_let_go_is_taken_at_once() -> None:
    store = new_store()
    first = acquire(store, "l", holder="a", seconds=60)
    assert first.is_held
    first.release()
    second = acquire(store, "l", holder="b", seconds=60, sleep=_never)
    assert (second.token, second.is_held, first.is_held) == (2, True, False)
    first.release()  # another holds it: nothing happens
    second.renew()


def test_a_living_holder_is_not_disturbed() -> None:
    store, time = new_store(), Time()
    holder = acquire(store, "l", holder="the holder", seconds=60)

    def sleep(seconds: float) -> None:
        time.now += seconds
        holder.renew()

    with pytest.raises(ConflictError, match="the holder is at work"):
        acquire(store, "l", holder="b", seconds=60, clock=time.clock(1, 0), sleep=sleep)
    holder.renew()


def test_a_lease_that_nobody_wrote_is_refused() -> None:
    store = new_store()
    store.create("l", b'{"holder": 3}')
    with pytest.raises(CorruptDataError, match="is no lease"):
        acquire(store, "l", holder="a", seconds=60)


def _never(_: Any) -> None:
    raise AssertionError("nobody holds it: there is nothing to wait for")
