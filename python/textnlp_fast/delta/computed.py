"""Recipes that compute values: another float type, a low-rank product, a sign and a scale.

What is computed is the same on every machine, bit for bit: the steps and their order are in docs/format.md.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta import low_rank
from textnlp_fast.delta.bases import (
    MAX_SIZE,
    WORDS,
    Held,
    Recipe,
    Stretch,
    checked_count,
    checked_digest,
    taken,
)
from textnlp_fast.delta.float_casts import FLOAT_BYTES, cast_bits
from textnlp_fast.delta.low_rank_tiles import fill_low_rank
from textnlp_fast.delta.sign_scale import SIGN_SCALE_DTYPES, move_by_signs
from textnlp_fast.errors import InvalidInputError, UnsupportedFormatError

__all__ = ["Cast", "LowRank", "SignScale"]

# Elements in work at a time.
_BLOCK: Final = 1 << 20


def _checked_type(value: object, known: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise InvalidInputError("the type of a recipe is not text")
    if value not in known:
        raise UnsupportedFormatError(
            f"a recipe computes with the type {value[:40]!a}; this textnlp-fast knows {', '.join(known)}"
        )


def _elements(size_bytes: int, dtype: str) -> int:
    if size_bytes % FLOAT_BYTES[dtype]:
        raise InvalidInputError(f"{size_bytes} bytes are no whole number of elements of {dtype}")
    return size_bytes // FLOAT_BYTES[dtype]


@dataclass(frozen=True, slots=True)
class Cast(Recipe):
    """Each value of a content of type ``source_type`` in ``target_type``, by the rules of docs/format.md."""

    digest: str
    source_type: str
    target_type: str
    size_bytes: int

    def __post_init__(self) -> None:
        checked_digest(self.digest)
        _checked_type(self.source_type, tuple(FLOAT_BYTES))
        _checked_type(self.target_type, tuple(FLOAT_BYTES))
        if self.source_type == self.target_type:
            raise InvalidInputError("a cast of a recipe is between two types")
        checked_count(self.size_bytes, "the size")
        _elements(self.size_bytes, self.target_type)
        checked_count(self._source_bytes(self.size_bytes), "the size of a source")

    def _source_bytes(self, target_bytes: int) -> int:
        return target_bytes // FLOAT_BYTES[self.target_type] * FLOAT_BYTES[self.source_type]

    def to_json(self) -> dict[str, Any]:
        return {"cast": [self.digest, self.source_type, self.target_type]}

    def source_sizes(self) -> dict[str, int]:
        return {self.digest: self._source_bytes(self.size_bytes)}

    def sources(self, begin: int = 0, end: int | None = None) -> tuple[Stretch, ...]:
        end = self.size_bytes if end is None else end
        self._check_window(begin, end)
        if begin == end:
            return ()
        first, last = _covered(begin, end, FLOAT_BYTES[self.target_type])
        step = FLOAT_BYTES[self.source_type]
        return (Stretch(self.digest, first * step, last * step),)

    def _fill(self, begin: int, out: memoryview, held: Held) -> None:
        step, word = FLOAT_BYTES[self.source_type], WORDS[FLOAT_BYTES[self.source_type]]

        def convert(first: int, values: npt.NDArray[Any]) -> None:
            data = taken(held, self.digest, first * step, (first + len(values)) * step)
            cast_bits(np.frombuffer(data, word), values, self.source_type, self.target_type)

        _in_blocks(begin, out, FLOAT_BYTES[self.target_type], convert)


def _covered(begin: int, end: int, element_bytes: int) -> tuple[int, int]:
    """The elements, [first, last), that bytes [begin, end) are part of."""
    return begin // element_bytes, -(-end // element_bytes)


def _in_blocks(
    begin: int,
    out: memoryview,
    element_bytes: int,
    compute: Callable[[int, npt.NDArray[Any]], None],
    *,
    most: int = _BLOCK,
) -> None:
    """Let `compute(first element, room for some)` fill the window, block by block; its ends may cut elements."""
    first, last = _covered(begin, begin + len(out), element_bytes)
    word = WORDS[element_bytes]
    for start in range(first, last, most):
        stop = min(start + most, last)
        place, inside = start * element_bytes - begin, max(0, begin - start * element_bytes)
        stretch = out[max(place, 0) : stop * element_bytes - begin]
        if len(stretch) == (stop - start) * element_bytes:
            compute(start, np.frombuffer(stretch, word))
            continue
        values = np.empty(stop - start, word)
        compute(start, values)
        stretch[:] = values.tobytes()[inside : inside + len(stretch)]


@dataclass(frozen=True, slots=True)
class LowRank(Recipe):
    """A content of ``rows`` times ``columns`` plus ``scale`` * B A, rounded to ``dtype``.

    ``a`` is a content of rank times columns elements of ``a_type``, ``b`` one of rows times rank of ``b_type``.
    ``scale`` is finite and a value of F32; ``rounding`` says where the merge rounded (delta/low_rank.py).
    """

    digest: str
    a: str
    b: str
    rows: int
    columns: int
    rank: int
    scale: float
    dtype: str
    a_type: str
    b_type: str
    rounding: str = "once"

    def __post_init__(self) -> None:
        for digest in (self.digest, self.a, self.b):
            checked_digest(digest)
        _checked_type(self.dtype, low_rank.RESULT_DTYPES)
        for kind in (self.a_type, self.b_type):
            _checked_type(kind, tuple(low_rank.FACTOR_DTYPES))
        _checked_type(self.rounding, low_rank.ROUNDINGS)
        checked_count(self.rows, "the number of rows")
        checked_count(self.columns, "the number of columns")
        checked_count(self.rank, "the rank", most=low_rank.MAX_RANK)
        checked_count(4 * self.rows * self.columns, "the size")
        most = low_rank.MAX_FACTOR_ELEMENTS
        checked_count(self.rank * max(self.rows, self.columns), "the size of a factor", most=most)
        if (
            type(self.scale) is not float
            or not math.isfinite(self.scale)
            or _as_f32(self.scale) != self.scale
        ):
            raise InvalidInputError("the scale of a recipe is not a finite value of F32")
        self.source_sizes()

    @property
    def size_bytes(self) -> int:
        return self.rows * self.columns * FLOAT_BYTES[self.dtype]

    def to_json(self) -> dict[str, Any]:
        scale = int.from_bytes(struct.pack("<f", self.scale), "little")
        shape, types = [self.rows, self.columns, self.rank], [self.a_type, self.b_type]
        return {"low_rank": [self.digest, self.a, self.b, *shape, scale, *types, self.rounding]}

    def source_sizes(self) -> dict[str, int]:
        return _merged(
            (self.digest, self.size_bytes),
            (self.a, self.rank * self.columns * low_rank.FACTOR_DTYPES[self.a_type]),
            (self.b, self.rows * self.rank * low_rank.FACTOR_DTYPES[self.b_type]),
        )

    def sources(self, begin: int = 0, end: int | None = None) -> tuple[Stretch, ...]:
        end = self.size_bytes if end is None else end
        self._check_window(begin, end)
        return self._stretches(*_covered(begin, end, FLOAT_BYTES[self.dtype])) if begin < end else ()

    def _stretches(self, first: int, last: int) -> tuple[Stretch, Stretch, Stretch]:
        step = FLOAT_BYTES[self.dtype]
        row_bytes = self.rank * low_rank.FACTOR_DTYPES[self.b_type]
        return (
            Stretch(self.digest, first * step, last * step),
            Stretch(self.a, 0, self.rank * self.columns * low_rank.FACTOR_DTYPES[self.a_type]),
            Stretch(self.b, first // self.columns * row_bytes, -(-last // self.columns) * row_bytes),
        )

    def _fill(self, begin: int, out: memoryview, held: Held) -> None:
        def predict(first: int, values: npt.NDArray[Any]) -> None:
            fill_low_rank(self, first, values, held)

        # All at once: each block would read and widen A again.
        _in_blocks(begin, out, FLOAT_BYTES[self.dtype], predict, most=self.rows * self.columns)


def _as_f32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.inf


def _merged(*needs: tuple[str, int]) -> dict[str, int]:
    """The sizes by digest, where one content may be named twice, but with one size only."""
    sizes = dict(needs)
    if any(sizes[digest] != size for digest, size in needs):
        raise InvalidInputError("a recipe gives one content two sizes")
    return sizes


@dataclass(frozen=True, slots=True)
class SignScale(Recipe):
    """A content of ``rows`` times ``columns``, each value moved up or down by its row's scale, in ``dtype``.

    ``signs`` is a content of a bit an element (1: down), lowest bit of a byte first, without gaps; ``scales``
    one of a value of F32 a row.
    """

    digest: str
    signs: str
    scales: str
    rows: int
    columns: int
    dtype: str

    def __post_init__(self) -> None:
        for digest in (self.digest, self.signs, self.scales):
            checked_digest(digest)
        _checked_type(self.dtype, SIGN_SCALE_DTYPES)
        checked_count(self.rows, "the number of rows", most=MAX_SIZE // 4)
        checked_count(self.columns, "the number of columns")
        checked_count(self.size_bytes, "the size")
        self.source_sizes()

    @property
    def size_bytes(self) -> int:
        return self.rows * self.columns * FLOAT_BYTES[self.dtype]

    def to_json(self) -> dict[str, Any]:
        return {"sign_scale": [self.digest, self.signs, self.scales, self.rows, self.columns]}

    def source_sizes(self) -> dict[str, int]:
        return _merged(
            (self.digest, self.size_bytes),
            (self.signs, -(-self.rows * self.columns // 8)),
            (self.scales, 4 * self.rows),
        )

    def sources(self, begin: int = 0, end: int | None = None) -> tuple[Stretch, ...]:
        end = self.size_bytes if end is None else end
        self._check_window(begin, end)
        return self._stretches(*_covered(begin, end, FLOAT_BYTES[self.dtype])) if begin < end else ()

    def _stretches(self, first: int, last: int) -> tuple[Stretch, Stretch, Stretch]:
        step = FLOAT_BYTES[self.dtype]
        return (
            Stretch(self.digest, first * step, last * step),
            Stretch(self.signs, first // 8, -(-last // 8)),
            Stretch(self.scales, 4 * (first // self.columns), 4 * -(-last // self.columns)),
        )

    def _fill(self, begin: int, out: memoryview, held: Held) -> None:
        def move(first: int, values: npt.NDArray[Any]) -> None:
            last = first + len(values)
            base, signs, scales = (
                # A copy: `held` may use its buffer again for the next stretch.
                bytes(taken(held, stretch.digest, stretch.begin, stretch.end))
                for stretch in self._stretches(first, last)
            )
            move_by_signs(
                np.frombuffer(base, values.dtype),
                values,
                self.dtype,
                first=first,
                columns=self.columns,
                signs=signs,
                scales=np.frombuffer(scales, np.float32),
            )

        _in_blocks(begin, out, FLOAT_BYTES[self.dtype], move)
