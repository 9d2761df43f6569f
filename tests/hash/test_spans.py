"""Digests of many spans at once: each must be what a hash of that span alone gives, on every ISA."""

from __future__ import annotations

import itertools
import random

import blake3 as package
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amounts import examples
from reference import blake3 as reference
from textnlp_fast import hashing
from textnlp_fast.errors import InvalidInputError

KEY = bytes(range(100, 132))
POOL = random.Random(29).randbytes(4_000_000)

# The fixture switches sets once a test; hypothesis may then run all its examples.
on_each_isa = settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def ends_of(lengths: list[int]) -> npt.NDArray[np.uint64]:
    return np.cumsum([0, *lengths], dtype=np.uint64)[1:]


def check(lengths: list[int], *, key: bytes | None = None, start: int = 0, threads: int = 1) -> None:
    ends = ends_of(lengths)
    data = memoryview(POOL)[start:]
    digests = hashing.blake3_spans(data, ends, key=key, threads=threads)
    assert digests.shape == (len(lengths), 32)
    assert digests.dtype == np.uint8
    for digest, begin, end in zip(digests, [0, *ends.tolist()], ends.tolist(), strict=False):
        span = data[begin:end]
        expected = package.blake3(span) if key is None else package.blake3(span, key=key)
        assert digest.tobytes() == expected.digest(), (begin, end)


EDGES = [0, 1, 63, 64, 65, 127, 128, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 16384, 16385, 65536]


def test_short_spans_against_the_reference(isa: str) -> None:
    lengths = [*EDGES[:-3], *reversed(EDGES[:-3]), 5000, 0, 0, 7]
    ends = ends_of(lengths).tolist()
    plain = hashing.blake3_spans(POOL, ends_of(lengths))
    keyed = hashing.blake3_spans(POOL, ends_of(lengths), key=KEY)
    for index, (begin, end) in enumerate(itertools.pairwise([0, *ends])):
        assert plain[index].tobytes() == reference.blake3(POOL[begin:end])
        assert keyed[index].tobytes() == reference.blake3(POOL[begin:end], KEY)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 15, 16, 17, 33])
@pytest.mark.parametrize("length", EDGES)
def test_equal_spans_in_every_number_of_lanes(isa: str, length: int, count: int) -> None:
    check([length] * count)


lengths = st.one_of(
    st.sampled_from(EDGES),
    st.integers(0, 200),
    st.integers(0, 3000),
    st.integers(8192, 131_072),
)


@on_each_isa
@given(
    lengths=st.lists(lengths, max_size=25),
    start=st.integers(0, 70),
    keyed=st.booleans(),
    threads=st.integers(0, 4),
)
def test_any_spans(isa: str, lengths: list[int], start: int, keyed: bool, threads: int) -> None:
    check(lengths, start=start, key=KEY if keyed else None, threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_tiny_spans(isa: str, threads: int) -> None:
    draw = random.Random(31)
    check([draw.randint(0, 40) for _ in range(5000)], threads=threads)
    check([0] * 3000, threads=threads)


# A span of 1024 leaves is the largest that shares its vectors.
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_huge_spans_between_small_ones(isa: str, extra: int, threads: int) -> None:
    huge = 1024 * 1024 + extra
    check([huge], threads=threads)
    check([100, huge, 0, 70_000, huge, 2_000, 1], key=KEY, threads=threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_groups_end_where_the_next_span_does_not_fit(isa: str, threads: int) -> None:
    check([400_000, 400_000, 400_000, 1024 * 1024, 1, 1024 * 1023], threads=threads)


def test_what_lies_behind_the_last_end_is_not_hashed() -> None:
    digests = hashing.blake3_spans(b"onetwo rest", np.array([3, 6], dtype=np.uint64))
    assert digests[0].tobytes() == package.blake3(b"one").digest()
    assert digests[1].tobytes() == package.blake3(b"two").digest()


def test_no_spans_give_no_digests() -> None:
    assert hashing.blake3_spans(b"abc", np.array([], dtype=np.uint64)).shape == (0, 32)
    assert hashing.blake3_spans(b"", np.array([], dtype=np.uint64)).shape == (0, 32)
    empty = hashing.blake3_spans(b"", np.zeros(3, dtype=np.uint64))
    assert {row.tobytes() for row in empty} == {package.blake3(b"").digest()}


@pytest.mark.parametrize("ends", [[5, 4], [11], [3, 2**64 - 1, 2**64 - 1], [2**63]])
def test_ends_that_fall_or_leave_the_data_are_refused(ends: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="must not fall and must stay within the data"):
        hashing.blake3_spans(b"0123456789", np.array(ends, dtype=np.uint64))


def test_arguments_of_another_type_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="uint64"):
        hashing.blake3_spans(b"0123456789", np.array([4], dtype=np.int32))
    with pytest.raises(InvalidInputError, match="32 bytes"):
        hashing.blake3_spans(b"0123456789", ends_of([4]), key=b"short")
    with pytest.raises(InvalidInputError, match="threads"):
        hashing.blake3_spans(b"0123456789", ends_of([4]), threads=-1)
