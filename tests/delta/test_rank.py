"""Effective ranks against numpy's singular values."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.delta import rank
from textnlp_fast.delta.rank import ChangeMatrix, effective_rank, matrix_shape

Matrix = npt.NDArray[np.floating]


def oracle(matrix: Matrix) -> float:
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def low_rank(rng: np.random.Generator, rows: int, columns: int, directions: int) -> Matrix:
    return rng.standard_normal((rows, directions)) @ rng.standard_normal((directions, columns))


@pytest.mark.parametrize("shape", [(2, 2), (7, 300), (300, 7), (96, 96)])
@pytest.mark.parametrize("directions", [1, 2, 5, None])
def test_small_ones_are_exact(shape: tuple[int, int], directions: int | None) -> None:
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal(shape) if directions is None else low_rank(rng, *shape, directions)
    value, exact = effective_rank(matrix)
    assert exact
    assert value == pytest.approx(oracle(matrix), rel=1e-5)


def test_equal_directions_count_as_many() -> None:
    assert effective_rank(np.eye(40, 60) * 3e-5)[0] == pytest.approx(40)
    assert effective_rank(np.zeros((10, 10))) == (0.0, True)
    assert effective_rank(np.full((5, 9), 1e300))[0] == pytest.approx(1)
    assert effective_rank(np.full((5, 9), 1e-300))[0] == pytest.approx(1)


LARGE = {
    "one direction": lambda rng: low_rank(rng, 260, 300, 1),
    "an adapter": lambda rng: low_rank(rng, 260, 300, 16),
    "an adapter, rounded": lambda rng: low_rank(rng, 260, 300, 16) + 0.04 * rng.standard_normal((260, 300)),
    "noise": lambda rng: rng.standard_normal((260, 300)),
    "square noise": lambda rng: rng.standard_normal((280, 280)),
    "few changes": lambda rng: rng.standard_normal((260, 300)) * (rng.random((260, 300)) < 0.05),
    "three rows": lambda rng: rng.standard_normal((260, 300)) * (np.arange(260) < 3)[:, None],
    "one row": lambda rng: rng.standard_normal((260, 300)) * (np.arange(260) == 3)[:, None],
    "lone changes of one size": lambda rng: np.where(
        np.eye(260, 300)[rng.permutation(260)] * (np.arange(300) < 120), 1e-4, 0
    ),
    "lone changes of two sizes": lambda rng: (
        np.eye(260, 300)[rng.permutation(260)] * np.where(np.arange(300) < 90, 1e-4, 2e-4)
    ),
    "identity": lambda rng: np.eye(260, 300),
}


@pytest.mark.parametrize("form", LARGE)
def test_large_ones_are_estimated(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a smaller limit for exactness and fewer directions, so that the test takes no minute."""
    monkeypatch.setattr(rank, "EXACT_SIDE", 64)
    monkeypatch.setattr(rank, "_STEPS", 6)
    matrix = LARGE[form](np.random.default_rng(1)).astype(np.float32)
    value, exact = effective_rank(matrix)
    assert not exact
    assert value == pytest.approx(oracle(matrix), rel=0.06)
    assert effective_rank(matrix) == (value, False)
    assert effective_rank(matrix.T)[0] == pytest.approx(value, rel=0.02)


@pytest.mark.slow
def test_a_large_one_at_full_size() -> None:
    rng = np.random.default_rng(8)
    matrix = (low_rank(rng, 1500, 1100, 16) / 4 + 0.01 * rng.standard_normal((1500, 1100))).astype(np.float32)
    value, exact = effective_rank(matrix)
    assert not exact
    assert value == pytest.approx(oracle(matrix), rel=0.03)


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((3, 5), (3, 5)),
        ((5, 1, 4), (5, 4)),
        ((1, 8, 8), (8, 8)),
        ((9,), None),
        ((), None),
        ((1, 7), None),
        ((0, 4), None),
        ((8, 16, 32), None),
    ],
)
def test_what_is_a_matrix(shape: tuple[int, ...], sides: tuple[int, int] | None) -> None:
    assert matrix_shape(shape) == sides


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(2, 20),
    columns=st.integers(2, 20),
    cuts=st.lists(st.integers(1, 399), max_size=6),
    limit=st.sampled_from([16, 64, 1 << 20]),
    seed=st.integers(0, 2**32),
)
def test_windows_in_any_order_make_the_matrix(
    rows: int, columns: int, cuts: list[int], limit: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    old, new = (rng.standard_normal((rows, columns)).astype(ml_dtypes.bfloat16) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank, "MATRIX_BYTES", 4 * limit)
        matrix = ChangeMatrix((rows, columns), "BF16")
    ends = sorted({cut for cut in cuts if cut < rows * columns} | {0, rows * columns})
    pieces = list(pairwise(ends))
    rng.shuffle(pieces)
    for begin, end in pieces:
        views = [memoryview(side.tobytes())[2 * begin : 2 * end] for side in (old, new)]
        matrix.add(2 * int(begin), *views)
    change = new.astype(np.float64) - old.astype(np.float64)
    found = matrix.rank()
    assert matrix.size_bytes <= max(4 * limit, 16)
    assert found.sampled == (rows * columns > limit)
    assert found.exact != found.sampled
    kept = change[np.ix_(matrix._rows, matrix._columns)].astype(np.float32)
    assert found.value == pytest.approx(oracle(kept), rel=1e-4)
    assert found.full == min(kept.shape)


def test_infinities_do_not_enter() -> None:
    old = np.zeros((4, 4), np.float32)
    new = old.copy()
    new[0, 0], new[1, 1], new[2, 2] = np.inf, np.nan, 1.0
    matrix = ChangeMatrix((4, 4), "F32")
    matrix.add(0, memoryview(old.tobytes()), memoryview(new.tobytes()))
    assert matrix.rank().value == pytest.approx(1)


def test_what_has_no_values_has_no_rank() -> None:
    assert ChangeMatrix.of((4, 4), "F4") is None
    assert ChangeMatrix.of((4,), "F32") is None
    assert ChangeMatrix.of((4, 4), "F8_E4M3") is not None
