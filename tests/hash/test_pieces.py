"""Pieces of an input, hashed by themselves, make the digest of the whole: against the ``blake3`` package."""

from __future__ import annotations

import random

import blake3 as package
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amounts import examples
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.hashing import Blake3Piece, blake3_join

POOL = random.Random(11).randbytes(2_100_000)

# The fixture switches sets once a test; hypothesis may then run all its examples.
on_each_isa = settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _values(size: int, piece: int, step: int = 1 << 20) -> list[bytes]:
    found = []
    for begin in range(0, size, piece):
        end = min(size, begin + piece)
        hasher = Blake3Piece(begin)
        for at in range(begin, end, step):
            hasher.update(POOL[at : min(at + step, end)])
        found.append(hasher.values())
    return found


@on_each_isa
@given(
    size=st.integers(1, len(POOL)),
    piece_chunks=st.integers(1, 2100) | st.sampled_from([1, 2, 512, 1024, 2048]),
    step=st.integers(1000, 300_000),
)
def test_pieces_make_the_digest_of_the_whole(isa: str, size: int, piece_chunks: int, step: int) -> None:
    piece = piece_chunks * 1024
    values = b"".join(_values(size, piece, step)) if size / piece < 3000 else b""
    if size <= piece:
        with pytest.raises(InvalidInputError, match="one piece"):
            blake3_join(values, size_bytes=size, piece_bytes=piece)
        return
    assert blake3_join(values, size_bytes=size, piece_bytes=piece) == package.blake3(POOL[:size]).digest()


def test_a_piece_of_a_power_of_two_leaves_one_value() -> None:
    assert [len(values) for values in _values(5 << 18, 1 << 18)] == [32] * 5


@pytest.mark.parametrize("harm", ["a bit", "one less", "one more", "two swapped", "half a value"])
def test_other_values_make_another_digest_or_none(harm: str) -> None:
    values = b"".join(_values(5 << 18, 1 << 18))
    harmed = {
        "a bit": bytes([values[0] ^ 1]) + values[1:],
        "one less": values[:-32],
        "one more": values + bytes(32),
        "two swapped": values[32:64] + values[:32] + values[64:],
        "half a value": values[:-16],
    }[harm]
    if harm in ("a bit", "two swapped"):
        assert (
            blake3_join(harmed, size_bytes=5 << 18, piece_bytes=1 << 18)
            != package.blake3(POOL[: 5 << 18]).digest()
        )
    else:
        with pytest.raises(InvalidInputError, match="values"):
            blake3_join(harmed, size_bytes=5 << 18, piece_bytes=1 << 18)


@pytest.mark.parametrize("piece_bytes", [0, 1000, 1025])
def test_pieces_are_whole_chunks(piece_bytes: int) -> None:
    with pytest.raises(InvalidInputError, match="1024"):
        blake3_join(bytes(64), size_bytes=1 << 20, piece_bytes=piece_bytes)


@pytest.mark.parametrize("offset", [-1024, 1, 1023])
def test_a_piece_starts_at_a_chunk(offset: int) -> None:
    with pytest.raises(InvalidInputError, match="1024"):
        Blake3Piece(offset)
