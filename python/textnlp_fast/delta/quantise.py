"""Approximations met tensor by tensor: a target replaced by a nearby one that is cheap to code against the base.

The base must be what readers hold. The exact machinery then codes what comes out here; that it is not the true target
is the index's promise (:mod:`textnlp_fast.delta.promise`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from textnlp_fast.delta.approximate import (
    Approximation,
    LowRank,
    MaxAbs,
    MaxUlp,
    SignScale,
    Threshold,
    TopK,
)
from textnlp_fast.delta.change import Change, Rule
from textnlp_fast.delta.elements import Words
from textnlp_fast.delta.factors import Factors, Signs, fit_factors, fit_signs, made_rule
from textnlp_fast.delta.ladder import max_abs_rule, max_ulp_rule
from textnlp_fast.delta.low_rank import RESULT_DTYPES
from textnlp_fast.delta.promise import Measurement, TensorPromise
from textnlp_fast.delta.selection import Priority, threshold_rule, top_k_rule
from textnlp_fast.delta.sign_scale import SIGN_SCALE_DTYPES

__all__ = ["Quantiser", "applies", "quantise"]


def applies(approximation: Approximation, dtype: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is approximated at all; others are sent exactly.

    Integers only by ``max_abs`` and ``top_k``; signs and factors only matrices of the types that their recipes know,
    and factors only where they are smaller than the matrix.
    """
    change = Change("", dtype, tuple(shape), _nothing)
    element = change.element
    if element is None or change.elements == 0:
        return False
    if not element.is_float:
        return isinstance(approximation, MaxAbs | TopK)
    if isinstance(approximation, SignScale):
        return len(shape) > 1 and dtype in SIGN_SCALE_DTYPES
    if isinstance(approximation, LowRank):
        factors_bytes = 2 * approximation.rank * (change.rows + change.columns)
        return (
            len(shape) > 1 and dtype in RESULT_DTYPES and factors_bytes < element.size_bytes * change.elements
        )
    return True


def _nothing(begin: int, end: int) -> tuple[Words, Words]:
    raise AssertionError("only the shape is asked for")


class Quantiser:
    """One tensor's approximation. Made, it has looked at the whole tensor; then any stretch can be had, in any order.

    ``asked`` is None, and every stretch the target's own bits, where the approximation does not apply. ``parts`` are
    what a recipe makes its base of, for ``low_rank`` and ``sign_scale``: the target that comes out is to be coded
    against that base, and is all but the same.
    """

    def __init__(
        self, approximation: Approximation, change: Change, *, priority: Priority | None = None
    ) -> None:
        """``priority`` ranks the weights of ``top_k`` in place of the sizes of their changes."""
        self.change = change
        self.asked = approximation if applies(approximation, change.dtype, change.shape) else None
        self.parts: Factors | Signs | None = None
        self._rule = self._ruled(priority)

    def _ruled(self, priority: Priority | None) -> Rule:
        change, element = self.change, self.change.element
        if self.asked is None or element is None:
            return _exact
        match self.asked:
            case MaxUlp(steps):
                return max_ulp_rule(change, element, steps)
            case MaxAbs(error):
                return max_abs_rule(change, element, error)
            case TopK(share):
                return top_k_rule(change, element, share, priority)
            case Threshold(least):
                return threshold_rule(element, least)
            case LowRank(rank):
                self.parts = fit_factors(change, element, rank)
            case SignScale(per):
                self.parts = fit_signs(change, element, per_row=per == "row")
        return _exact if self.parts is None else made_rule(element, self.parts)

    def block(self, begin: int, end: int) -> Words:
        """The bits to send of the elements from ``begin`` to ``end``."""
        return self._rule(begin, *self.change.read(begin, end))

    def blocks(self, measured: Measurement | None = None) -> Iterator[Words]:
        """The bits to send, block by block; what they drop is added to ``measured``."""
        for begin, target, base in self.change.blocks():
            sent = self._rule(begin, target, base)
            if measured is not None:
                measured.add(target, sent, base)
            yield sent

    def promise(self) -> TensorPromise:
        """What is dropped, measured in a pass of its own; :meth:`blocks` can do both in one."""
        measured = Measurement(self.change.dtype)
        for _ in self.blocks(measured):
            pass
        return measured.promise(self.asked)


def _exact(_: int, target: Words, base: Words) -> Words:
    return target


def quantise(
    approximation: Approximation,
    target: Any,
    base: Any,
    *,
    dtype: str,
    shape: Sequence[int] | None = None,
    name: str = "",
    priority: Priority | None = None,
) -> tuple[Words, TensorPromise]:
    """The bits to send in place of ``target``, as one array, and what was dropped.

    For tensors that fit into memory; :class:`Quantiser` takes others. Buffers are bytes or arrays of any type.
    """
    change = Change.of(target, base, dtype=dtype, shape=shape, name=name)
    quantiser = Quantiser(approximation, change, priority=priority)
    measured = Measurement(dtype)
    blocks = list(quantiser.blocks(measured))
    bits = np.concatenate(blocks) if blocks else change.read(0, 0)[0]
    return bits, measured.promise(quantiser.asked)
