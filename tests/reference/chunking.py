"""The sequential definition of the chunk boundaries, byte after byte. Slow, short, obviously right."""

from __future__ import annotations

import json
from pathlib import Path

# The constants are the protocol's; the copy here is read from a file that the core does not use.
GEAR = [
    int(word, 16) for word in json.loads((Path(__file__).parents[1] / "vectors/chunk_gear.json").read_text())
]


def boundaries(data: bytes) -> list[int]:
    ends, start = [], 0
    while start < len(data):
        h, end = 0, min(start + 131072, len(data))
        for position in range(start + 8192 - 64 - 1, end):
            h = ((h << 1) + GEAR[data[position]]) & 0xFFFFFFFFFFFFFFFF
            if h & 0xFFFF000000000000 == 0 and position + 1 - start >= 8192:
                end = position + 1
                break
        ends.append(end)
        start = end
    return ends
