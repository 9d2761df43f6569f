"""Memory is that of a few blocks, however long the tensor is."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from delta.inputs import Words
from textnlp_fast.delta.approximate import Approximation, LowRank, MaxAbs, MaxUlp, SignScale, Threshold, TopK
from textnlp_fast.delta.change import BLOCK_ELEMENTS, Change
from textnlp_fast.delta.quantise import Quantiser

ALL = (MaxUlp(2), MaxAbs(1e-3), TopK(0.1), Threshold(1e-3), LowRank(2), SignScale("row"))
# Eight numbers of eight bytes an element of one block, and the sample's frames.
LIMIT_BYTES = 8 * 8 * BLOCK_ELEMENTS + (4 << 20)


def made(begin: int, end: int) -> tuple[Words, Words]:
    """Weights that are computed when they are read, and lie nowhere."""
    place = np.arange(begin, end, dtype=np.uint32)
    noise = (place * np.uint32(2654435761)) >> np.uint32(16)
    base = (0x3C00 + (noise & np.uint32(0x1FF))).astype(np.uint16)
    return base + (noise >> np.uint32(13)).astype(np.uint16), base


@pytest.mark.parametrize("asked", ALL, ids=str)
def test_peak_is_a_few_blocks(asked: Approximation) -> None:
    shape = (3000, 1000)
    warm = Change("warm", "BF16", (8, 100), made)
    list(Quantiser(asked, warm).blocks())
    tracemalloc.start()
    try:
        quantiser = Quantiser(asked, Change("weights", "BF16", shape, made))
        sent = sum(block.size for block in quantiser.blocks())
        promise = quantiser.promise()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sent == promise.elements == 3_000_000
    assert promise.kept > 0
    assert peak < LIMIT_BYTES, f"{peak / 2**20:.1f} MiB"
    # In float64 the tensor alone would not fit twice.
    assert 2 * 8 * sent > LIMIT_BYTES
