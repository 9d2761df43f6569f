"""Changes replaced by something small: a product of two thin matrices, or signs and a size.

Both become a *recipe* (docs/decisions/0005-patches-and-recipes.md): what they make of the base is the base that the new
target is coded against, and equals it but for weights that must not change (NaNs, infinities, and what would become
one). What is made is what readers make, by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.change import Change, Rule
from textnlp_fast.delta.elements import Doubles, Element, Words
from textnlp_fast.delta.low_rank import Factors, predict_into
from textnlp_fast.delta.sign_scale import move_by_signs

__all__ = ["Factors", "Signs", "fit_factors", "fit_signs", "made", "made_rule"]

Matrix = npt.NDArray[np.floating[Any]]

_OVERSAMPLING: Final = 8
_POWER_ROUNDS: Final = 2
_LARGEST_SINGLE: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Signs:
    """``base + scale`` or ``base - scale``, by a bit a weight (1: minus; element e is bit e mod 8 of byte e / 8).

    ``scales`` are fp32, one for each of the equal stretches, rows, that the elements are cut into.
    """

    signs: bytes
    scales: npt.NDArray[np.float32]
    columns: int

    def made(self, element: Element, begin: int, base: Words) -> Words:
        """The recipe's bits of the elements from ``begin``, as many as ``base`` has."""
        last = begin + base.size
        out = np.empty_like(base)
        move_by_signs(
            base,
            out,
            element.name,
            first=begin,
            columns=self.columns,
            signs=memoryview(self.signs)[begin // 8 : -(-last // 8)],
            scales=self.scales[begin // self.columns :],
        )
        return out


def made(parts: Factors | Signs, element: Element, begin: int, base: Words) -> Words:
    """What the recipe of these parts makes of the elements of the base from ``begin`` on."""
    if isinstance(parts, Signs):
        return parts.made(element, begin, base)
    out = np.empty_like(base)
    start = np.ascontiguousarray(base)
    predict_into(start, out, parts, dtype=element.name, first_element=begin, threads=1)
    return out


def made_rule(element: Element, parts: Factors | Signs) -> Rule:
    """What the recipe makes, except where target, base or result are not finite: there the target's bits."""

    def rule(begin: int, target: Words, base: Words) -> Words:
        moved = made(parts, element, begin, base)
        usable = element.is_finite(target) & element.is_finite(base) & element.is_finite(moved)
        return np.where(usable, moved, target)

    return rule


# --- fitting ------------------------------------------------------------------------------------------------


def _differences(element: Element, target: Words, base: Words) -> Doubles:
    """In value; 0 where one side is not finite."""
    difference = element.differences(target, base)
    return np.where(np.isfinite(difference), difference, 0.0)


def fit_signs(change: Change, element: Element, *, per_row: bool) -> Signs | None:
    """Signs of the change, and its mean size: of all sizes the one nearest in L2. None if nothing changes."""
    rows, columns = (change.rows, change.columns) if per_row else (1, change.elements)
    totals = np.zeros(rows)
    packed = bytearray()
    for begin, target, base in change.blocks():  # blocks begin at multiples of 8
        difference = _differences(element, target, base)
        row = np.arange(begin, begin + target.size) // columns
        sums = np.bincount(row - row[0], np.minimum(np.abs(difference) / columns, _LARGEST_SINGLE))
        totals[row[0] : row[0] + sums.size] += sums
        packed += np.packbits(difference < 0, bitorder="little").tobytes()
    scales = np.minimum(totals, _LARGEST_SINGLE).astype(np.float32)
    return Signs(bytes(packed), scales, columns) if scales.any() else None


def fit_factors(change: Change, element: Element, rank: int) -> Factors | None:
    """Factors of about the best approximation of the change of that rank.

    A randomised SVD with power iterations (Halko, Martinsson, Tropp, arXiv:0909.4061) in passes over blocks of rows,
    from a fixed seed; ``a`` is then fitted again to ``b`` as rounded. Memory: O((rows + columns) rank) and a block.
    None if nothing changes.
    """
    peak = max(float(np.abs(_differences(element, *block[1:])).max()) for block in change.blocks())
    if peak == 0:
        return None

    def blocks() -> Iterator[tuple[slice, Matrix]]:
        for begin, target, base in change.blocks(whole_rows=True):
            first, count = begin // change.columns, target.size // change.columns
            rows = (_differences(element, target, base) / peak).astype(np.float32)
            yield slice(first, first + count), rows.reshape(count, change.columns)

    b, a = _thin_product(blocks, change.rows, change.columns, rank)
    b16 = (b / np.abs(b).max()).astype(np.float16)
    exact = b16.astype(np.float64)
    a = np.linalg.pinv(exact.T @ exact, hermitian=True) @ _from_the_left(blocks, exact, change.columns)
    height = float(np.abs(a).max())
    scale = float(np.float32(min(peak * height, _LARGEST_SINGLE)))
    if scale == 0:
        return None
    a16 = (a / height).astype(np.float16)
    rows, columns = change.rows, change.columns
    return Factors(rows, columns, len(a16), scale, a16.tobytes(), b16.tobytes(), "F16", "F16")


def _from_the_left(
    blocks: Callable[[], Iterator[tuple[slice, Matrix]]], left: Matrix, columns: int
) -> Matrix:
    """``left.T @ matrix``."""
    total = np.zeros((left.shape[1], columns))
    for rows, block in blocks():
        total += left[rows].T.astype(np.float32) @ block
    return total


def _thin_product(
    blocks: Callable[[], Iterator[tuple[slice, Matrix]]], rows: int, columns: int, rank: int
) -> tuple[Matrix, Matrix]:
    """``b`` (rows x rank) and ``a`` (rank x columns) whose product is about the matrix."""
    width = min(rank + _OVERSAMPLING, rows, columns)
    right: Matrix = np.random.default_rng(0).standard_normal((columns, width))
    for number in range(_POWER_ROUNDS + 1):
        seen = np.zeros((rows, width))
        for place, block in blocks():
            seen[place] = block @ right.astype(np.float32)
        left = np.linalg.qr(seen)[0]
        core = _from_the_left(blocks, left, columns)
        if number < _POWER_ROUNDS:
            right = np.linalg.qr(core.T)[0]
    inner, sizes, outer = np.linalg.svd(core, full_matrices=False)
    roots = np.sqrt(sizes[:rank])
    return left @ inner[:, :rank] * roots, roots[:, None] * outer[:rank]
