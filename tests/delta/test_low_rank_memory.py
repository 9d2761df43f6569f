"""A window of a low-rank recipe takes the same room however large the factors are that it asks for."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from textnlp_fast.delta import low_rank, low_rank_tiles
from textnlp_fast.delta.low_rank import MAX_FACTOR_ELEMENTS, MAX_RANK, Factors
from textnlp_fast.delta.low_rank_tiles import ROOM_BYTES
from textnlp_fast.delta.recipe import LowRank

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
MIB = 1 << 20
# How far the allocator's own objects may take it.
SLACK_BYTES = MIB // 4

# (rows, columns, rank), with factors of up to 2^28 elements; the window's first byte and its length.
LARGEST = [
    pytest.param((4096, 4096, MAX_RANK), (8192 * 7, 96), id="the largest rank, part of a row"),
    pytest.param((4, MAX_FACTOR_ELEMENTS, 1), (2**29 - 2 * MIB, 4 * MIB), id="the widest, across two rows"),
    pytest.param((MAX_FACTOR_ELEMENTS, 1, 1), (2**28, 4 * MIB), id="the highest"),
    pytest.param((1 << 20, 1, 256), (2**20, MIB), id="high and narrow"),
    pytest.param((3, 1 << 16, 4096), (2**17 - 64, 128), id="a few elements of all columns"),
    pytest.param((1 << 14, 1 << 13, 512), (0, 2 * MIB), id="a large adapter"),
]


class Counted:
    """What Python has allocated, and on top of it what the core takes for as long as it works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        self.asked = 0
        predict_into = low_rank.predict_into

        def counted(base: Any, out: Any, factors: Factors, **options: Any) -> None:
            floats = factors.rank * (factors.columns + factors.rows)
            self.most = max(self.most, tracemalloc.get_traced_memory()[0] + 4 * floats)
            predict_into(base, out, factors, **options)

        monkeypatch.setattr(low_rank, "predict_into", counted)

    def held(self, _digest: str, begin: int, end: int) -> bytearray:
        self.asked = max(self.asked, end - begin)
        return bytearray(end - begin)


@pytest.mark.parametrize(("shape", "window"), LARGEST)
def test_the_largest_recipes(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], window: tuple[int, int]
) -> None:
    recipe = LowRank(A, B, C, *shape, 1.0, "BF16", "F32", "F32")
    counted = Counted(monkeypatch)
    out = bytearray(window[1])
    recipe.read_into(0, memoryview(out)[:2], counted.held)  # what is loaded once counts for nothing
    tracemalloc.start()
    try:
        counted.most = 0
        recipe.read_into(window[0], out, counted.held)
        peak = max(counted.most, tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert counted.asked <= MIB
    assert peak <= ROOM_BYTES + SLACK_BYTES, f"{peak / MIB:.1f} of {ROOM_BYTES / MIB:.1f} MiB"
    assert not any(out)


def test_the_room_is_a_small_part_of_what_the_format_allows() -> None:
    assert ROOM_BYTES <= 32 * MIB
    assert 2 * 4 * MAX_FACTOR_ELEMENTS >= 64 * ROOM_BYTES
    assert low_rank_tiles._A_ELEMENTS >= 32 * MAX_RANK  # columns of the largest rank
    assert low_rank_tiles._B_ELEMENTS >= 8 * MAX_RANK
