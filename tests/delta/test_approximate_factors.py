"""Factors and signs: the written arithmetic to the last bit, and fits beside the best there can be."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta.inputs import bits_of, moved, special_bits, weights
from reference.approximations import nearest, value
from textnlp_fast.delta import change as change_room
from textnlp_fast.delta import recipe as recipes
from textnlp_fast.delta.approximate import LowRank, SignScale
from textnlp_fast.delta.change import Change
from textnlp_fast.delta.elements import ELEMENTS
from textnlp_fast.delta.factors import Factors, Signs, made
from textnlp_fast.delta.quantise import Quantiser, quantise
from textnlp_fast.delta.recipe import Recipe

# Types that signs and factors are for.
MATRIX_DTYPES = ("F16", "BF16", "F32")
PEERS = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
}


def in_single(exact: Fraction) -> np.float32:
    """Rounded once, from the exact value, by comparing the neighbours of a first guess."""
    about = np.float32(float(exact))
    word = int(about.view(np.uint32))
    around = [bits for bits in (word - 1, word, word + 1) if 0 <= bits < 1 << 32]
    if about == 0:
        around = [0, 1, 1 << 31, (1 << 31) + 1]
        return np.uint32(
            min(around, key=lambda bits: (abs(exact - (value(bits, "F32") or 0)), bits & 1))
        ).view(np.float32)
    return np.uint32(nearest(exact, "F32", around)).view(np.float32)


def number(bits: int, dtype: str) -> Fraction:
    found = value(bits, dtype)
    assert found is not None
    return found


@given(st.sampled_from(MATRIX_DTYPES), st.data())
def test_signs_add_or_take_away_the_scale(dtype: str, data: st.DataObject) -> None:
    element = ELEMENTS[dtype]
    base = np.array(data.draw(st.lists(bits_of(dtype), min_size=12, max_size=12)), element.word)
    minus = data.draw(st.lists(st.booleans(), min_size=12, max_size=12))
    scales = data.draw(st.lists(st.floats(0, 100, width=32), min_size=3, max_size=3))
    packed = bytes(sum(bit << n for n, bit in enumerate(minus[at : at + 8])) for at in (0, 8))
    signs = Signs(packed, np.array(scales, np.float32), 4)
    got = signs.made(element, 0, base)
    for place in range(12):
        before = value(int(base[place]), dtype)
        scale = Fraction(scales[place // 4])
        if scale == 0:
            assert got[place] == base[place]
        elif before is not None:
            total = before - scale if minus[place] else before + scale
            if abs(total) >= 2**127:
                continue
            with np.errstate(over="ignore"):
                expected = float(in_single(total).astype(PEERS[dtype]))
            assert element.values(got)[place] == pytest.approx(expected, abs=0, nan_ok=True)
    assert np.array_equal(signs.made(element, 3, base[3:10]), got[3:10])


def read_by_recipe(parts: Factors | Signs, base: Any, dtype: str, columns: int) -> Any:
    """What a reader makes of the base, in windows that cut rows."""
    digest, first, second = ("a" * 64, "b" * 64, "c" * 64)
    rows = base.size // columns
    recipe: Recipe
    if isinstance(parts, Signs):
        recipe = recipes.SignScale(digest, first, second, base.size // parts.columns, parts.columns, dtype)
        contents = {digest: base.tobytes(), first: parts.signs, second: parts.scales.tobytes()}
    else:
        recipe = recipes.LowRank(
            digest, first, second, rows, columns, parts.rank, parts.scale, dtype, "F16", "F16"
        )
        contents = {digest: base.tobytes(), first: parts.a, second: parts.b}
    recipe.check_sources({name: len(data) for name, data in contents.items()})
    cuts = [*range(0, recipe.size_bytes, 1000), recipe.size_bytes]
    windows = [recipe.read(b, e, lambda name, b, e: contents[name][b:e]) for b, e in pairwise(cuts)]
    return np.frombuffer(b"".join(windows), base.dtype)


def change_of(
    rows: int, columns: int, dtype: str, size: float
) -> tuple[npt.NDArray[np.unsignedinteger], ...]:
    base = weights(dtype, rows * columns, 1)
    return moved(dtype, base, 2, size=size), base


@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
def test_the_recipe_makes_the_target_but_for_what_is_not_finite(dtype: str) -> None:
    target, base = change_of(48, 40, dtype, 0.01)
    special = np.resize(np.array(special_bits(dtype), target.dtype), 30)
    target[100:130], base[200:230] = special, special
    element = ELEMENTS[dtype]
    for asked in (LowRank(2), SignScale(), SignScale("row")):
        quantiser = Quantiser(asked, Change.of(target, base, dtype=dtype, shape=(48, 40)))
        assert quantiser.parts is not None
        sent = np.concatenate(list(quantiser.blocks()))
        moved_by_reader = read_by_recipe(quantiser.parts, base, dtype, 40)
        assert np.array_equal(made(quantiser.parts, element, 0, base), moved_by_reader)
        usable = element.is_finite(target) & element.is_finite(base) & element.is_finite(moved_by_reader)
        assert np.array_equal(sent[usable], moved_by_reader[usable])
        assert np.array_equal(sent[~usable], target[~usable])


def test_signs_are_near_the_best_there_are() -> None:
    target, base = change_of(64, 50, "F32", 0.001)
    change = (target.view(np.float32).astype(float) - base.view(np.float32)).reshape(64, 50)
    for asked, best in (
        (SignScale(), np.abs(change).mean() * np.ones((64, 1))),
        (SignScale("row"), np.abs(change).mean(axis=1, keepdims=True)),
    ):
        _, promise = quantise(asked, target, base, dtype="F32", shape=(64, 50))
        assert promise.dropped_l2 == pytest.approx(np.linalg.norm(change - np.sign(change) * best), rel=1e-4)
        assert promise.change_l2 == pytest.approx(np.linalg.norm(change), rel=1e-9)


@pytest.mark.parametrize("rank", [1, 4, 12])
def test_factors_are_near_the_best_there_are(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_room, "BLOCK_ELEMENTS", 1000)
    rng = np.random.default_rng(9)
    spectrum = rng.normal(0, 1, (96, 24)) @ (rng.normal(0, 1, (24, 80)) * 0.7 ** np.arange(24)[:, None])
    base = weights("F32", 96 * 80, 1)
    target = ELEMENTS["F32"].rounded(ELEMENTS["F32"].values(base) + 1e-3 * spectrum.reshape(-1))
    change = (target.view(np.float32).astype(float) - base.view(np.float32)).reshape(96, 80)
    best = np.sqrt((np.linalg.svd(change, compute_uv=False)[rank:] ** 2).sum())
    _, promise = quantise(LowRank(rank), target, base, dtype="F32", shape=(96, 80))
    # fp16 factors leave an error of their own, about 2^-11 of the change.
    assert best * 0.999 <= promise.dropped_l2 <= best * 1.02 + 2e-3 * np.linalg.norm(change)


def test_an_exact_low_rank_change_is_found() -> None:
    rng = np.random.default_rng(2)
    base = weights("BF16", 128 * 96, 1)
    product = rng.normal(0, 0.01, (128, 3)) @ rng.normal(0, 1, (3, 96))
    target = ELEMENTS["BF16"].rounded(ELEMENTS["BF16"].values(base) + product.reshape(-1))
    _, promise = quantise(LowRank(3), target, base, dtype="BF16", shape=(128, 96))
    assert promise.dropped_l2 < 0.02 * promise.change_l2


def test_tiny_and_huge_changes_have_factors() -> None:
    for size in (1e-44, 1e-38, 1e36):
        base = np.zeros(64 * 64, np.float32)
        target = (np.outer(np.arange(64), np.ones(64)).reshape(-1) * size / 64).astype(np.float32)
        got, promise = quantise(
            LowRank(2), target.view(np.uint32), base.view(np.uint32), dtype="F32", shape=(64, 64)
        )
        assert np.isfinite(got.view(np.float32)).all()
        # Subnormal numbers of either kind are too coarse for more.
        assert promise.dropped_l2 <= (0.01 if size > 1e-40 else 0.5) * promise.change_l2
