"""Recipes that move bytes, against plain numpy; their JSON, against strangers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.delta import moved, woven
from textnlp_fast.delta.recipe import Piece, Pieces, Recipe, Strand, Transposed, Whole, Woven, from_json
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


@st.composite
def a_matrix(draw: st.DrawFn) -> tuple[Transposed, dict[str, bytes]]:
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    element_bytes = draw(st.sampled_from([1, 2, 4, 8]))
    data = np.random.default_rng(draw(st.integers(0, 99))).bytes(rows * columns * element_bytes)
    return Transposed(A, rows, columns, element_bytes), {A: data}


def turned(recipe: Transposed, data: bytes) -> bytes:
    """The oracle: numpy on the whole matrix, its elements as opaque bytes."""
    matrix = np.frombuffer(data, np.uint8).reshape(recipe.rows, recipe.columns, recipe.element_bytes)
    return matrix.transpose(1, 0, 2).tobytes()


@given(a_matrix(), cuts)
def test_a_matrix_turned(case: tuple[Transposed, dict[str, bytes]], at: list[int]) -> None:
    recipe, contents = case
    assert joined(recipe, at, contents) == turned(recipe, contents[A])
    assert again(recipe) == recipe


@given(a_matrix(), cuts)
def test_a_matrix_turned_in_small_strips(case: tuple[Transposed, dict[str, bytes]], at: list[int]) -> None:
    """Limits as small as these take the roads of matrices that do not fit into a strip, or into a row."""
    recipe, contents = case
    for strip_bytes, gap_bytes in ((24, 0), (24, 1 << 20), (100, 16)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moved, "_STRIP_BYTES", strip_bytes)
            patch.setattr(moved, "_GAP_BYTES", gap_bytes)
            assert joined(recipe, at, contents) == turned(recipe, contents[A])


def test_turning_a_window_takes_memory_for_the_window_alone() -> None:
    """A matrix of 2 TiB whose bytes are made up on demand."""
    recipe = Transposed(A, 1 << 20, 1 << 20, 2)
    most = 0

    def held(digest: str, begin: int, end: int) -> bytes:
        nonlocal most
        most = max(most, end - begin)
        return ((begin // 2) & 0xFFFF).to_bytes(2, "little") * ((end - begin) // 2)

    begin = recipe.rows * 2 * 12345 + 2 * 77
    part = np.frombuffer(recipe.read(begin, begin + 64, held), "<u2")
    row = np.arange(77, 77 + 32, dtype=np.uint64)
    assert part.tolist() == ((row * (1 << 20) + 12345) & 0xFFFF).tolist()
    assert most <= 1 << 20


@st.composite
def a_weave(draw: st.DrawFn) -> tuple[Woven, dict[str, bytes]]:
    groups = draw(st.integers(1, 9))
    strands, needed = [], {A: 1, B: 1}
    for _ in range(draw(st.integers(1, 5))):
        digest = draw(st.sampled_from([A, B, None]))
        length = draw(st.integers(1, 12))
        if digest is None:
            strands.append(Strand(None, 0, length, 0))
            continue
        strands.append(Strand(digest, draw(st.integers(0, 20)), length, draw(st.integers(0, 30))))
        end = strands[-1].offset + (groups - 1) * strands[-1].stride + length
        needed[digest] = max(needed[digest], end)
    contents = {digest: np.random.default_rng(size).bytes(size) for digest, size in needed.items()}
    return Woven(groups, tuple(strands)), contents


@given(a_weave(), cuts)
def test_a_weave(case: tuple[Woven, dict[str, bytes]], at: list[int]) -> None:
    recipe, contents = case
    expected = b""
    for group in range(recipe.groups):
        for one in recipe.strands:
            begin = one.offset + group * one.stride
            data = (
                bytes(one.length) if one.digest is None else contents[one.digest][begin : begin + one.length]
            )
            expected += data
    for strip_bytes, gap_bytes in ((1 << 20, 1 << 13), (40, 100), (24, 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(woven, "_STRIP_BYTES", strip_bytes)
            patch.setattr(woven, "_GAP_BYTES", gap_bytes)
            assert joined(recipe, at, contents) == expected
    assert again(recipe) == recipe
    recipe.check_sources({digest: len(data) for digest, data in contents.items()})


@given(st.one_of(some_pieces(), a_matrix(), a_weave()), st.data())
def test_what_a_window_reads_is_what_it_says(
    case: tuple[Pieces | Transposed | Woven, dict[str, bytes]], data: st.DataObject
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
        {"weave": [2]},
        {"weave": [2, [A, 0, 4, 4]]},
        {"weave": [2, []]},
        {"weave": [0, [[A, 0, 4, 4]]]},
        {"weave": [2, [[A, 0, 4]]]},
        {"weave": [2, [[A, 0, 0, 4], [A, 0, 4, 4]]]},
        {"weave": [2, [[A, 0, 4, -4]]]},
        {"weave": [2, [[A, 0, 4, True]]]},
        {"weave": [2, [[None, 0, 4, 4]]]},
        {"weave": [2, [[None, 4, 4, 0]]]},
        {"weave": [2, [[A, 0, 4, 1 << 52]]]},
        {"weave": [2, [[A, 0, 3, 3]]]},
        {"weave": [1 << 40, [[A, 0, 1 << 40, 0]]]},
        {"transpose": [A, 2, 2]},
        {"transpose": [A, 2, 2, 2, 2]},
        {"transpose": [A, 0, 2, 2]},
        {"transpose": [A, -2, -2, 2]},
        {"transpose": [A, True, 4, 2]},
        {"transpose": [A, 2, 2, 3]},
        {"transpose": [A, 2, 2, True]},
        {"transpose": [A, 1 << 40, 1 << 40, 2]},
        {"transpose": [A, 2, 4, 2]},
        {"cast": [A, "F32"]},
        {"cast": [A, "BF16", "BF16"]},
        {"cast": [A, "F32", "F16"]},
        {"cast": [A, ["F32"], "BF16"]},
        {"cast": [7, "F32", "BF16"]},
        {"low_rank": [A, B, C, 2, 2, 1, 0]},
        {"low_rank": [A, B, C, 2, 2, 1, 1.5, "F32", "F32", "once"]},
        {"low_rank": [A, B, C, 2, 2, 1, -1, "F32", "F32", "once"]},
        {"low_rank": [A, B, C, 2, 2, 1, 1 << 32, "F32", "F32", "once"]},
        {"low_rank": [A, B, C, 2, 2, 1, 0x7F800000, "F32", "F32", "once"]},
        {"low_rank": [A, B, C, 2, 2, 1, 0x7FC00000, "F32", "F32", "once"]},
        {"low_rank": [A, B, C, 2, 2, 0, 0, "F32", "F32", "once"]},
        {"low_rank": [A, B, C, 2, 2, 65537, 0, "F32", "F32", "once"]},
        {"low_rank": [A, B, C, 1 << 51, 1 << 51, 1, 0, "F32", "F32", "once"]},
        {"low_rank": [A, B, C, 1, 1 << 29, 1, 0, "F32", "F32", "once"]},
        {"low_rank": [A, A, C, 2, 2, 2, 0, "F32", "F32", "once"]},
        {"low_rank": [A, B, B, 2, 2, 1, 0, "F32", "I8", "once"]},
        {"low_rank": [A, B, C, 2, 4, 1, 0, "F32", "F32", "once"]},
        {"low_rank": [A, B, C, 2, 2, 1, 0, 4, "F32", "once"]},
        {"low_rank": [A, B, C, 2, 2, 1, 0, "F32", "F32", None]},
        {"sign_scale": [A, B, C, 2]},
        {"sign_scale": [A, B, C, 2, "2"]},
        {"sign_scale": [A, B, C, 0, 4]},
        {"sign_scale": [A, A, C, 2, 2]},
        {"sign_scale": [A, B, C, 1 << 52, 1]},
        {"sign_scale": [A, B, C, 4, 2]},
    ],
)
def test_what_is_no_recipe(value: Any) -> None:
    with pytest.raises(CorruptDataError):
        from_json(value, size_bytes=8, dtype="BF16")


def test_a_kind_of_the_future() -> None:
    with pytest.raises(UnsupportedFormatError, match="Upgrade"):
        from_json({"fourier": []}, size_bytes=8, dtype="BF16")


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ({"cast": [A, "F8_E8M0", "BF16"]}, "BF16"),
        ({"cast": [A, "F32", "F4"]}, "F4"),
        ({"low_rank": [A, B, C, 2, 2, 1, 0, "F32", "F32", "once"]}, "F8_E4M3"),
        ({"low_rank": [A, B, C, 2, 2, 1, 0, "F32", "F64", "once"]}, "BF16"),
        ({"low_rank": [A, B, C, 2, 2, 1, 0, "F32", "F32", "twice"]}, "BF16"),
        ({"sign_scale": [A, B, C, 2, 2]}, "I16"),
    ],
)
def test_types_of_the_future(value: Any, dtype: str) -> None:
    with pytest.raises(UnsupportedFormatError, match="Upgrade"):
        from_json(value, size_bytes=8, dtype=dtype)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([A, B, "BF16", "F32"]),
        lambda inner: (
            st.lists(inner, max_size=8)
            | st.dictionaries(
                st.sampled_from(["pieces", "weave", "transpose", "cast", "low_rank", "sign_scale", "x"]),
                inner,
                max_size=2,
            )
        ),
        max_leaves=20,
    )
)
def test_json_of_strangers_is_read_or_refused(value: Any) -> None:
    try:
        recipe = from_json(value, size_bytes=8, dtype="BF16")
    except (CorruptDataError, UnsupportedFormatError):
        return
    assert recipe.size_bytes == 8
    assert recipe.to_json() == value


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
