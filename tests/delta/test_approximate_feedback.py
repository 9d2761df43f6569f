"""Chains: closed, the error stays that of one step; open, it grows. And with a backlog every weight gets its turn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from delta.inputs import Words, moved, weights
from textnlp_fast.delta.approximate import Approximation, LowRank, MaxAbs, MaxUlp, SignScale, TopK
from textnlp_fast.delta.elements import ELEMENTS
from textnlp_fast.delta.feedback import Backlog, ClosedLoop
from textnlp_fast.delta.promise import Measurement
from textnlp_fast.delta.quantise import quantise
from textnlp_fast.errors import InvalidInputError

STEPS = 50
SHAPE = (64, 48)
COUNT = 64 * 48
BF16 = ELEMENTS["BF16"]


def versions() -> list[Words]:
    """A walk with a direction for every weight, as training has."""
    rng = np.random.default_rng(11)
    masters = rng.normal(0, 0.02, COUNT)
    direction = rng.normal(0, 1e-5, COUNT)
    found = []
    for _ in range(STEPS + 1):
        found.append(BF16.rounded(masters))
        masters = masters + direction + rng.normal(0, 1e-5, COUNT)
    return found


def off(truth: Words, held: Words) -> tuple[int, float, float]:
    measured = Measurement("BF16")
    measured.add(truth, held)
    return measured.max_ulp, measured.max_abs, measured.dropped_l2


def open_loop(asked: Approximation, true: list[Words]) -> Words:
    """What readers hold if each patch is made between two true versions, and its change added to what they have."""
    held = true[0].copy()
    for before, after in itertools.pairwise(true):
        sent, _ = quantise(asked, after, before, dtype="BF16", shape=SHAPE)
        steps = BF16.ordered(sent).astype(np.int64) - BF16.ordered(before).astype(np.int64)
        held = BF16.from_ordered((BF16.ordered(held).astype(np.int64) + steps).astype(np.uint16))
    return held


@pytest.mark.parametrize(("asked", "which", "bound"), [(MaxUlp(2), 0, 2), (MaxAbs(1e-4), 1, 1e-4)], ids=str)
def test_a_closed_loop_stays_within_one_bound(asked: Approximation, which: int, bound: float) -> None:
    true = versions()
    loop = ClosedLoop(true[0], dtype="BF16", shape=SHAPE)
    changed = 0
    for version in true[1:]:
        held, promise = loop.next(asked, version)
        assert off(version, held)[which] <= bound
        changed += promise.kept
    assert changed > 0
    assert off(true[-1], open_loop(asked, true))[which] > 3 * bound


@pytest.mark.parametrize("asked", [TopK(0.05), LowRank(4), SignScale("row")], ids=str)
def test_closing_the_loop_brings_readers_nearer(asked: Approximation) -> None:
    true = versions()
    loop = ClosedLoop(true[0], dtype="BF16", shape=SHAPE)
    for version in true[1:]:
        loop.next(asked, version)
    behind = off(true[-1], true[0])[2]
    assert off(true[-1], loop.held)[2] < 0.8 * off(true[-1], open_loop(asked, true))[2]
    assert off(true[-1], loop.held)[2] < behind
    # When training stops, what was dropped follows.
    for _ in range(STEPS):
        loop.next(asked, true[-1])
    if isinstance(asked, TopK):
        assert np.array_equal(loop.held, true[-1])


def starved(backlog: Backlog | None) -> set[int]:
    """Weights that are never sent while half of them change a little once and the other half much, for ever."""
    count, steps = 64, 1000
    rng = np.random.default_rng(4)
    start = weights("F32", count, 1, size=1.0)
    small, large = np.arange(0, count, 2), np.arange(1, count, 2)
    truth = ELEMENTS["F32"].values(start)
    truth[small] += 2e-3 * (1 + np.arange(small.size) / small.size)
    loop = ClosedLoop(start, dtype="F32", shape=(count,), backlog=backlog)
    waiting = set(range(count))
    for _ in range(steps):
        truth[large] += rng.uniform(0.01, 0.02, large.size)
        version = ELEMENTS["F32"].rounded(truth)
        held, _ = loop.next(TopK(0.05), version)
        waiting -= set(np.flatnonzero(held == version).tolist())
    return waiting


def test_with_a_backlog_every_weight_is_sent() -> None:
    assert len(starved(None)) == 32
    assert starved(Backlog(np.zeros(64, np.float32))) == set()


def test_a_backlog_counts_what_waits() -> None:
    base = np.array([1, 1, 1, 1], np.float32).view(np.uint32)
    target = np.array([1, 2, 4, np.nan], np.float32).view(np.uint32)
    backlog = Backlog(np.zeros(4, np.float32))
    loop = ClosedLoop(base, dtype="F32", shape=(4,), backlog=backlog)
    held, _ = loop.next(TopK(0.25), target)  # the NaN cannot wait
    assert held.view(np.float32)[:3].tolist() == [1, 1, 1]
    assert held[3] == target[3]
    assert backlog.waiting.tolist() == [0, 1, 3, 0]
    held, _ = loop.next(TopK(0.25), target)
    assert held.view(np.float32)[:3].tolist() == [1, 1, 4]
    assert backlog.waiting.tolist() == [0, 2, 0, 0]
    loop.next(TopK(0.25), loop.held.copy())  # back where readers are: nothing waits
    assert backlog.waiting.tolist() == [0, 0, 0, 0]


def test_a_backlog_of_another_tensor_is_refused() -> None:
    base = weights("BF16", 10, 1)
    loop = ClosedLoop(base, dtype="BF16", shape=(10,), backlog=Backlog(np.zeros(9, np.float32)))
    with pytest.raises(InvalidInputError, match="10 BF16 and a backlog of 9"):
        loop.next(TopK(0.1), moved("BF16", base, 2, size=0.1))
    with pytest.raises(InvalidInputError, match="flat fp32"):
        Backlog(np.zeros((3, 3), np.float32))
