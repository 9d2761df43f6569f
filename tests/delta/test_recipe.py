"""Recipes that move bytes, against plain numpy; their JSON, against strangers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.delta.recipe import Piece, Pieces, Recipe, Whole, from_json
from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def holding(contents: dict[str, bytes]) -> Callable[[str, int, int], bytes]:
    """A reader's `held`, which refuses to read outside a content."""

    def held(digest: str, begin: int, end: int) -> bytes:
        assert 0 <= begin <= end <= len(contents[digest])
        return contents[digest][begin:end]

    return held


def joined(recipe: Recipe, cuts: list[int], contents: dict[str, bytes]) -> bytes:
    """The base, read in windows that end at `cuts`."""
    edges = sorted({0, recipe.size_bytes, *(cut % (recipe.size_bytes + 1) for cut in cuts)})
    held = holding(contents)
    return b"".join(recipe.read(begin, end, held) for begin, end in pairwise(edges))


def again(recipe: Recipe, dtype: str = "BF16") -> Recipe:
    return from_json(recipe.to_json(), size_bytes=recipe.size_bytes, dtype=dtype)


cuts = st.lists(st.integers(0, 10_000), max_size=6)


@given(st.binary(max_size=200), cuts)
def test_a_whole_content(data: bytes, at: list[int]) -> None:
    recipe = Whole(A, len(data))
    assert joined(recipe, at, {A: data}) == data
    assert again(recipe) == recipe


@st.composite
def some_pieces(draw: st.DrawFn) -> tuple[Pieces, dict[str, bytes]]:
    contents = {digest: draw(st.binary(min_size=1, max_size=60)) for digest in (A, B)}
    pieces = []
    for _ in range(draw(st.integers(1, 6))):
        digest = draw(st.sampled_from([A, B, None]))
        if digest is None:
            pieces.append(Piece(None, 0, draw(st.integers(1, 40))))
            continue
        offset = draw(st.integers(0, len(contents[digest]) - 1))
        pieces.append(Piece(digest, offset, draw(st.integers(1, len(contents[digest]) - offset))))
    return Pieces(tuple(pieces)), contents


@given(some_pieces(), cuts)
def test_pieces(case: tuple[Pieces, dict[str, bytes]], at: list[int]) -> None:
    recipe, contents = case
    expected = b"".join(
        bytes(piece.length)
        if piece.digest is None
        else contents[piece.digest][piece.offset : piece.offset + piece.length]
        for piece in recipe.pieces
    )
    assert joined(recipe, at, contents) == expected
    assert again(recipe) == recipe
    recipe.check_sources({digest: len(data) for digest, data in contents.items()})


@given(some_pieces(), st.data())
def test_what_a_window_reads_is_what_it_says(
    case: tuple[Pieces, dict[str, bytes]], data: st.DataObject
) -> None:
    recipe, contents = case
    begin = data.draw(st.integers(0, recipe.size_bytes))
    end = data.draw(st.integers(begin, recipe.size_bytes))
    said = {
        (stretch.digest, place)
        for stretch in recipe.sources(begin, end)
        for place in range(stretch.begin, stretch.end)
    }
    read: set[tuple[str, int]] = set()

    def held(digest: str, first: int, last: int) -> bytes:
        read.update((digest, place) for place in range(first, last))
        return contents[digest][first:last]

    recipe.read(begin, end, held)
    assert read <= said


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        A.upper(),
        A + "\n",
        [],
        {},
        {"pieces": {}},
        {"pieces": []},
        {"pieces": [[A, 0]]},
        {"pieces": [[A, 0, 8, 8]]},
        {"pieces": [[A, -1, 8]]},
        {"pieces": [[A, 0, 0], [A, 0, 8]]},
        {"pieces": [[A, True, 8]]},
        {"pieces": [[A, 0, 8.0]]},
        {"pieces": [[A, 1 << 53, 8]]},
        {"pieces": [[None, 1, 8]]},
        {"pieces": [[7, 0, 8]]},
        {"pieces": [[A, 0, 9]]},
        {"pieces": [[A, 0, 1 << 52], [A, 0, 1 << 52]]},
        {"pieces": [[A, 0, 8]], "transpose": []},
    ],
)
def test_what_is_no_recipe(value: Any) -> None:
    with pytest.raises(CorruptDataError):
        from_json(value, size_bytes=8, dtype="BF16")


def test_a_kind_of_the_future() -> None:
    with pytest.raises(UnsupportedFormatError, match="Upgrade"):
        from_json({"fourier": []}, size_bytes=8, dtype="BF16")


def test_sources_that_are_missing_or_of_another_size() -> None:
    whole = Whole(A, 8)
    whole.check_sources({A: 8})
    for sizes in ({}, {A: 7}, {A: 9}):
        with pytest.raises(CorruptDataError):
            whole.check_sources(sizes)
    pieces = Pieces((Piece(A, 3, 5), Piece(None, 0, 2)))
    pieces.check_sources({A: 9})
    with pytest.raises(CorruptDataError):
        pieces.check_sources({A: 7})


def test_windows_outside_the_base() -> None:
    held = holding({A: bytes(8)})
    for begin, end in ((-1, 2), (3, 2), (0, 9)):
        with pytest.raises(InvalidInputError):
            Whole(A, 8).read(begin, end, held)
        with pytest.raises(InvalidInputError):
            Whole(A, 8).sources(begin, end)


def test_a_source_that_gives_too_little() -> None:
    with pytest.raises(CorruptDataError, match="gave 3 bytes"):
        Whole(A, 8).read(0, 8, lambda digest, begin, end: b"abc")
