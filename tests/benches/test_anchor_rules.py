"""The bench's sequences go through what was measured, and its rules are what their names say."""

from __future__ import annotations

import pytest

from anchors import CURVES, FIXED, PRICES, READERS, SNAPSHOT_BITS, WEIGHTS, bits_at, run, sequence
from reference.anchors import chains, total_usd
from textnlp_fast.storage.anchor_optimum import cheapest_bases


def test_curves_go_through_their_points() -> None:
    for curve in CURVES.values():
        for steps, bits in curve:
            assert bits_at(curve, steps) == pytest.approx(bits)
        assert bits_at(curve, 1e12) <= SNAPSHOT_BITS


def test_sequences_repeat_and_grow_with_distance() -> None:
    for family in CURVES:
        sizes = sequence(family, 12, seed=3)
        assert sizes == sequence(family, 12, seed=3) != sequence(family, 12, seed=4)
        last = [sizes[-1].delta_bytes[base] for base in range(11)]
        assert last == sorted(last, reverse=True)
        assert max(last) <= sizes[-1].snapshot_bytes == int(SNAPSHOT_BITS * WEIGHTS / 8)


def test_rules() -> None:
    sizes, prices, readers = sequence("rl", 11, seed=0), PRICES["egress"], READERS["mixed"]
    bases = {name: rule(sizes, prices, readers) for name, rule in FIXED.items()}
    assert bases["always snapshot"] == (None,) * 11
    assert bases["always predecessor"] == (None, *range(10))
    assert bases["snapshot every 4"] == (None, 0, 1, 2, None, 4, 5, 6, None, 8, 9)
    assert bases["snapshot every 8, others against it"] == (None, *(0,) * 7, None, 8, 8)
    assert bases["depth 8, then root"] == (None, 0, 1, 2, 3, 4, 5, 6, 7, 0, 9)


def test_no_rule_beats_the_optimum() -> None:
    for table in run(count=3, seeds=1).tables:
        for row in table["rows"]:
            assert min(row[1:]) >= 1 - 1e-9, row[0]


@pytest.mark.parametrize("family", CURVES)
def test_bases_off_the_predecessors_chain_would_not_be_cheaper(family: str) -> None:
    sizes = sequence(family, 5, seed=1)
    for prices in PRICES.values():
        for readers in READERS.values():
            chosen = total_usd(sizes, cheapest_bases(sizes, prices, readers), prices, readers)
            least = min(total_usd(sizes, one, prices, readers) for one in chains(5, any_base=True))
            assert chosen == pytest.approx(least)
