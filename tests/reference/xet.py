"""The Xet protocol's chunks and file hash, sequentially and without tricks (https://huggingface.co/docs/xet)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

MINIMUM, MAXIMUM, MASK = 8192, 131072, 0xFFFF000000000000
CHUNK_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
FILE_KEY = bytes(32)

Keyed = Callable[[bytes, bytes], bytes]  # (data, key) -> digest


def boundaries(data: bytes, gear: Sequence[int]) -> list[int]:
    """Offsets behind each chunk."""
    ends = []
    start = 0
    while start < len(data):
        end = min(start + MAXIMUM, len(data))
        h = 0
        for at in range(min(start + MINIMUM - 65, end), end):
            h = ((h << 1) + gear[data[at]]) & 0xFFFFFFFFFFFFFFFF
            if at + 1 - start >= MINIMUM and h & MASK == 0:
                end = at + 1
                break
        ends.append(end)
        start = end
    return ends


def to_hex(digest: bytes) -> str:
    return "".join(f"{int.from_bytes(digest[at : at + 8], 'little'):016x}" for at in range(0, 32, 8))


def parents(nodes: list[tuple[bytes, int]], keyed: Keyed) -> list[tuple[bytes, int]]:
    """One level up: cut the list into groups and hash the lines of each."""
    result = []
    group: list[tuple[bytes, int]] = []
    left = len(nodes)
    allowed = left
    for digest, size in nodes:
        if not group:
            allowed = left
        group.append((digest, size))
        left -= 1
        index = len(group) - 1
        cut = index >= 2 and int.from_bytes(digest[24:], "little") % 4 == 0
        if (allowed > 2 and (cut or len(group) == 9)) or left == 0:
            lines = "".join(f"{to_hex(child)} : {child_size}\n" for child, child_size in group)
            result.append((keyed(lines.encode(), NODE_KEY), sum(child_size for _, child_size in group)))
            group = []
    return result


def file_hash(data: bytes, ends: Sequence[int], keyed: Keyed) -> str:
    """The file's hash in the protocol's hexadecimal form, given its chunk ends."""
    nodes = []
    start = 0
    for end in ends:
        nodes.append((keyed(data[start:end], CHUNK_KEY), end - start))
        start = end
    if not nodes:
        return "0" * 64
    while len(nodes) > 1:
        nodes = parents(nodes, keyed)
    return to_hex(keyed(nodes[0][0], FILE_KEY))
