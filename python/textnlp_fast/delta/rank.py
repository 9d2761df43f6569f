"""Effective rank of a change: how many directions of the matrix it takes up.

exp of the entropy of the singular values, normalised to sum 1 (Roy and Vetterli, "The effective rank", EUSIPCO 2007): r
for r equal singular values, and nearly so for r that tower above the rest.

Small matrices are computed exactly. The spectrum of larger ones is taken by randomised block Lanczos (Ubaru, Chen and
Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017): Ritz values that have converged are
singular values and count once, the others stand as nodes of a quadrature for all the rest. Seeds are fixed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.values import Bits, Values, bits_of, changes, values_of

__all__ = ["ChangeMatrix", "Rank", "effective_rank", "matrix_shape"]

EXACT_SIDE: Final = 1024
#: What is kept of one change at a time. A larger matrix is cut to rows and columns drawn evenly.
MATRIX_BYTES: Final = 64 << 20
_BLOCK: Final = 16
_STEPS: Final = 12
_ROWS: Final = 512
_CONVERGED: Final = 1e-3
_SEED: Final = 20070903


@dataclass(frozen=True, slots=True)
class Rank:
    """An effective rank, of at most `full`, the shorter side of the matrix it was computed of.

    `exact` is false where it was estimated; `sampled`, where rows or columns were left out too.
    """

    value: float
    full: int
    exact: bool = True
    sampled: bool = False

    @property
    def fraction(self) -> float:
        return self.value / self.full


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns of a tensor that is a matrix, sides of 1 aside; None for all others.

    A stack of experts in one tensor is no single map, and has no single rank.
    """
    sides = [side for side in shape if side != 1]
    return (sides[0], sides[1]) if len(sides) == 2 and min(sides) > 1 else None


class ChangeMatrix:
    """Takes a matrix's change from windows in any order, by several threads; of a large one, a sample."""

    def __init__(self, shape: tuple[int, int], dtype: str) -> None:
        self._shape = shape
        self._dtype = dtype
        wide = dtype in ("F64", "I64", "U64")
        self._kept_dtype = np.float64 if wide else np.float32
        self._most = MATRIX_BYTES // (8 if wide else 4)
        self._rows, self._columns = _sample(shape, self._most)
        self._kept: npt.NDArray[Any] | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: str) -> ChangeMatrix | None:
        """One for a tensor, if it is a matrix of a dtype with values."""
        sides = matrix_shape(shape)
        if sides is None or values_of(bits_of(memoryview(b""), dtype), dtype) is None:
            return None
        return cls(sides, dtype)

    @property
    def size_bytes(self) -> int:
        """Memory that it takes from its first window on."""
        return len(self._rows) * len(self._columns) * np.dtype(self._kept_dtype).itemsize

    def add(self, offset_bytes: int, old: memoryview, new: memoryview) -> None:
        """Takes the window that begins at that byte of the tensor; windows must not overlap."""
        a, b = bits_of(old, self._dtype), bits_of(new, self._dtype)
        with self._lock:
            if self._kept is None:
                self._kept = np.zeros((len(self._rows), len(self._columns)), self._kept_dtype)
        width = self._shape[1]
        start = offset_bytes // a.dtype.itemsize
        stop = start + len(a)
        every_column = len(self._columns) == width
        first, last = np.searchsorted(self._rows, [start // width, -(-stop // width)])
        for place in range(int(first), int(last)):
            row = int(self._rows[place]) * width
            begin, end = max(start, row), min(stop, row + width)
            if begin >= end:
                continue
            x, y = a[begin - start : end - start], b[begin - start : end - start]
            low, high = np.searchsorted(self._columns, [begin - row, end - row])
            if not every_column:
                picked = self._columns[low:high] - (begin - row)
                x, y = x[picked], y[picked]
            self._kept[place, low:high] = self._change(x, y)

    def _change(self, old: Bits, new: Bits) -> Values:
        moved = changes(old, new, self._dtype)
        assert moved is not None, "made for dtypes with values only"
        moved[~np.isfinite(moved)] = 0
        return moved

    def rank(self) -> Rank:
        """The effective rank of what was taken; gives the memory back."""
        kept, self._kept = self._kept, None
        full = min(len(self._rows), len(self._columns))
        sampled = (len(self._rows), len(self._columns)) != self._shape
        if kept is None:
            return Rank(0.0, full, True, sampled)
        value, exact = effective_rank(kept)
        return Rank(value, full, exact and not sampled, sampled)


def effective_rank(matrix: npt.NDArray[Any]) -> tuple[float, bool]:
    """Effective rank of a finite matrix, 0 if it is all zeros, and whether it was computed exactly."""
    most = float(np.max(np.abs(matrix), initial=0.0))
    if most == 0:
        return 0.0, True
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    side = tall.shape[1]
    if side <= EXACT_SIDE:
        gram = np.zeros((side, side))
        for rows in _chunks(tall, most):
            gram += rows.T @ rows
        squares = np.linalg.eigvalsh(gram)
        return _exp_entropy(np.sqrt(np.maximum(squares, 0)), np.ones(side)), True
    squares, weights = _lanczos(tall, most)
    return min(_exp_entropy(np.sqrt(np.maximum(squares, 0)), weights), float(side)), False


# --- parts -------------------------------------------------------------------------------------------------


def _sample(shape: tuple[int, int], most: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns to keep: all, or a draw of at most `most` elements that is as square as can be."""
    short = min(*shape, int(most**0.5))
    long = max(short, min(max(shape), most // short))
    counts = (short, long) if shape[0] <= shape[1] else (long, short)
    draw = np.random.default_rng(_SEED)
    rows, columns = (
        np.arange(side) if count == side else np.sort(draw.choice(side, count, replace=False, shuffle=False))
        for side, count in zip(shape, counts, strict=True)
    )
    return rows, columns


def _chunks(tall: npt.NDArray[Any], most: float) -> Any:
    """Rows in float64, scaled to at most 1, some at a time."""
    for start in range(0, len(tall), _ROWS):
        yield tall[start : start + _ROWS].astype(np.float64) / most


def _lanczos(tall: npt.NDArray[Any], most: float) -> tuple[Values, Values]:
    """Nodes and weights of the spectrum of D^T D for a matrix D / most; weights sum to its side or less."""
    side = tall.shape[1]
    draw = np.random.default_rng(_SEED)
    block = np.linalg.qr(draw.standard_normal((side, _BLOCK)))[0]
    basis = np.empty((side, 0))
    projected = np.zeros((_BLOCK * _STEPS, _BLOCK * _STEPS))
    coupling = np.zeros((_BLOCK, _BLOCK))
    for step in range(_STEPS):
        basis = np.hstack([basis, block])
        image = np.zeros((side, _BLOCK))
        for rows in _chunks(tall, most):
            image += rows.T @ (rows @ block)
        here = slice(step * _BLOCK, (step + 1) * _BLOCK)
        projected[: basis.shape[1], here] = basis.T @ image
        projected[here, : basis.shape[1]] = projected[: basis.shape[1], here].T
        for _ in range(2):  # once is not enough where the block has nearly converged
            image -= basis @ (basis.T @ image)
        block, coupling = np.linalg.qr(image)
        if np.linalg.norm(coupling) <= 1e-13 * np.linalg.norm(projected):
            break
        block = np.linalg.qr(block - basis @ (basis.T @ block))[0]
    count = basis.shape[1]
    nodes, vectors = np.linalg.eigh(projected[:count, :count])
    residuals = np.linalg.norm(coupling @ vectors[-_BLOCK:], axis=0)
    weights = np.sum(vectors[:_BLOCK] ** 2, axis=0)
    sure = residuals <= np.maximum(_CONVERGED * np.abs(nodes), 1e-13 * float(nodes[-1]))
    # A block sees no more of equal values than it has columns: a full house may stand for many more.
    near = 1e-6 * np.abs(nodes) + 1e-10 * float(nodes[-1])
    house = np.searchsorted(nodes, nodes + near, "right") - np.searchsorted(nodes, nodes - near, "left")
    sure &= house < _BLOCK
    rest = float(weights[~sure].sum())
    if rest:
        weights *= (side - np.count_nonzero(sure)) / rest
    weights[sure] = 1.0
    return nodes, weights


def _exp_entropy(values: Values, weights: Values) -> float:
    total = float(np.dot(weights, values))
    shares = values / total
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return float(np.exp(-np.dot(weights, shares * logs)))
