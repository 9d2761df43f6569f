"""Reference entropies: how few bits per weight the codec's own model could take if its tables cost nothing.

Empirical entropies of the very data that is coded, in bits. They are no bound on other models: one that looks at
more than the exponent, or that keeps a table for each tensor, may go below the pooled figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from formats import Array, Format
from measure import Bytes

# Bits kept behind the leading one of a wide difference; below them come raw bits.
_KEPT_BITS = 6


def entropy(symbols: Array) -> float:
    """Total bits (not bits per symbol) of ``symbols`` under their own frequencies."""
    _, counts = np.unique(symbols, return_counts=True)
    return float(np.sum(counts * np.log2(symbols.size / counts))) if symbols.size else 0.0


def conditional(symbols: Array, contexts: Array) -> float:
    """Total bits of ``symbols`` when a reader knows ``contexts`` and has a table for each value of them."""
    joint = (contexts.astype(np.uint64) << np.uint64(32)) | symbols.astype(np.uint64)
    return entropy(joint) - entropy(contexts)


def ulp_bits(target: Bytes, base: Bytes, form: Format) -> float:
    """Total bits of the differences in ULPs, given the base's exponents.

    Differences of 32-bit elements are nearly all unique, so that their own frequencies would say nothing: sign, bit
    length and the six bits below the leading one are counted by frequency there, and what is left as raw bits.
    """
    ulps = form.ulps(target, base)
    exponents = form.exponents(base)
    if form.width < 4:
        return conditional(ulps.view(form.word), exponents)
    sizes = np.abs(ulps.astype(np.int64))
    lengths = np.frexp(sizes.astype(np.float64))[1]  # exact: fp64 holds every 33-bit integer
    raw = np.maximum(lengths - 1 - _KEPT_BITS, 0)
    classes = (sizes >> raw) | lengths.astype(np.int64) << 8 | (ulps < 0).astype(np.int64) << 16
    return conditional(classes, exponents) + float(raw.sum())


def standalone_bits(data: Bytes, form: Format) -> float:
    """Total bits of the exponents by frequency and all other bits raw; integers by the frequency of their values."""
    if not form.exponent_bits:
        return entropy(form.words(data))
    count = data.size // form.width
    return entropy(form.exponents(data)) + count * (8 * form.width - form.exponent_bits)


def pooled_and_apart(
    bits: Callable[..., float], form: Format, *sides: Sequence[Bytes]
) -> tuple[float, float]:
    """Bits per element with one set of tables for all tensors, and with a set for each tensor.

    ``bits``: :func:`ulp_bits` or :func:`standalone_bits`; ``sides``: the tensors of each of its arrays.
    """
    elements = sum(tensor.size for tensor in sides[0]) // form.width
    pooled = bits(*(np.concatenate(side) for side in sides), form)
    apart = sum(bits(*tensors, form) for tensors in zip(*sides, strict=True))
    return pooled / elements, apart / elements
