"""Pieces against BLAKE3 of another maker, and bytes that are not what they are said to be."""

from __future__ import annotations

import random

import blake3 as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import DigestMismatchError, InvalidInputError
from textnlp_fast.objectstore.peers.pieces import (
    LEAST_PIECE_BYTES,
    MOST_PIECES,
    Layout,
    ValueList,
    digest_of_key,
    key_of,
    values_of,
)

SIZES = st.integers(1, 3 * LEAST_PIECE_BYTES + 5000) | st.sampled_from(
    [LEAST_PIECE_BYTES * n + d for n in (1, 2, 3, 5, 8) for d in (-1025, -1024, -1, 0, 1, 1023, 1024)]
)


def whole(size: int) -> tuple[bytes, str, Layout, ValueList]:
    data = random.Random(size).randbytes(size)
    digest = oracle.blake3(data).hexdigest()
    layout = Layout(size)
    pieces = [data[layout.offset(n) : layout.offset(n) + layout.length(n)] for n in range(layout.count)]
    assert sum(map(len, pieces)) == size
    values = b"".join(values_of(piece, layout.offset(n)) for n, piece in enumerate(pieces))
    return data, digest, layout, ValueList(digest, layout, values)


@settings(max_examples=30)
@given(SIZES, st.data())
def test_a_piece_is_known_by_its_bytes(size: int, data: st.DataObject) -> None:
    content, _, layout, values = whole(size)
    piece = data.draw(st.integers(0, layout.count - 1))
    right = content[layout.offset(piece) :][: layout.length(piece)]
    assert values.holds(piece, right)
    place = data.draw(st.integers(0, len(right) - 1))
    wrong = bytearray(right)
    wrong[place] ^= 1 << data.draw(st.integers(0, 7))
    assert not values.holds(piece, bytes(wrong))
    assert not values.holds(piece, right[:-1])
    assert not values.holds(piece, right + b"\0")
    for other in range(layout.count):
        if other != piece:
            assert not values.holds(other, right)


@settings(max_examples=30)
@given(SIZES.filter(lambda size: size > LEAST_PIECE_BYTES), st.data())
def test_a_list_that_is_not_the_objects(size: int, data: st.DataObject) -> None:
    _, digest, layout, values = whole(size)
    place = data.draw(st.integers(0, len(values.values) - 1))
    wrong = bytearray(values.values)
    wrong[place] ^= 1
    for text in (bytes(wrong), values.values[:-32], values.values + bytes(32), values.values[:-1], b""):
        with pytest.raises(DigestMismatchError):
            ValueList(digest, layout, text)
    # Sizes are the origin's word. With a wrong one the list is refused, or no last piece fits it.
    for other in (Layout(size + 1024), Layout(size - 1)):
        try:
            lenient = ValueList(digest, other, values.values)
        except DigestMismatchError:
            continue
        content = whole(size)[0] + bytes(1024)
        last = other.count - 1
        assert not lenient.holds(last, content[other.offset(last) :][: other.length(last)])


@given(st.integers(1, 1 << 44))
def test_layouts(size: int) -> None:
    layout = Layout(size)
    assert 1 <= layout.count <= MOST_PIECES
    assert layout.piece_bytes & (layout.piece_bytes - 1) == 0
    assert layout.offset(layout.count - 1) + layout.length(layout.count - 1) == size
    assert layout.piece_bytes == LEAST_PIECE_BYTES or layout.count > MOST_PIECES // 2


@given(st.integers(1, 1 << 30), st.integers(0, 1 << 31), st.integers(0, 1 << 31))
def test_covering(size: int, start: int, length: int) -> None:
    layout = Layout(size)
    pieces = layout.covering(start, length)
    end = min(size, start + length)
    if start >= end:
        assert not pieces
        return
    assert layout.offset(pieces[0]) <= start < layout.offset(pieces[0]) + layout.length(pieces[0])
    assert layout.offset(pieces[-1]) < end <= layout.offset(pieces[-1]) + layout.length(pieces[-1])


def test_keys() -> None:
    digest = "ab" * 32
    assert digest_of_key(key_of(digest)) == digest
    for key in (
        "objects/ab/" + "AB" * 32,
        "objects/aa/" + digest,
        "models/m/refs.json",
        key_of(digest) + "x",
    ):
        assert digest_of_key(key) is None
    for digest in ("", "../../etc/passwd", "ab" * 31, "AB" * 32, "ab" * 32 + "\n"):
        with pytest.raises(InvalidInputError):
            key_of(digest)
