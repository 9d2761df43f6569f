"""Values moved up or down by their row's scale: the one arithmetic of section *Sign and scale* of docs/format.md."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.float_casts import cast_bits

__all__ = ["SIGN_SCALE_DTYPES", "move_by_signs"]

SIGN_SCALE_DTYPES: Final = ("BF16", "F16", "F32")


def move_by_signs(
    bits: npt.NDArray[Any],
    out: npt.NDArray[Any],
    dtype: str,
    *,
    first: int,
    columns: int,
    signs: bytes | memoryview,
    scales: npt.NDArray[np.float32],
) -> None:
    """Writes to `out` what becomes of elements `first` and following of a matrix, whose raw bits are `bits`.

    `signs` are whole bytes from that of element `first` on (1: down, lowest bit first), `scales` those of the rows
    from that of element `first` on.
    """
    last = first + len(bits)
    top = first // columns
    edges = np.clip(np.arange(top, -(-last // columns) + 1) * columns, first, last)
    moves = np.repeat(scales[: len(edges) - 1], edges[1:] - edges[:-1])
    stays = moves == 0
    down = np.unpackbits(np.frombuffer(signs, np.uint8), bitorder="little")[first % 8 :][: len(bits)]
    moves.view(np.uint32)[:] ^= down.astype(np.uint32) << np.uint32(31)
    wide = np.empty(len(bits), np.uint32)
    if dtype == "F32":
        wide[:] = bits
    else:
        cast_bits(bits, wide, dtype, "F32")
    with np.errstate(all="ignore"):
        total = wide.view(np.float32) + moves
    if dtype == "F32":
        out[:] = total.view(np.uint32)
    else:
        cast_bits(total.view(np.uint32), out, "F32", dtype)
    # Which NaN a sum gives depends on the processor, and 0 added to -0 would give +0.
    np.copyto(out, bits, where=stays | np.isnan(total))
