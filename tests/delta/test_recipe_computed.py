"""Recipes that compute: casts against exact fractions and torch, sums against plain numpy."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import pairwise, permutations
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import casts, low_rank
from textnlp_fast.delta import computed, low_rank_tiles
from textnlp_fast.delta.float_casts import FLOAT_BYTES, cast_bits
from textnlp_fast.delta.recipe import (
    Cast,
    LowRank,
    Recipe,
    SignScale,
    Strand,
    Stretch,
    Transposed,
    Woven,
    from_json,
)
from textnlp_fast.errors import InvalidInputError

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
VALUES: dict[str, Any] = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
PAIRS = list(permutations(FLOAT_BYTES, 2))
Bits = npt.NDArray[Any]


def converted(bits: Bits, source: str, target: str) -> Bits:
    out = np.empty(len(bits), WORDS[FLOAT_BYTES[target]])
    cast_bits(bits, out, source, target)
    return out


def interesting(dtype: str) -> Bits:
    """All patterns of a short type; of a long one, those around every value of the short types and halfway
    between two of them, and some at random."""
    size = FLOAT_BYTES[dtype]
    if size <= 2:
        return np.arange(1 << (8 * size), dtype=WORDS[size])
    rng = np.random.default_rng(5)
    high = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    fine = np.arange(1 << 20, dtype=np.uint32) << np.uint32(12)
    bits: Bits = np.concatenate([high, high + 0x7FFF, high + 0x8000, high + 0x8001, fine, fine + 1, fine - 1])
    if size == 8:
        with np.errstate(invalid="ignore"):
            wide: Bits = bits[::7].view(np.float32).astype(np.float64).view(np.uint64)
        half = np.uint64(1 << 28)
        bits = np.concatenate([wide, wide + 1, wide + half - 1, wide + half, wide + half + 1])
    return np.concatenate([bits, np.frombuffer(rng.bytes(size << 16), WORDS[size])])


def is_nan(bits: Bits, dtype: str) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.isnan(bits.view(VALUES[dtype]).astype(np.float64))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_casts_against_torch(source: str, target: str) -> None:
    torch = pytest.importorskip("torch", minversion="2.13")
    types = {
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F32": torch.float32,
        "F64": torch.float64,
    }
    bits = interesting(source)
    tensor = torch.frombuffer(bytearray(bits.tobytes()), dtype=types[source]).to(types[target])
    theirs = np.frombuffer(tensor.view(torch.uint8).numpy().tobytes(), WORDS[FLOAT_BYTES[target]])
    ours = converted(bits, source, target)
    if target == "BF16":  # torch makes other NaNs of BF16 with vectors than without
        nan = is_nan(bits, source)
        assert is_nan(ours[nan], target).all()
        ours, theirs = ours[~nan], theirs[~nan]
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_casts_against_fractions(source: str, target: str) -> None:
    bits = interesting(source)
    chosen = bits if len(bits) == 256 else np.random.default_rng(7).choice(bits, 1500)
    expected = [casts.cast(int(pattern), source, target) for pattern in chosen]
    assert converted(chosen, source, target).tolist() == expected


def test_casts_of_shorter_types_and_back_change_nothing() -> None:
    for wide, narrow in (
        ("F32", "BF16"),
        ("F32", "F16"),
        ("F64", "F32"),
        ("F16", "F8_E5M2"),
        ("BF16", "F8_E4M3"),
    ):
        bits = interesting(narrow)
        kept = ~is_nan(bits, narrow)
        back = converted(converted(bits, narrow, wide), wide, narrow)
        if wide == "F16" or narrow != "F8_E5M2":
            np.testing.assert_array_equal(back[kept], bits[kept])


@given(
    st.sampled_from(PAIRS),
    st.integers(1, 60),
    st.lists(st.integers(0, 500), max_size=6),
    st.integers(1, 9),
)
def test_windows_of_a_cast(types: tuple[str, str], count: int, at: list[int], block: int) -> None:
    source, target = types
    data = np.random.default_rng(count).bytes(count * FLOAT_BYTES[source])
    recipe = Cast(A, source, target, count * FLOAT_BYTES[target])
    whole = converted(np.frombuffer(data, WORDS[FLOAT_BYTES[source]]), source, target).tobytes()
    edges = sorted({0, recipe.size_bytes, *(cut % (recipe.size_bytes + 1) for cut in at)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computed, "_BLOCK", block)
        parts = [recipe.read(begin, end, lambda _, b, e: data[b:e]) for begin, end in pairwise(edges)]
    assert b"".join(parts) == whole
    assert from_json(recipe.to_json(), size_bytes=recipe.size_bytes, dtype=target) == recipe
    for begin, end in pairwise(edges):
        assert sum(one.end - one.begin for one in recipe.sources(begin, end)) <= (end - begin + 14) * 8


@given(
    st.sampled_from(["BF16", "F16", "F32"]),
    st.integers(1, 12),
    st.integers(1, 20),
    st.lists(st.integers(0, 2000), max_size=6),
    st.integers(1, 50),
    st.integers(0, 1000),
)
def test_sign_and_scale(dtype: str, rows: int, columns: int, at: list[int], block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal((rows, columns)) * 0.1).astype(VALUES[dtype])
    values.reshape(-1)[rng.integers(values.size)] = rng.choice([np.inf, -np.inf, np.nan, 0.0])
    down = rng.integers(0, 2, (rows, columns), dtype=np.uint8)
    scales = (rng.random(rows) * 0.01).astype(np.float32)
    scales[rng.integers(rows)] = rng.choice([0.0, -0.0, 0.001, np.inf, np.nan])
    contents = {
        A: values.tobytes(),
        B: np.packbits(down.reshape(-1), bitorder="little").tobytes(),
        C: scales.tobytes(),
    }
    with np.errstate(all="ignore"):
        wide = values.astype(np.float32)
        total = np.where(down == 1, wide - scales[:, None], wide + scales[:, None])
        expected = np.where(np.isnan(total) | (scales[:, None] == 0), values, total.astype(VALUES[dtype]))
    recipe = SignScale(A, B, C, rows, columns, dtype)
    assert recipe.source_sizes() == {digest: len(data) for digest, data in contents.items()}
    edges = sorted({0, recipe.size_bytes, *(cut % (recipe.size_bytes + 1) for cut in at)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computed, "_BLOCK", block)
        parts = [recipe.read(begin, end, lambda d, b, e: contents[d][b:e]) for begin, end in pairwise(edges)]
    assert b"".join(parts) == expected.tobytes()
    assert from_json(recipe.to_json(), size_bytes=recipe.size_bytes, dtype=dtype) == recipe


def test_low_rank_says_what_it_needs() -> None:
    recipe = LowRank(A, B, C, 6, 10, 2, 2.0, "BF16", "F32", "I16", "steps")
    assert recipe.to_json() == {"low_rank": [A, B, C, 6, 10, 2, 0x40000000, "F32", "I16", "steps"]}
    assert from_json(recipe.to_json(), size_bytes=120, dtype="BF16") == recipe
    assert recipe.source_sizes() == {A: 120, B: 80, C: 24}
    assert recipe.sources(41, 60) == (Stretch(A, 40, 60), Stretch(B, 0, 80), Stretch(C, 8, 12))


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    rank=st.integers(1, 7),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
    types=st.tuples(*[st.sampled_from(["F32", "F16", "BF16", "I16", "I8"])] * 2),
    rounding=st.sampled_from(["once", "delta", "steps"]),
    at=st.lists(st.integers(0, 200), max_size=3),
    room=st.tuples(*[st.integers(1, 60)] * 4) | st.none(),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_low_rank_is_what_the_chapter_says(
    rows: int,
    columns: int,
    rank: int,
    dtype: str,
    types: tuple[str, str],
    rounding: str,
    at: list[int],
    room: tuple[int, int, int, int] | None,
    seed: int,
) -> None:
    """Whatever there is room for: of A, of B, of the result, to read at a time."""
    source = np.random.default_rng(seed)
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1}
    contents = {
        A: source.bytes(rows * columns * sizes[dtype]),
        B: source.bytes(rank * columns * sizes[types[0]]),
        C: source.bytes(rows * rank * sizes[types[1]]),
    }
    recipe = LowRank(A, B, C, rows, columns, rank, 0.375, dtype, *types, rounding)
    edges = sorted({0, recipe.size_bytes, *(cut % (recipe.size_bytes + 1) for cut in at)})
    with pytest.MonkeyPatch.context() as patch:
        for name, most in zip(
            ("_A_ELEMENTS", "_B_ELEMENTS", "_TILE_ELEMENTS", "_READ_BYTES"), room or (), strict=False
        ):
            patch.setattr(low_rank_tiles, name, most)
        made = b"".join(
            recipe.read(begin, end, lambda d, b, e: contents[d][b:e]) for begin, end in pairwise(edges)
        )

    def numbers(data: bytes, kind: str) -> list[low_rank.Value]:
        words = np.frombuffer(data, {"I8": np.int8, "I16": np.int16}.get(kind, WORDS[sizes[kind]])).tolist()
        return [Fraction(word) if kind[0] == "I" else low_rank.decoded(word, kind) for word in words]

    a, b = numbers(contents[B], types[0]), numbers(contents[C], types[1])
    words = np.frombuffer(contents[A], WORDS[sizes[dtype]]).tolist()
    expected = [
        low_rank.element(
            word, a[e % columns :: columns], b[e // columns * rank :][:rank], Fraction(3, 8), dtype, rounding
        )
        for e, word in enumerate(words)
    ]
    assert made == np.array(expected, WORDS[sizes[dtype]]).tobytes()
    assert from_json(recipe.to_json(), size_bytes=recipe.size_bytes, dtype=dtype) == recipe


@pytest.mark.parametrize("scale", [float("inf"), float("nan"), 0.1, 1e300, 2])
def test_a_scale_that_f32_does_not_have(scale: float) -> None:
    with pytest.raises(InvalidInputError, match="scale"):
        LowRank(A, B, C, 6, 10, 2, scale, "BF16", "F32", "F32")


HUGE = 1 << 40


@pytest.mark.parametrize(
    "recipe",
    [
        Cast(A, "F64", "F8_E4M3", HUGE),
        Cast(A, "F8_E5M2", "F64", HUGE),
        SignScale(A, B, C, 1 << 38, 2, "BF16"),
        SignScale(A, B, C, 2, 1 << 38, "BF16"),
        Transposed(A, 1 << 38, 2, 2),
        Transposed(A, 2, 1 << 38, 2),
        Woven(1 << 20, (Strand(A, 0, 1 << 19, 1 << 19), Strand(B, 0, 1 << 19, 1 << 30))),
        Woven(1 << 38, (Strand(A, 0, 1, 1), Strand(B, 0, 3, 7))),
    ],
    ids=lambda recipe: str(recipe)[:60],
)
def test_windows_of_huge_bases_take_memory_for_the_window(recipe: Recipe) -> None:
    most = 0

    def held(digest: str, begin: int, end: int) -> memoryview:
        nonlocal most
        assert 0 <= begin <= end <= recipe.source_sizes()[digest]
        most = max(most, end - begin)
        return memoryview(zeros)[: end - begin]

    zeros = bytes(9 << 20)
    for begin in (0, (1 << 39) - 1001, recipe.size_bytes - (1 << 16)):
        tracemalloc.start()
        recipe.read(begin, begin + (1 << 16), held)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20
    assert most <= 1 << 20
