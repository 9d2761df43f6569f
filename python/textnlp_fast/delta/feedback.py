"""Error feedback: chains of approximate patches that do not drift.

The loop is closed: each patch goes from what readers hold, not from the version before, to the true new version. What
one patch dropped is then part of the next one's change, and after any number of steps the error is that of the last
alone. A patch between two true versions, applied to what readers hold, would add its error to theirs.

``top_k`` needs more: a weight whose change stays small could wait for ever behind larger ones. :class:`Backlog` lets it
move up the longer it waits.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.delta.approximate import Approximation
from textnlp_fast.delta.change import Change
from textnlp_fast.delta.elements import Doubles, Words
from textnlp_fast.delta.promise import Measurement, TensorPromise
from textnlp_fast.delta.quantise import Quantiser
from textnlp_fast.delta.selection import change_sizes
from textnlp_fast.errors import InvalidInputError

__all__ = ["Backlog", "ClosedLoop"]

_SMALLEST: Final = np.float64(np.finfo(np.float32).smallest_subnormal)
_LARGEST: Final = np.float64(np.finfo(np.float32).max)


class Backlog:
    """For each weight of a tensor, the sum over the patches that left it out of how far readers were off then.

    ``waiting`` is an fp32 array (a memory map will do) that lives as long as the chain: zeros at its begin. A weight
    that stays off by the least bit gains on all that are sent now and then, so it is sent in the end.
    """

    def __init__(self, waiting: npt.NDArray[np.float32]) -> None:
        if waiting.dtype != np.float32 or waiting.ndim != 1:
            raise InvalidInputError("a backlog is a flat fp32 array")
        self.waiting = waiting

    def begin(self, change: Change) -> None:
        """Counts in what readers are off by before the next patch."""
        element = change.element
        if element is None or change.elements != self.waiting.size:
            raise InvalidInputError(
                f"tensor {change.name!r} of {change.elements} {change.dtype} and a backlog of {self.waiting.size}"
            )
        for begin, target, base in change.blocks():
            part = self.waiting[begin : begin + target.size]
            # What is off by too little for fp32 waits as well; what is not off is let off by `end`.
            part[:] = np.clip(part + change_sizes(element, target, base), _SMALLEST, _LARGEST)

    def rank(self, begin: int, end: int) -> Doubles:
        """What :class:`Quantiser` takes as ``priority``."""
        return self.waiting[begin:end].astype(np.float64)

    def end(self, quantiser: Quantiser) -> None:
        """Lets off what the patch sends. The quantiser, which ranks by ``waiting``, is of no use afterwards."""
        begin = 0
        for sent in quantiser.blocks():
            target = quantiser.change.read(begin, begin + sent.size)[0]
            self.waiting[begin : begin + sent.size][sent == target] = 0
            begin += sent.size


class ClosedLoop:
    """One tensor's chain in memory: ``held`` is what every reader that applied all patches so far holds.

    For models in files the protocol is the same: keep the folder that the patches make, and give it as the source of
    the next one.
    """

    def __init__(
        self, held: Words, *, dtype: str, shape: tuple[int, ...], backlog: Backlog | None = None
    ) -> None:
        self.held = held
        self.dtype = dtype
        self.shape = shape
        self.backlog = backlog

    def next(self, approximation: Approximation, target: Any) -> tuple[Words, TensorPromise]:
        """What to send for a new true version, coded against the ``held`` of before; ``held`` is then that."""
        change = Change.of(target, self.held, dtype=self.dtype, shape=self.shape)
        if self.backlog is not None:
            self.backlog.begin(change)
        priority = None if self.backlog is None else self.backlog.rank
        quantiser = Quantiser(approximation, change, priority=priority)
        measured = Measurement(self.dtype)
        blocks = list(quantiser.blocks(measured))
        if self.backlog is not None:
            self.backlog.end(quantiser)
        self.held = np.concatenate(blocks) if blocks else self.held
        return self.held, measured.promise(quantiser.asked)
