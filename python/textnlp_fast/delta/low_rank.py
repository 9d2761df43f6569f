"""The low-rank recipe's thin face: base + scale * (B A) in one fixed order, the same bits everywhere.

docs/format.md, section *Low rank*, states the order. Buffers are anything with the buffer protocol or DLPack; nothing
is copied on the way in, and the GIL is released while the core works.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast import _native
from textnlp_fast.delta.codec import DTYPES
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.tensors.devices import on_device

__all__ = [
    "FACTOR_DTYPES",
    "MAX_FACTOR_ELEMENTS",
    "MAX_RANK",
    "RESULT_DTYPES",
    "ROUNDINGS",
    "Factors",
    "predict",
    "predict_into",
]

#: Element types of a tensor that a low-rank recipe makes, and bytes an element of the factors that it takes.
RESULT_DTYPES: Final = ("BF16", "F16", "F32")
FACTOR_DTYPES: Final = {"F32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1}
#: Where a merge rounds to the tensor's type besides at its end, by the name that a recipe gives it: nowhere; the
#: scaled product; the product, and again once scaled.
ROUNDINGS: Final = ("once", "delta", "steps")
MAX_RANK: Final = 65536
MAX_FACTOR_ELEMENTS: Final = 1 << 28


@dataclass(frozen=True, slots=True)
class Factors:
    """What a low-rank recipe says besides its base: the change of a ``rows`` x ``columns`` tensor.

    ``a`` holds ``rank`` x ``columns`` elements of ``a_dtype``, ``b`` ``rows`` x ``rank`` of ``b_dtype``, both row by
    row. ``scale`` is a finite fp32 number. Raises :class:`InvalidInputError` if these do not fit each other.
    """

    rows: int
    columns: int
    rank: int
    scale: float
    a: bytes | bytearray
    b: bytes | bytearray
    a_dtype: str
    b_dtype: str
    rounding: str = "once"

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.rank) < 1 or self.rank > MAX_RANK:
            raise InvalidInputError(
                f"no matrix of {self.rows} x {self.columns} has a low-rank change of rank {self.rank}",
                hint=f"Rows and columns are at least 1, the rank is 1 to {MAX_RANK}.",
            )
        if self.rank * max(self.rows, self.columns) > MAX_FACTOR_ELEMENTS:
            raise InvalidInputError(
                f"factors of a low-rank change have at most {MAX_FACTOR_ELEMENTS} elements"
            )
        for name, dtype, data, elements in (
            ("A", self.a_dtype, self.a, self.rank * self.columns),
            ("B", self.b_dtype, self.b, self.rows * self.rank),
        ):
            if dtype not in FACTOR_DTYPES:
                raise InvalidInputError(
                    f"factor {name} has the dtype {dtype!r}", hint=f"Known: {', '.join(FACTOR_DTYPES)}."
                )
            if len(data) != elements * FACTOR_DTYPES[dtype]:
                raise InvalidInputError(
                    f"factor {name} has {len(data)} bytes, {elements} elements of {dtype} are needed"
                )
        if self.rounding not in ROUNDINGS:
            raise InvalidInputError(
                f"unknown rounding {self.rounding!r}", hint=f"Known: {', '.join(ROUNDINGS)}."
            )
        if not math.isfinite(self.scale) or abs(self.scale) > 3.4028234663852886e38:
            raise InvalidInputError(f"the scale {self.scale} is no finite fp32 number")
        # The number that is meant is the one that a reader uses.
        object.__setattr__(self, "scale", struct.unpack("<f", struct.pack("<f", self.scale))[0])

    @property
    def scale_bits(self) -> int:
        """The scale as the integer that a recipe stores: the bits of its fp32 form."""
        return int(struct.unpack("<I", struct.pack("<f", self.scale))[0])


def predict_into(
    base: Any,
    out: Any,
    factors: Factors,
    *,
    dtype: str,
    first_element: int = 0,
    threads: int = 0,
    stream: int | None = None,
) -> None:
    """Write elements ``first_element`` and following of the result to ``out``, as many as it holds.

    ``base`` holds the same elements of the base tensor, of ``dtype`` as the result; it may be ``out``. Any stretch may
    be made alone. Needs memory for the factors as fp32, and ``threads`` (0: every processor). Both may be arrays on a
    CUDA device: the device then makes it, in the order of ``stream`` (a ``cudaStream_t`` as an integer, by default the
    default stream), and takes memory for the factors as they are. Raises :class:`InvalidInputError` if sizes or types
    do not fit, :class:`DeviceError` where there is no device; nothing is written then.
    """
    if dtype not in RESULT_DTYPES:
        raise InvalidInputError(
            f"a low-rank recipe cannot make the dtype {dtype!r}", hint=f"Known: {', '.join(RESULT_DTYPES)}."
        )
    if first_element < 0:
        raise InvalidInputError(f"there is no element {first_element}")
    device = on_device(out)
    call = _native.cuda_low_rank_into if device else _native.low_rank_into
    call(
        base,
        out,
        DTYPES[dtype],
        factors.a,
        DTYPES[factors.a_dtype],
        factors.b,
        DTYPES[factors.b_dtype],
        factors.rows,
        factors.columns,
        factors.rank,
        factors.scale,
        ROUNDINGS.index(factors.rounding),
        first_element,
        (stream or 0) if device else threads,
    )


def predict(base: bytes, factors: Factors, *, dtype: str, first_element: int = 0, threads: int = 0) -> bytes:
    """:func:`predict_into` for as many elements as ``base`` holds, into new bytes."""
    out = bytearray(len(base))
    predict_into(base, out, factors, dtype=dtype, first_element=first_element, threads=threads)
    return bytes(out)
