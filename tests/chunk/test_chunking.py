"""Chunk boundaries against the sequential definition, on every instruction set, whole and in pieces."""

from __future__ import annotations

import functools
import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from amounts import examples
from guard import Guarded
from reference import chunking as reference
from reference.chunk_inputs import EDGES, KINDS, VECTORS, make
from textnlp_fast import _native, chunking
from textnlp_fast.errors import InvalidInputError

SLOW_DATA = settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_around_every_edge(isa: str, kind: str) -> None:
    data = make(kind, EDGES[-1], 1)
    for size in EDGES:
        assert chunking.boundaries(data[:size]).tolist() == reference.boundaries(data[:size])


GUARDED = make("random", 700_000, 6)


@functools.cache
def guarded_boundaries(size: int) -> list[int]:
    """Those of its first bytes: by the definition, once for all sets."""
    return reference.boundaries(GUARDED[:size])


def test_nothing_behind_the_buffer_is_read(isa: str) -> None:
    data = GUARDED
    # From a single stretch, whose tail leaves every other lane idle, to more stretches than lanes.
    sizes = [*EDGES, *range(98_304, len(data), 16_411)]
    guarded = Guarded(len(data))
    for size in sizes:
        placed = guarded.place(data[:size])
        assert chunking.boundaries(placed).tolist() == guarded_boundaries(size)


@SLOW_DATA
@given(st.sampled_from(KINDS), st.integers(0, 700_000), st.integers(0, 2**32), st.integers(1, 3))
@example("dense", 700_000, 0, 2)
def test_equals_the_definition(kind: str, size: int, seed: int, threads: int) -> None:
    data = make(kind, size, seed)
    expected = reference.boundaries(data)
    before = _native.isa_name()
    try:
        for name in _native.available_isas():
            assert _native.force_isa(name)
            assert chunking.boundaries(data, threads=threads).tolist() == expected, name
    finally:
        _native.force_isa(before)


@pytest.mark.parametrize("kind", ["random", "dense"])
def test_large_buffers_in_many_stretches(isa: str, kind: str) -> None:
    data = make(kind, 12_000_011, 5)
    vector = VECTORS["large"][kind]
    assert hashlib.sha256(data).hexdigest() == vector["data_sha256"]
    for threads in (1, 2, 5):
        ends = chunking.boundaries(data, threads=threads)
        assert (len(ends), ends.sum()) == (vector["chunks"], vector["sum_of_ends"])
        assert hashlib.sha256(ends.astype("<u8").tobytes()).hexdigest() == vector["ends_sha256"]


def test_golden_vectors(isa: str) -> None:
    for vector in VECTORS["small"]:
        data = make(vector["kind"], vector["size"], vector["seed"])
        assert hashlib.sha256(data).hexdigest() == vector["data_sha256"]
        assert chunking.boundaries(data).tolist() == vector["ends"]


@SLOW_DATA
@given(st.sampled_from(KINDS), st.integers(0, 500_000), st.integers(0, 2**32), st.data())
def test_a_stream_is_cut_as_the_whole(kind: str, size: int, seed: int, data: st.DataObject) -> None:
    whole = make(kind, size, seed)
    cuts = data.draw(
        st.lists(
            st.one_of(
                st.integers(0, size), st.sampled_from([0, 1, 64, 8191, 8192]).map(lambda c: min(c, size))
            ),
            max_size=30,
        )
    )
    chunker = chunking.Chunker()
    found: list[int] = []
    edges = [0, *sorted(cuts), size]
    for begin, end in itertools.pairwise(edges):
        found += chunker.feed(whole[begin:end]).tolist()
    assert chunker.bytes_fed == size
    found += chunker.finish().tolist()
    assert found == chunking.boundaries(whole).tolist()
    assert chunker.bytes_fed == 0


@pytest.mark.parametrize("piece", [1, 13, 63, 64, 65, 4096])
def test_small_pieces(isa: str, piece: int) -> None:
    whole = make("dense", 200_000, 9)
    chunker = chunking.Chunker()
    found = [
        end for at in range(0, len(whole), piece) for end in chunker.feed(whole[at : at + piece]).tolist()
    ]
    assert found + chunker.finish().tolist() == reference.boundaries(whole)


def test_an_edit_moves_only_the_cuts_beside_it() -> None:
    data = make("random", 3_000_000, 3)
    edited = data[:1_000_000] + b"inserted" + data[1_000_000:]
    before = {int(end) for end in chunking.boundaries(data)}
    after = {int(end) - 8 if end > 1_000_000 else int(end) for end in chunking.boundaries(edited)}
    assert len(before - after) <= 4
    assert len(before & after) >= 30


def test_buffers_of_every_kind() -> None:
    data = make("random", 300_000, 4)
    expected = chunking.boundaries(data).tolist()
    for buffer in (
        bytearray(data),
        memoryview(data),
        np.frombuffer(data, np.uint8),
        np.frombuffer(data, "<u2").reshape(3, -1),
    ):
        assert chunking.boundaries(buffer).tolist() == expected
    with pytest.raises(InvalidInputError, match="C-contiguous"):
        chunking.boundaries(np.frombuffer(data, np.uint8)[::2])
    with pytest.raises(InvalidInputError):
        chunking.Chunker().feed("text")
