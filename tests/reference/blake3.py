"""BLAKE3 as its paper states it, one word at a time. Slow, short, and the judge of the fast ones.

Numbers of sections are those of the specification (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020).
"""

from __future__ import annotations

import struct

WORD = 0xFFFFFFFF
# Table 1: the initialization vector, and the permutation of the message words.
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
# Table 3: the domain flags.
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
KEYED_HASH, DERIVE_KEY_CONTEXT, DERIVE_KEY_MATERIAL = 16, 32, 64


def rotate_right(word: int, count: int) -> int:
    return (word >> count | word << (32 - count)) & WORD


def mix(v: list[int], at: tuple[int, int, int, int], x: int, y: int) -> None:
    """Section 2.2: the function G."""
    a, b, c, d = at
    v[a] = (v[a] + v[b] + x) & WORD
    v[d] = rotate_right(v[d] ^ v[a], 16)
    v[c] = (v[c] + v[d]) & WORD
    v[b] = rotate_right(v[b] ^ v[c], 12)
    v[a] = (v[a] + v[b] + y) & WORD
    v[d] = rotate_right(v[d] ^ v[a], 8)
    v[c] = (v[c] + v[d]) & WORD
    v[b] = rotate_right(v[b] ^ v[c], 7)


def compress(value: tuple[int, ...], block: bytes, counter: int, flags: int) -> tuple[int, ...]:
    """Section 2.2: the compression function, cut to its first eight words."""
    m = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = [*value, *IV[:4], counter & WORD, counter >> 32, len(block), flags]
    for _ in range(7):
        for i in range(4):
            mix(v, (i, 4 + i, 8 + i, 12 + i), m[2 * i], m[2 * i + 1])
        for i in range(4):
            diagonal = (i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
            mix(v, diagonal, m[8 + 2 * i], m[9 + 2 * i])
        m = tuple(m[i] for i in PERMUTATION)
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def hash_chunk(data: bytes, key: tuple[int, ...], number: int, flags: int) -> tuple[int, ...]:
    """Section 2.4: up to 1024 bytes, block by block; ``flags`` with ROOT when this chunk is all there is."""
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
    value = key
    for index, block in enumerate(blocks):
        here = flags & ~ROOT
        if index == 0:
            here |= CHUNK_START
        if index == len(blocks) - 1:
            here |= CHUNK_END | (flags & ROOT)
        value = compress(value, block, number, here)
    return value


def hash_tree(data: bytes, key: tuple[int, ...], number: int, flags: int) -> tuple[int, ...]:
    """Section 2.1: the left subtree takes the largest power of two of chunks that leaves the right a byte."""
    if len(data) <= 1024:
        return hash_chunk(data, key, number, flags)
    left_chunks = 1
    while 2 * left_chunks * 1024 < len(data):
        left_chunks *= 2
    split = left_chunks * 1024
    left = hash_tree(data[:split], key, number, flags & ~ROOT)
    right = hash_tree(data[split:], key, number + left_chunks, flags & ~ROOT)
    return compress(key, struct.pack("<16I", *left, *right), 0, flags | PARENT)


def blake3(data: bytes, key: bytes | None = None) -> bytes:
    """Section 2.3: hash and keyed_hash, 32 bytes."""
    if key is None:
        return struct.pack("<8I", *hash_tree(data, IV, 0, ROOT))
    return struct.pack("<8I", *hash_tree(data, struct.unpack("<8I", key), 0, ROOT | KEYED_HASH))


def derive_key(context: str, material: bytes) -> bytes:
    """Section 2.3: derive_key, 32 bytes."""
    context_key = hash_tree(context.encode(), IV, 0, ROOT | DERIVE_KEY_CONTEXT)
    return struct.pack("<8I", *hash_tree(material, context_key, 0, ROOT | DERIVE_KEY_MATERIAL))
