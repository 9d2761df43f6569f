"""Data to be chunked, of kinds that cut differently, and the golden boundaries of some of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np

from reference import chunking as reference

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/chunk_boundaries.json").read_text())


def make(kind: str, size: int, seed: int) -> bytes:
    """Data of one kind: the same call gives the same bytes on every machine."""
    generator = random.Random(f"{kind}/{seed}")
    if kind == "random":
        return generator.randbytes(size)
    if kind == "constant":
        return bytes([seed & 0xFF]) * size
    if kind == "repeating":
        period = generator.randbytes(generator.randrange(1, 300))
        return (period * (size // len(period) + 1))[:size]
    if kind == "two_values":
        bits = np.unpackbits(np.frombuffer(generator.randbytes(size // 8 + 1), np.uint8))[:size]
        return bytes(bits * np.uint8(generator.randrange(1, 256)))
    if kind == "patches":
        pieces = []
        while sum(map(len, pieces)) < size:
            length = generator.randrange(1, 40000)
            pieces.append(
                bytes([generator.randrange(256)]) * length
                if generator.random() < 0.5
                else generator.randbytes(length)
            )
        return b"".join(pieces)[:size]
    if kind == "dense":
        # A window that allows an end, again and again: the minimum decides, and skipped positions matter.
        pieces = []
        while sum(map(len, pieces)) < size:
            pieces.append(
                generator.randbytes(generator.choice([1, 70, 500, 4000, 8100, 8128, 8191])) + ENDING
            )
        return b"".join(pieces)[:size]
    raise AssertionError(kind)


def find_ending() -> bytes:
    """64 bytes whose Gear hash has its top 16 bits zero."""
    data = random.Random(7).randbytes(400_000)
    h = 0
    for position, byte in enumerate(data):
        h = ((h << 1) + reference.GEAR[byte]) & 0xFFFFFFFFFFFFFFFF
        if position >= 64 and h >> 48 == 0:
            return data[position - 63 : position + 1]
    raise AssertionError("no candidate in 400,000 bytes")


ENDING = find_ending()
KINDS = ["random", "constant", "repeating", "two_values", "patches", "dense"]
EDGES = [
    0,
    1,
    63,
    64,
    65,
    8127,
    8128,
    8191,
    8192,
    8193,
    8256,
    98303,
    98304,
    98305,
    131071,
    131072,
    131073,
    262144,
    262145,
]
