"""One tensor on its way from what readers hold to its new version, read in blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from textnlp_fast.delta.elements import ELEMENTS, Element, Words, words_of
from textnlp_fast.errors import InvalidInputError

__all__ = ["BLOCK_ELEMENTS", "Change", "Rule"]

BLOCK_ELEMENTS: Final = 1 << 17

#: Makes the bits to send from (first element, target, base): the target's bits where it must not change them.
Rule = Callable[[int, Words, Words], Words]


@dataclass(frozen=True, slots=True)
class Change:
    """``read(begin, end)`` gives target and base as raw bits of these elements, and the same ones each time."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[int, int], tuple[Words, Words]]

    @classmethod
    def of(
        cls, target: Any, base: Any, *, dtype: str, shape: Sequence[int] | None = None, name: str = ""
    ) -> Change:
        """The change between two buffers (bytes, arrays, memory maps) of one size.

        ``shape`` None: one dimension. A type that :data:`ELEMENTS` lacks is read as bytes.
        """
        element = ELEMENTS.get(dtype, ELEMENTS["U8"])
        after, before = words_of(target, element), words_of(base, element)
        if after.size != before.size:
            raise InvalidInputError(f"tensor {name!r}: {after.size} elements, and {before.size} in the base")
        if shape is None:
            shape = (after.size,)
        if dtype in ELEMENTS and math.prod(shape) != after.size:
            raise InvalidInputError(
                f"tensor {name!r}: {after.size} elements do not fill the shape {list(shape)}"
            )
        if dtype not in ELEMENTS:
            shape = (after.size,)
        return cls(name, dtype, tuple(shape), lambda begin, end: (after[begin:end], before[begin:end]))

    @property
    def element(self) -> Element | None:
        """The element type; None if only exact patches know it."""
        return ELEMENTS.get(self.dtype)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Of the tensor as a matrix: all but the first dimension; one row if it has one dimension."""
        return math.prod(self.shape[1:]) if len(self.shape) > 1 else self.elements

    @property
    def rows(self) -> int:
        return self.elements // self.columns if self.columns else 0

    def blocks(self, *, whole_rows: bool = False) -> Iterator[tuple[int, Words, Words]]:
        """First element, target and base of one block after the other."""
        step = BLOCK_ELEMENTS
        if whole_rows:
            step = max(1, step // max(1, self.columns)) * self.columns
        for begin in range(0, self.elements, step):
            end = min(begin + step, self.elements)
            yield begin, *self.read(begin, end)

    def sample(self, stretches: int = 4, length: int = 1 << 14) -> tuple[Words, Words]:
        """At most ``stretches`` of ``length`` elements, evenly spread."""
        if self.elements <= stretches * length:
            return self.read(0, self.elements)
        begins = [(self.elements - length) * place // (stretches - 1) for place in range(stretches)]
        parts = [self.read(begin, begin + length) for begin in begins]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
