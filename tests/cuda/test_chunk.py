"""Chunks and Xet hashes of arrays on a device equal the core's: golden vectors, every kind of content, many at once."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codec.devices import NO_DEVICE, Bytes, to_device
from reference.chunk_inputs import EDGES, KINDS, VECTORS, make
from textnlp_fast import chunking, hashing
from textnlp_fast.errors import InvalidInputError

pytestmark = [pytest.mark.gpu, NO_DEVICE]


def array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8).copy()


@pytest.mark.parametrize("vector", VECTORS["small"], ids=lambda vector: vector["kind"])
def test_golden_vectors(vector: dict[str, object]) -> None:
    data = array(make(str(vector["kind"]), int(str(vector["size"])), int(str(vector["seed"]))))
    for offset in (0, 1, 8):
        assert chunking.boundaries(to_device(data, offset=offset)).tolist() == vector["ends"]


@pytest.mark.parametrize("kind", ["random", "dense"])
def test_many_segments(kind: str) -> None:
    data = make(kind, 12_000_011, 5)
    vector = VECTORS["large"][kind]
    ends = chunking.boundaries(to_device(array(data)))
    assert (len(ends), ends.sum()) == (vector["chunks"], vector["sum_of_ends"])
    assert hashlib.sha256(ends.astype("<u8").tobytes()).hexdigest() == vector["ends_sha256"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.one_of(st.integers(0, 300_000), st.sampled_from(EDGES)))),
    st.integers(0, 2**32),
)
def test_many_arrays_in_one_call(parts: list[tuple[str, int]], seed: int) -> None:
    data = [array(make(kind, size, seed)) for kind, size in parts]
    expected = [chunking.boundaries(part).tolist() for part in data]
    arrays = [to_device(part, offset=n % 5, interface=n % 2 == 1) for n, part in enumerate(data)]
    assert [ends.tolist() for ends in chunking.boundaries_many(arrays)] == expected
    assert [ends.tolist() for ends in chunking.boundaries_many(data)] == expected


@pytest.mark.parametrize("size", [0, 1, 8192, 131_073, 700_000])
@pytest.mark.parametrize("kind", ["random", "constant", "dense"])
def test_xet_hashes(kind: str, size: int) -> None:
    data = array(make(kind, size, 3))
    on_device = to_device(data, offset=1)
    assert hashing.xet_hash(on_device) == hashing.xet_hash(data)
    ends = chunking.boundaries(data)
    assert hashing.xet_file_hash(on_device, ends) == hashing.xet_hash(data)


def test_keyed_digests_of_spans() -> None:
    data = array(make("random", 100_000, 4))
    on_device = to_device(data)
    ends = np.array([0, 1, 1, 1024, 9216, 9217, 99_000], np.uint64)
    for key in (None, bytes(range(32))):
        expected = hashing.blake3_spans(data, ends, key=key)
        assert np.array_equal(hashing.blake3_spans(on_device, ends, key=key), expected)
        assert hashing.blake3(on_device, key=key) == hashing.blake3(data, key=key)
    assert hashing.blake3_spans(on_device, np.array([], np.uint64)).shape == (0, 32)


def test_wrong_calls() -> None:
    data = to_device(np.zeros(100, np.uint8))
    for wrong in ([50, 49], [101]):
        with pytest.raises(InvalidInputError, match="ends"):
            hashing.blake3_spans(data, np.array(wrong, np.uint64))
    with pytest.raises(InvalidInputError, match="rise strictly"):
        hashing.xet_file_hash(data, np.array([50, 50], np.uint64))
    with pytest.raises(InvalidInputError, match="32 bytes"):
        hashing.blake3(data, key=b"short")
    with pytest.raises(InvalidInputError, match="host memory") as caught:
        chunking.boundaries_many([data, np.zeros(9, np.uint8)], names=["first", "second"])
    assert caught.value.job == 1
    assert str(caught.value).startswith("tensor 'second': ")
    with pytest.raises(InvalidInputError, match="host memory"):
        chunking.Chunker().feed(data)
    assert chunking.boundaries_many([]) == []
