"""Pairs of tensors for the tests of approximations: any bits, neighbours of each other, and all that is special."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from textnlp_fast.delta.elements import ELEMENTS

Words = npt.NDArray[Any]
FLOATS = ("F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64")
INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")


def special_bits(dtype: str) -> list[int]:
    """Zeros, the smallest, the largest, infinities and NaNs, of both signs."""
    element = ELEMENTS[dtype]
    some = [
        0,
        1,
        2,
        element.largest - 1,
        element.largest,
        min(element.largest + 1, element.top - 1),
        element.top - 1,
    ]
    return [bits | sign for bits in some for sign in (0, element.top)]


def bits_of(dtype: str) -> st.SearchStrategy[int]:
    element = ELEMENTS[dtype]
    return st.one_of(st.sampled_from(special_bits(dtype)), st.integers(0, 2 * element.top - 1))


@st.composite
def changes(draw: st.DrawFn, dtypes: tuple[str, ...] = FLOATS) -> tuple[str, Words, Words]:
    """Dtype, target and base; each weight of the base is anything, near the target's, its negative, or the same."""
    dtype = draw(st.sampled_from(dtypes))
    element = ELEMENTS[dtype]
    whole = 2 * element.top
    target = draw(st.lists(bits_of(dtype), max_size=24))
    base = []
    for bits in target:
        kind = draw(st.integers(0, 3))
        if kind == 0:
            base.append(draw(bits_of(dtype)))
        elif kind == 1:
            base.append((bits + draw(st.integers(-9, 9))) % whole)
        else:
            base.append(bits ^ element.top if kind == 2 else bits)
    return dtype, np.array(target, element.word), np.array(base, element.word)


def weights(dtype: str, count: int, seed: int, *, size: float = 0.02) -> Words:
    """Bits of normally distributed weights of a float type."""
    values = np.random.default_rng(seed).normal(0, size, count)
    return ELEMENTS[dtype].rounded(values)


def moved(dtype: str, base: Words, seed: int, *, size: float) -> Words:
    """Bits of ``base`` after a step of about ``size``, with heavy tails."""
    element = ELEMENTS[dtype]
    step = np.random.default_rng(seed).standard_t(3, base.size) * size
    return element.rounded(element.values(base) + step)
