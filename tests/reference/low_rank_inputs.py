"""Matrices and factors of any type, plain and wild."""

from __future__ import annotations

from typing import Any

import numpy as np

from textnlp_fast.delta.low_rank import Factors

WORD: dict[str, Any] = {"F32": np.uint32, "BF16": np.uint16, "F16": np.uint16, "I16": np.int16, "I8": np.int8}


def plain(rng: np.random.Generator, count: int, dtype: str, size: float) -> bytes:
    """Bits of normal numbers of a size; integers around 100 for the integer types."""
    floats = rng.normal(0, size, count).astype(np.float32)
    if dtype.startswith("I"):
        return rng.integers(-100, 101, count).astype(WORD[dtype]).tobytes()
    if dtype == "F16":
        return floats.astype(np.float16).tobytes()
    if dtype == "BF16":
        return (floats.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return floats.tobytes()


def wild(rng: np.random.Generator, count: int, dtype: str) -> bytes:
    """Any bits: NaNs, infinities, subnormals, zeros of both signs."""
    return rng.integers(0, 256, count * np.dtype(WORD[dtype]).itemsize, dtype=np.uint8).tobytes()


def made(
    rows: int, columns: int, rank: int, seed: int, *, kinds: str = "BF16 F32 F32", rounding: str = "once",
    scale: float = 2.0, strange: bool = False,
) -> tuple[bytes, Factors]:  # fmt: skip
    rng = np.random.default_rng(seed)
    dtype, a_dtype, b_dtype = kinds.split()
    if strange:
        data = [
            wild(rng, n, d)
            for n, d in zip((rows * columns, rank * columns, rows * rank), kinds.split(), strict=True)
        ]
    else:
        data = [
            plain(rng, rows * columns, dtype, 0.03),
            plain(rng, rank * columns, a_dtype, 0.05),
            plain(rng, rows * rank, b_dtype, 0.05),
        ]
    return data[0], Factors(rows, columns, rank, scale, data[1], data[2], a_dtype, b_dtype, rounding)
