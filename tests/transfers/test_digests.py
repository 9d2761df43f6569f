"""What parts leave, read in any order, makes the digests of the whole: against the ``blake3`` and Google's packages."""

from __future__ import annotations

import random
from pathlib import Path

import blake3
import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.objectstore.transfers.crc32c import crc32c, joined_crc32c
from textnlp_fast.objectstore.transfers.digests import PartHasher, right_parts, whole_digest
from textnlp_fast.objectstore.transfers.protocol import plan_parts, whole_chunks

POOL = random.Random(5).randbytes(3_000_000)


@settings(max_examples=60)
@given(size=st.integers(0, len(POOL)), wanted=st.integers(1 << 16, 2 << 20), seed=st.integers(0, 1000))
def test_parts_in_any_order_make_the_digests_of_the_whole(size: int, wanted: int, seed: int) -> None:
    part_bytes = whole_chunks(wanted)
    assert wanted <= part_bytes < wanted + 1024
    parts = plan_parts(size, part_bytes)
    shuffled = random.Random(seed).sample(parts, len(parts))
    claims = {}
    for part in shuffled:
        hasher = PartHasher(part, size)
        for begin in range(0, part.length, 70_001):
            end = part.offset + min(part.length, begin + 70_001)
            hasher.update(memoryview(POOL)[part.offset + begin : end])
        claims[part.number] = hasher.claim()
    found = whole_digest([claims[part.number] for part in parts], size, part_bytes)
    assert found == blake3.blake3(POOL[:size]).hexdigest()
    each = [(crc32c(0, memoryview(POOL)[p.offset : p.offset + p.length]), p.length) for p in parts]
    assert joined_crc32c(each) == google_crc32c.value(POOL[:size])


def test_a_part_that_is_not_what_was_claimed_is_not_believed(tmp_path: Path) -> None:
    size, part_bytes = 1_000_000, whole_chunks(100_000)
    parts = plan_parts(size, part_bytes)
    claims = {}
    for part in parts:
        hasher = PartHasher(part, size)
        hasher.update(memoryview(POOL)[part.offset : part.offset + part.length])
        claims[part.number] = hasher.claim()
    claims[4] = claims[4][:64]  # a value of several
    claims[5] = claims[6]
    path = tmp_path / "file"
    path.write_bytes(POOL[: parts[2].offset] + b"\x00" + POOL[parts[2].offset + 1 : size - 1])
    with path.open("rb") as file:
        right = right_parts(file.fileno(), parts, claims, size)
    # 2 was harmed, the last one is short, and of 4 and 5 something else was claimed.
    assert right == {0, 1, 3, 6, 7, 8}


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_of_what_is_one_part_the_digest_is_noted(size: int) -> None:
    hashers = [PartHasher(part, size) for part in plan_parts(size, 100_352)]
    for hasher in hashers:
        hasher.update(memoryview(POOL)[:size])
    claims = [hasher.claim() for hasher in hashers]
    assert whole_digest(claims, size, 100_352) == blake3.blake3(POOL[:size]).hexdigest()
