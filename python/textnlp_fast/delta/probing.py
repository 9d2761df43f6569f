"""Looks at a few stretches of tensors to say how alike they are, without reading them whole.

A *sample* is 256 elements in eight stretches at places that follow from the number of elements alone, so samples of
tensors with as many elements can be compared whatever their shapes and types. Two questions are asked of samples:
which of many tensors is this one (correlation, all pairs at once), and what would a delta cost (steps between values).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.bases import WORDS
from textnlp_fast.delta.float_casts import FLOAT_BYTES, cast_bits
from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "HEAD",
    "Block",
    "BudgetSpent",
    "Prober",
    "Score",
    "Tensor",
    "alike",
    "castable",
    "directions",
    "in_type",
    "nearest",
    "score",
    "stretches",
]

_STRETCHES: Final = 8
_STRETCH: Final = 32
#: Elements at a tensor's begin or end by which its neighbours in a fused tensor are found.
HEAD: Final = 64
# A match must save this much over a pair that is not one, and be no accident of the sample.
_LEAST_BITS_SAVED: Final = 0.75
_LEAST_SIGMAS: Final = 5.0
# More pairs than this are not multiplied out.
_MOST_PAIRS: Final = 1 << 24

Array = npt.NDArray[Any]
Places = tuple[tuple[int, int], ...]

_ELEMENT_BYTES: Final = {"I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, **FLOAT_BYTES}


class BudgetSpent(Exception):
    """The reads that a search may make are made; what was found so far stands."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a model. ``read(begin, end)`` gives those bytes of it; it is asked for a few only."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    size_bytes: int
    read: Callable[[int, int], Buffer]

    @property
    def element_bytes(self) -> int:
        """1 for types that are moved as bytes."""
        return _ELEMENT_BYTES.get(self.dtype, 1)

    @property
    def elements(self) -> int:
        return self.size_bytes // self.element_bytes


@dataclass(frozen=True, slots=True)
class Block:
    """``elements`` elements of a tensor from element ``begin`` on: all of it, or a slice of its first dimension."""

    tensor: Tensor
    begin: int
    elements: int

    @property
    def whole(self) -> bool:
        return self.elements == self.tensor.elements

    @property
    def offset_bytes(self) -> int:
        return self.begin * self.tensor.element_bytes

    @property
    def size_bytes(self) -> int:
        return self.elements * self.tensor.element_bytes


@dataclass(frozen=True, slots=True)
class Score:
    """What a delta would cost, in bits an element and very roughly, and whether the pair is a match at all."""

    bits: float
    saved: float
    match: bool


@cache
def stretches(elements: int) -> Places:
    """(begin, count) of what a sample takes of so many elements. Stretches begin at multiples of 32."""
    if elements <= _STRETCHES * _STRETCH:
        return ((0, elements),)
    rng = np.random.default_rng(elements)
    slots = elements // _STRETCH
    edges = [slots * number // _STRETCHES for number in range(_STRETCHES + 1)]
    return tuple((int(rng.integers(low, high)) * _STRETCH, _STRETCH) for low, high in pairwise(edges))


def castable(source: str, target: str) -> bool:
    """Whether a recipe turns values of one type into the other's."""
    return source == target or (source in FLOAT_BYTES and target in FLOAT_BYTES)


class Prober:
    """Reads samples, each once, and counts the reads. Raises BudgetSpent when ``most_reads`` are made."""

    def __init__(self, most_reads: int) -> None:
        self.reads_left = most_reads
        # With the tensor itself, whose number is another's once it is gone.
        self._kept: dict[tuple[int, int, Places], tuple[Tensor, Array]] = {}

    def take(self, tensor: Tensor, begin: int, places: Iterable[tuple[int, int]]) -> Array:
        """The bit patterns at (begin, count) places, behind element ``begin``, one after the other."""
        step, parts = tensor.element_bytes, []
        for place, count in places:
            if not self.reads_left:
                raise BudgetSpent
            self.reads_left -= 1
            first = (begin + place) * step
            # A copy: a reader may use its buffer again.
            parts.append(bytes(tensor.read(first, first + count * step)))
            if len(parts[-1]) != count * step:
                raise InvalidInputError(
                    f"tensor {tensor.name!r} ended within {count * step} bytes at {first}",
                    hint="It changed while it was read: leave it alone until the command is done, and repeat it.",
                )
        return np.frombuffer(b"".join(parts), WORDS[step])

    def sample(self, block: Block) -> Array:
        return self._once(block.tensor, block.begin, stretches(block.elements))

    def tiles(self, tensor: Tensor, *, turned: bool) -> Array:
        """64 elements in each of four tiles of a matrix; of its transpose, at the transpose's places, if ``turned``."""
        rows, columns = tensor.shape[::-1] if turned else tensor.shape
        height, width = min(8, rows), min(8, columns)
        rng = np.random.default_rng((rows, columns))
        corners = [
            (int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))) for _ in range(4)
        ]
        if turned:
            places = tuple(
                (c * rows + row, height) for row, column in corners for c in range(column, column + width)
            )
            bits = self._once(tensor, 0, places).reshape(4, width, height)
            return np.ascontiguousarray(bits.transpose(0, 2, 1)).reshape(-1)
        places = tuple(
            (r * columns + column, width) for row, column in corners for r in range(row, row + height)
        )
        return self._once(tensor, 0, places)

    def head(self, block: Block) -> Array:
        return self._once(block.tensor, block.begin, ((0, HEAD),))

    def tail(self, block: Block) -> Array:
        return self._once(block.tensor, block.begin, ((block.elements - HEAD, HEAD),))

    def _once(self, tensor: Tensor, begin: int, places: Places) -> Array:
        key = (id(tensor), begin, places)
        if key not in self._kept:
            self._kept[key] = (tensor, self.take(tensor, begin, places))
        return self._kept[key][1]


def _values(samples: Sequence[tuple[Array, str]]) -> Array:
    """Samples of equal length as values, a row each; what is not finite counts as zero."""
    rows = np.empty((len(samples), len(samples[0][0])), np.float32)
    by_type: dict[str, list[int]] = {}
    for number, (_, dtype) in enumerate(samples):
        by_type.setdefault(dtype, []).append(number)
    for dtype, numbers in by_type.items():
        bits = np.concatenate([samples[number][0] for number in numbers])
        if dtype == "F32":
            values = bits.view(np.float32)
        elif dtype in FLOAT_BYTES:
            wide = np.empty(len(bits), np.uint32)
            cast_bits(bits, wide, dtype, "F32")
            values = wide.view(np.float32)
        else:
            values = bits.view(f"{'i' if dtype.startswith('I') else 'u'}{bits.itemsize}").astype(np.float32)
        rows[numbers] = values.reshape(len(numbers), -1)
    rows[~np.isfinite(rows)] = 0
    return rows


def directions(samples: Sequence[tuple[Array, str]]) -> Array:
    """Unit vectors whose products are correlations. A few large values must not decide alone: they are clipped."""
    rows = _values(samples)
    # Sums of the largest numbers there are would overflow; directions do not depend on length.
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    rows /= np.where(peak > 0, peak, 1)
    rows -= rows.mean(axis=1, keepdims=True)
    spread = np.abs(rows).mean(axis=1, keepdims=True)
    np.clip(rows, -4 * spread, 4 * spread, out=rows)
    length = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    rows /= np.where(length > 0, length, 1)
    return rows


def alike(
    targets: Sequence[tuple[Array, str]], sources: Sequence[tuple[Array, str]], *, least: float, most: int = 3
) -> list[list[int]]:
    """For each target the sources, best first, whose correlation with it is at least ``least``: ``most`` at most.

    All samples, (bit patterns, dtype) each, are of equal length.
    """
    if not targets or not sources:
        return [[] for _ in targets]
    return nearest(directions(targets), directions(sources), least=least, most=most)


def nearest(rows: Array, columns: Array, *, least: float, most: int = 3) -> list[list[int]]:
    """The same for samples that are directions already."""
    if len(rows) * len(columns) > _MOST_PAIRS:
        return _alike_by_signs(rows, columns, least, most)
    found: list[list[int]] = []
    for begin in range(0, len(rows), 1024):
        products = rows[begin : begin + 1024] @ columns.T
        for line in products:
            best = np.argpartition(-line, most)[:most] if len(line) > most else np.arange(len(line))
            best = best[line[best] >= least]
            found.append([int(number) for number in best[np.argsort(-line[best])]])
    return found


def _alike_by_signs(rows: Array, columns: Array, least: float, most: int) -> list[list[int]]:
    """The same where there are too many pairs: only those are compared that agree in the signs of some 16 elements.

    Random hyperplanes' idea (Charikar 2002) with the axes for planes: values that changed little kept their signs.
    """
    rng = np.random.default_rng(16)
    weights = np.uint32(1) << np.arange(16, dtype=np.uint32)
    pairs = np.empty(0, np.int64)  # row * number of columns + column
    for _ in range(24):
        chosen = rng.choice(rows.shape[1], 16, replace=False)
        row_keys = (rows[:, chosen] > 0) @ weights
        column_keys = (columns[:, chosen] > 0) @ weights
        order = np.argsort(column_keys, kind="stable")
        ordered = column_keys[order]
        low = np.searchsorted(ordered, row_keys, "left")
        counts = np.searchsorted(ordered, row_keys, "right") - low
        # Signs that so many share tell nothing apart.
        counts[counts > 32] = 0
        those = np.repeat(np.arange(len(rows)), counts)
        inside = np.arange(len(those)) - np.repeat(np.cumsum(counts) - counts, counts)
        pairs = np.union1d(pairs, those * len(columns) + order[np.repeat(low, counts) + inside])
    found: list[list[tuple[float, int]]] = [[] for _ in rows]
    for begin in range(0, len(pairs), 1 << 14):
        row, column = np.divmod(pairs[begin : begin + (1 << 14)], len(columns))
        products = np.einsum("ij,ij->i", rows[row], columns[column])
        for place in np.flatnonzero(products >= least):
            found[row[place]].append((-float(products[place]), int(column[place])))
    return [[column for _, column in sorted(line)[:most]] for line in found]


def _ordered(bits: Array, dtype: str) -> Array:
    """Patterns as numbers of which neighbours are neighbouring values (docs/format.md, *Residual*), in F64."""
    width = 8 * bits.itemsize
    if dtype in FLOAT_BYTES:
        top = bits.dtype.type(1 << (width - 1))
        bits = np.where(bits & top, ~bits, bits | top)
    elif dtype.startswith("I"):
        bits = bits.view(f"i{bits.itemsize}")
    numbers: Array = bits.astype(np.float64)
    return numbers


def score(pairs: Sequence[tuple[Array, Array]], dtype: str) -> list[Score]:
    """What deltas of targets to bases would cost: pairs of samples, bit patterns of one dtype.

    The cost of a residual of d steps is taken as log2(1 + 2 d) bits, and the measure is the same sample against
    itself out of step: a base that is no better than that is none. All samples are of one length.
    """
    if not pairs or not len(pairs[0][0]):
        return [Score(0.0, 0.0, False) for _ in pairs]
    targets = np.stack([_ordered(target, dtype) for target, _ in pairs])
    bases = np.stack([_ordered(base, dtype) for _, base in pairs])
    costs = np.log2(1 + 2 * np.abs(targets - bases))
    length = costs.shape[1]
    shifts = sorted({max(1, length * part // 7) for part in (1, 2, 3, 5)})
    strangers = np.stack(
        [np.log2(1 + 2 * np.abs(targets - np.roll(bases, shift, axis=1))) for shift in shifts]
    )
    bits, stranger_bits = costs.mean(axis=1), strangers.mean(axis=(0, 2))
    saved = stranger_bits - bits
    sigma = np.sqrt((costs.var(axis=1) + strangers.var(axis=(0, 2))) / length)
    match = (saved >= _LEAST_BITS_SAVED) & (saved >= _LEAST_SIGMAS * sigma)
    return [Score(*one) for one in zip(bits.tolist(), saved.tolist(), match.tolist(), strict=True)]


def in_type(bits: Array, source: str, target: str) -> Array:
    """Patterns of the values in another type."""
    if source == target:
        return bits
    out = np.empty(len(bits), WORDS[FLOAT_BYTES[target]])
    cast_bits(bits, out, source, target)
    return out
