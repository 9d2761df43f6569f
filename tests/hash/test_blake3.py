"""BLAKE3 against the published vectors, the reference and the ``blake3`` package, on every ISA."""

from __future__ import annotations

import json
import random
import struct
import threading
from pathlib import Path
from typing import TypedDict

import blake3 as package
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amounts import examples, nothing_of_the_core
from reference import blake3 as reference
from textnlp_fast import _native, hashing
from textnlp_fast.errors import InvalidInputError


class Case(TypedDict):
    input_bytes: int
    hash: str
    keyed_hash: str
    derive_key: str


VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "blake3.json").read_text())
CASES: list[Case] = VECTORS["cases"]
KEY: bytes = VECTORS["key"].encode()
CONTEXT: str = VECTORS["context"]
POOL = random.Random(3).randbytes(2_500_000)

# The fixture switches sets once a test; hypothesis may then run all its examples.
on_each_isa = settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def expected(data: bytes | memoryview, key: bytes | None = None) -> bytes:
    return package.blake3(data).digest() if key is None else package.blake3(data, key=key).digest()


def pattern(size_bytes: int) -> bytes:
    """The input of the published vectors: byte i is i mod 251."""
    return (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["input_bytes"]))
def test_published_vectors(isa: str, case: Case) -> None:
    data = pattern(case["input_bytes"])
    assert hashing.blake3_hex(data) == case["hash"]
    assert hashing.blake3_hex(data, key=KEY) == case["keyed_hash"]
    assert hashing.derive_key(CONTEXT, data).hex() == case["derive_key"]
    hasher, keyed = hashing.Blake3(), hashing.Blake3(key=KEY)
    for at in range(0, len(data), 300):
        hasher.update(data[at : at + 300])
        keyed.update(data[at : at + 300])
    assert hasher.hexdigest() == case["hash"]
    assert keyed.hexdigest() == case["keyed_hash"]


@nothing_of_the_core
@pytest.mark.parametrize(
    "case", [c for c in CASES if c["input_bytes"] <= 10_000], ids=lambda c: str(c["input_bytes"])
)
def test_the_reference_gives_the_published_vectors(case: Case) -> None:
    data = pattern(case["input_bytes"])
    assert reference.blake3(data).hex() == case["hash"]
    assert reference.blake3(data, KEY).hex() == case["keyed_hash"]
    assert reference.derive_key(CONTEXT, data).hex() == case["derive_key"]


def test_every_short_length_against_the_reference(isa: str) -> None:
    lengths = [
        *range(0, 130),
        191,
        192,
        193,
        1022,
        1023,
        1024,
        1025,
        1087,
        1088,
        1089,
        2047,
        2048,
        2049,
        3072,
        5121,
    ]
    for length in lengths:
        assert hashing.blake3(POOL[:length]) == reference.blake3(POOL[:length]), length


def test_every_number_of_chunks_up_to_two_vectors(isa: str) -> None:
    for chunks in range(1, 67):
        for extra in (-1, 0, 1):
            data = POOL[: chunks * 1024 + extra]
            assert hashing.blake3(data) == expected(data), len(data)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("chunks", [511, 512, 513, 1023, 1024, 1025, 1536, 2048, 2441])
def test_pieces_and_threads(isa: str, chunks: int, threads: int) -> None:
    for extra in (-1, 0, 1):
        data = POOL[: chunks * 1024 + extra]
        assert hashing.blake3(data, threads=threads) == expected(data)
        assert hashing.blake3(data, key=KEY, threads=threads) == expected(data, KEY)


@on_each_isa
@given(
    start=st.integers(0, 70),
    length=st.one_of(st.integers(0, 5000), st.integers(0, 200_000), st.integers(0, 2_400_000)),
    threads=st.integers(0, 4),
)
def test_any_length_at_any_address(isa: str, start: int, length: int, threads: int) -> None:
    data = memoryview(POOL)[start : start + length]
    assert hashing.blake3(data, threads=threads) == expected(data)


# Splits that leave a chunk open, fill one exactly, or hand over whole subtrees.
steps = st.one_of(
    st.integers(0, 3000),
    st.sampled_from([1, 63, 64, 65, 1023, 1024, 1025, 2048, 4096, 65536, 524288, 524289]),
    st.integers(0, 700_000),
)


@on_each_isa
@given(sizes=st.lists(st.tuples(steps, st.integers(1, 3)), max_size=12), keyed=st.booleans())
def test_any_split_gives_the_digest_of_the_whole(isa: str, sizes: list[tuple[int, int]], keyed: bool) -> None:
    key = KEY if keyed else None
    hasher = hashing.Blake3(key=key)
    at = 0
    for size, threads in sizes:
        hasher.update(memoryview(POOL)[at : at + size], threads=threads)
        at = min(at + size, len(POOL))
        prefix = memoryview(POOL)[:at]
        assert hasher.digest() == expected(prefix, key)
    assert hasher.hexdigest() == hashing.blake3_hex(POOL[:at], key=key)


def test_more_pieces_than_one_batch_holds(isa: str) -> None:
    if isa == "portable":
        pytest.skip("a minute of scalar code; the splitting is the same for all")
    data = (POOL[: 1 << 20] * 65)[: (65 << 20) - 77]
    hasher = hashing.Blake3()
    hasher.update(data[:5000], threads=8)
    hasher.update(memoryview(data)[5000:], threads=8)
    digest = expected(data)
    assert hasher.digest() == digest
    assert hashing.blake3(data, threads=3) == digest


@pytest.mark.parametrize("first", [0, 1, 2**32 - 9, 2**32 - 1, 2**32, 2**53])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 33])
def test_chunk_numbers_beyond_32_bits(isa: str, first: int, count: int) -> None:
    data = POOL[: count * 1024]
    values = b"".join(
        struct.pack(
            "<8I", *reference.hash_chunk(data[i * 1024 : i * 1024 + 1024], reference.IV, first + i, 0)
        )
        for i in range(count)
    )
    assert _native.blake3_chunk_values(data, first) == values


def test_a_copy_goes_its_own_way() -> None:
    hasher = hashing.Blake3()
    hasher.update(POOL[:5000])
    clone = hasher.copy()
    hasher.update(b"left")
    clone.update(b"right")
    assert hasher.digest() == package.blake3(POOL[:5000] + b"left").digest()
    assert clone.digest() == package.blake3(POOL[:5000] + b"right").digest()


def test_threads_may_share_a_hash() -> None:
    hasher = hashing.Blake3()
    piece = POOL[:40_000]

    def feed() -> None:
        for _ in range(10):
            hasher.update(piece)
            hasher.update(piece[:0])
            hasher.digest()

    workers = [threading.Thread(target=feed) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert hasher.digest() == package.blake3(piece * 40).digest()


def test_arrays_are_hashed_as_the_bytes_they_are() -> None:
    array = np.arange(6000, dtype=np.float32).reshape(60, 100)
    assert hashing.blake3(array) == package.blake3(array.tobytes()).digest()
    assert hashing.blake3(array.data) == hashing.blake3(bytearray(array.tobytes()))


def test_wrong_arguments_name_what_is_wrong() -> None:
    with pytest.raises(InvalidInputError, match="32 bytes"):
        hashing.blake3(b"", key=b"short")
    with pytest.raises(InvalidInputError, match="32 bytes"):
        hashing.Blake3(key=bytes(33))
    with pytest.raises(InvalidInputError, match="contiguous"):
        hashing.blake3(np.arange(100)[::2])
    with pytest.raises(InvalidInputError, match="buffer protocol"):
        hashing.blake3("text")
    with pytest.raises(InvalidInputError, match="threads"):
        hashing.blake3(b"", threads=-1)
    with pytest.raises(InvalidInputError, match="threads"):
        hashing.Blake3().update(b"", threads=-1)
