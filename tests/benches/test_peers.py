"""Peers give back what they were given, in every element type; the bench's verdicts say what its figures say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from criteria import Sizes, at_least, at_most, size_verdicts
from formats import FORMATS
from pairs import Pair, Tensor
from peers.bitx import BitX
from peers.gaps import GapsAndValues
from peers.native import zstd_libraries
from peers.peer import PeerUnavailableError
from peers.roster import delta_size, standalone_size
from size import coded, sizes

FLOATS = ("BF16", "F16", "F32", "F8_E4M3", "F8_E5M2")


def _sides(
    count: int, width: int, changes: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    random = np.random.default_rng(count)
    base = random.integers(0, 256, count * width, dtype=np.uint8)
    target = base.copy()
    target.reshape(-1, width)[changes, random.integers(0, width, len(changes))] ^= 0x5A
    return target, base


@pytest.mark.parametrize("dtype", FLOATS)
def test_peers_round_trip(dtype: str) -> None:
    count = 20_000
    random = np.random.default_rng(5)
    target, base = _sides(count, FORMATS[dtype].width, random.choice(count, 700, replace=False))
    missing: list[str] = []
    for roster, beside in ((delta_size(missing, dtype), base), (standalone_size(missing, dtype), None)):
        if not roster:
            pytest.skip(f"no peer is installed: {missing}")
        for variants in roster.values():
            for variant in variants:
                size, speed = coded(variant, target, beside, np.empty_like(target))
                assert 0 < size < 1.2 * target.size + 1000
                assert speed > 0


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 31, 65, 1023, 5000])
@pytest.mark.parametrize("block", [64, 1 << 17])
def test_own_kernels_at_ends_and_over_long_gaps(width: int, count: int, block: int) -> None:
    try:
        library = zstd_libraries()[0]
        peers = [
            BitX(library, block, width=width),
            GapsAndValues(library, block, width=width, level=1),
        ]
    except PeerUnavailableError as error:
        pytest.skip(str(error))
    places = np.array([0, 255, 256, 510, 1021, 1022, count - 1])
    for changes in (places[places < count], np.arange(count), places[:0]):
        target, base = _sides(count, width, changes)
        for peer in peers:
            payload = peer.encode(target, base).copy()
            assert np.array_equal(peer.decode(payload, base, np.empty_like(target)), target)
            in_place = base.copy()
            assert np.array_equal(peer.decode(payload, in_place, in_place), target)


def _pair(kind: str = "late_rl") -> Pair:
    random = np.random.default_rng(6)
    base = random.integers(0x3C00, 0x3F00, 3000).astype("<u2")
    target = base + (random.random(3000) < 0.1).astype("<u2")
    tensors = [
        tuple(
            Tensor(name, "BF16", side[part].view(np.uint8))
            for name, part in (("a", slice(2000)), ("b", slice(2000, None)))
        )
        for side in (base, target)
    ]
    return Pair("a -> b", kind, tensors[0], tensors[1], 0.001, True)


def test_a_pair_is_measured_with_ours_beside_entropy() -> None:
    pair = _pair()
    found = sizes(pair.target, pair.base, {}, [])
    assert found.ours is not None
    assert 0 < found.apart <= found.pooled < found.ours < 16
    assert found.best() is None
    assert found.ratio() is None


def test_verdicts_follow_the_limits() -> None:
    pair = _pair()
    peers = {"BitX": 0.5, "XOR openzl": 0.2, "bsdiff4": 0.1}
    measured = Sizes(0.104, 0.1, 0.09, peers, {"BitX": 0.5, "XOR openzl": 0.2}, {})
    assert measured.best() == "XOR openzl"
    assert measured.ratio(["BitX"]) == pytest.approx(0.208)

    def passed(found: Sizes, *, real: bool = True) -> dict[str, bool | None]:
        judged = size_verdicts([replace(pair, real=real)], {pair.name: found}, {})
        return {verdict.criterion: verdict.passed for verdict in judged}

    verdicts = passed(measured)
    assert verdicts["deltas within 4 % of pooled H(ULP given the base's exponent)"] is True
    assert verdicts["no pair above the prototype's bytes, where that is less"] is False
    assert verdicts["later RL steps at most 0.53x the best practical peer"] is True
    assert verdicts["first steps at most 0.12x the best practical peer"] is None
    verdicts = passed(replace(measured, ours=0.11))
    assert verdicts["deltas within 4 % of pooled H(ULP given the base's exponent)"] is False
    assert verdicts["later RL steps at most 0.53x the best practical peer"] is False
    assert verdicts["later RL steps at most 0.53x the best practical delta recipe"] is True
    assert set(passed(measured, real=False).values()) == {None}


def test_a_verdict_names_the_nearest_case() -> None:
    over = at_most("c", {"x": 1.0, "y": 3.0}, {"x": 2.0, "y": 2.0}, str)
    assert (over.passed, over.measured) == (False, "nearest to the limit: y 3.0 of 2.0")
    assert over.note == "over: y 3.0 > 2.0"
    assert at_least("c", {"x": 1.9, "y": 2.0}, 1.8).passed
    assert at_least("c", {"x": 1.7}, 1.8).note == "below: x 1.70x"
    assert at_least("c", {}, 1.8).passed is None
