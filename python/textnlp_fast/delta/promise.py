"""The promise of an approximation: what was asked for, how far off each tensor is, and what was dropped of its change.

Errors are measured between the true new version, the *original*, and what readers hold after the patch, the
*reconstructed*. Weights that are not finite are never approximated: they are equal bit for bit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from textnlp_fast.delta.approximate import Approximation, MaxAbs, MaxUlp, Threshold, from_json
from textnlp_fast.delta.change import Change
from textnlp_fast.delta.codec import DTYPES
from textnlp_fast.delta.elements import ELEMENTS, Doubles, Mask, Words
from textnlp_fast.delta.ladder import at_most_off
from textnlp_fast.errors import CorruptDataError, InternalError, PromiseBrokenError

__all__ = ["Measurement", "Promise", "TensorPromise", "check", "check_blocks"]

_MOST: Final = sys.float_info.max  # norms that overflow stop here, since JSON has no infinity
_MOST_ELEMENTS: Final = 2**52
_NORM_TOLERANCE: Final = 1e-9  # sums depend on the order that an instruction set adds in


class Measurement:
    """Sums up blocks of one tensor. A type that :data:`ELEMENTS` lacks counts as bytes that must be equal."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.elements = 0
        self.kept = 0
        self.max_ulp = 0
        self.max_abs = 0.0
        self.dropped_l2 = 0.0
        self.change_l2 = 0.0
        self.broken = 0
        """Weights that are not finite on one side and not the same on the other."""

    def add(self, original: Words, reconstructed: Words, base: Words | None = None) -> None:
        """The next block's bits; ``base``, what readers held before, gives ``kept`` and ``change_l2``."""
        self.elements += original.size
        different = original != reconstructed
        if base is not None:
            self.kept += int((reconstructed != base).sum())
        element = ELEMENTS.get(self.dtype)
        if element is None:
            self.broken += int(different.sum())
            return
        finite = element.is_finite(original)
        usable = finite & element.is_finite(reconstructed)
        self.broken += int((different & ~usable).sum())
        if different.any():
            a, b = (
                element.ordered(words[usable & different]).astype(np.uint64)
                for words in (original, reconstructed)
            )
            self.max_ulp = max(self.max_ulp, int(np.where(a > b, a - b, b - a).max(initial=0)))
            errors = _sizes(element.differences(original, reconstructed), usable)
            self.max_abs = max(self.max_abs, float(errors.max(initial=0)))
            self.dropped_l2 = _joined(self.dropped_l2, _norm(errors))
        if base is not None:
            changes = element.differences(original, base)
            self.change_l2 = _joined(self.change_l2, _norm(_sizes(changes, finite & element.is_finite(base))))

    def promise(self, asked: Approximation | None) -> TensorPromise:
        """All of it as what readers are told."""
        if self.broken:
            raise InternalError(f"{self.broken} weights that are not finite would change")
        return TensorPromise(
            asked,
            self.dtype,
            self.elements,
            self.kept,
            self.max_ulp,
            self.max_abs,
            self.dropped_l2,
            self.change_l2,
        )


def _sizes(differences: Doubles, usable: Mask) -> Doubles:
    return np.minimum(np.where(usable, np.abs(differences), 0.0), _MOST)


def _norm(sizes: Doubles) -> float:
    """The L2 norm, of numbers whose squares may overflow or vanish."""
    largest = float(sizes.max(initial=0))
    if largest == 0:
        return 0.0
    return min(largest * math.sqrt(float(np.square(sizes / largest).sum())), _MOST)


def _joined(*norms: float) -> float:
    return min(math.hypot(*norms), _MOST)


@dataclass(frozen=True, slots=True)
class TensorPromise:
    """One tensor. ``asked`` None: it is exact.

    ``kept``: weights that the patch changes. ``max_ulp`` (steps between neighbouring values) and ``max_abs`` (in value;
    differences are taken in float64): no weight is further off. ``dropped_l2`` is the norm of all that is off,
    ``change_l2`` that of the whole change, both over finite weights.
    """

    asked: Approximation | None
    dtype: str
    elements: int
    kept: int
    max_ulp: int
    max_abs: float
    dropped_l2: float
    change_l2: float

    def to_json(self) -> dict[str, Any]:
        return {
            "asked": None if self.asked is None else self.asked.to_json(),
            "change_l2": self.change_l2,
            "dropped_l2": self.dropped_l2,
            "dtype": self.dtype,
            "elements": self.elements,
            "kept": self.kept,
            "max_abs": self.max_abs,
            "max_ulp": self.max_ulp,
        }

    @classmethod
    def from_json(cls, document: object) -> TensorPromise:
        """Reads a stranger's document. :class:`CorruptDataError` says what is wrong."""
        entry = _object(document, _KEYS, "a tensor's promise")
        dtype, asked = entry["dtype"], entry["asked"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise CorruptDataError(f"a promise of the unknown dtype {str(dtype)[:40]!a}")
        elements = _whole(entry, "elements", _MOST_ELEMENTS)
        try:
            approximation = None if asked is None else from_json(asked)
        except ValueError as error:
            raise CorruptDataError(f"a promise asks for what is unknown: {error.args[0]}") from None
        promise = cls(
            approximation,
            dtype,
            elements,
            _whole(entry, "kept", elements),
            _whole(entry, "max_ulp", 2**64 - 1),
            _real(entry, "max_abs"),
            _real(entry, "dropped_l2"),
            _real(entry, "change_l2"),
        )
        if approximation is None and (promise.max_ulp or promise.max_abs or promise.dropped_l2):
            raise CorruptDataError("a promise of an exact tensor with an error")
        return promise


_KEYS: Final = frozenset(TensorPromise.__slots__)


@dataclass(frozen=True, slots=True)
class Promise:
    """All tensors of a patch by name."""

    tensors: Mapping[str, TensorPromise]

    @property
    def elements(self) -> int:
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def kept(self) -> int:
        return sum(tensor.kept for tensor in self.tensors.values())

    @property
    def max_ulp(self) -> int:
        return max((tensor.max_ulp for tensor in self.tensors.values()), default=0)

    @property
    def max_abs(self) -> float:
        return max((tensor.max_abs for tensor in self.tensors.values()), default=0.0)

    @property
    def dropped_l2(self) -> float:
        return _joined(*(tensor.dropped_l2 for tensor in self.tensors.values()))

    @property
    def change_l2(self) -> float:
        return _joined(*(tensor.change_l2 for tensor in self.tensors.values()))

    def to_json(self) -> dict[str, Any]:
        return {name: tensor.to_json() for name, tensor in self.tensors.items()}

    @classmethod
    def from_json(cls, document: object) -> Promise:
        """Reads a stranger's document. :class:`CorruptDataError` says what is wrong."""
        if not isinstance(document, dict):
            raise CorruptDataError("a promise is no object")
        return cls({str(name): TensorPromise.from_json(entry) for name, entry in document.items()})


def _object(document: object, keys: frozenset[str], what: str) -> dict[str, Any]:
    if not isinstance(document, dict) or document.keys() != keys:
        raise CorruptDataError(f"{what} is no object of {', '.join(sorted(keys))}")
    return document


def _whole(entry: Mapping[str, Any], key: str, most: int) -> int:
    value = entry[key]
    if type(value) is not int or not 0 <= value <= most:
        raise CorruptDataError(f"a promise whose {key} is no whole number from 0 to {most}")
    return value


def _real(entry: Mapping[str, Any], key: str) -> float:
    value = entry[key]
    # Other writers of JSON drop a trailing ".0".
    if type(value) not in (float, int) or not 0 <= value <= _MOST:  # a NaN is not between them
        raise CorruptDataError(f"a promise whose {key} is no finite number from 0 up")
    return float(value)


# --- keeping it ---------------------------------------------------------------------------------------------


def check(promise: Promise, original: Mapping[str, Any], reconstructed: Mapping[str, Any]) -> None:
    """Compares two versions, tensor by tensor, with what was promised.

    Both map a tensor's name to its raw bits, in any buffer. Raises :class:`PromiseBrokenError`, which names the tensor
    and the bound.
    """
    for side, tensors in (("original", original), ("reconstructed", reconstructed)):
        for name in promise.tensors.keys() ^ tensors.keys():
            where = "the promise" if name in tensors else f"the {side} version"
            raise PromiseBrokenError(f"tensor {name!r} is not in {where}", tensor=name, bound="names")
    for name, promised in promise.tensors.items():
        try:
            change = Change.of(original[name], reconstructed[name], dtype=promised.dtype, name=name)
        except ValueError as error:
            raise PromiseBrokenError(str(error.args[0]), tensor=name, bound="elements") from None
        check_blocks(name, promised, ((truth, held) for _, truth, held in change.blocks()))


def check_blocks(name: str, promised: TensorPromise, blocks: Iterable[tuple[Words, Words]]) -> None:
    """The same for one tensor, from blocks of (original, reconstructed) bits that together are all of it."""
    measured = Measurement(promised.dtype)
    for original, reconstructed in blocks:
        measured.add(original, reconstructed)
        broken = _asked_and_broken(promised, original, reconstructed)
        if broken is not None:
            raise PromiseBrokenError(
                f"tensor {name!r} is further off than the {broken} asked for", tensor=name, bound=broken
            )
    if measured.elements != promised.elements:
        raise PromiseBrokenError(
            f"tensor {name!r} has {measured.elements} elements, promised were {promised.elements}",
            tensor=name,
            bound="elements",
        )
    if measured.broken:
        raise PromiseBrokenError(
            f"tensor {name!r}: {measured.broken} weights changed that have to be equal bit for bit",
            tensor=name,
            bound="exact",
        )
    for bound, got, limit in (
        ("max_ulp", measured.max_ulp, promised.max_ulp),
        ("max_abs", measured.max_abs, promised.max_abs),
        ("dropped_l2", measured.dropped_l2, promised.dropped_l2 * (1 + _NORM_TOLERANCE)),
    ):
        if got > limit:
            raise PromiseBrokenError(
                f"tensor {name!r}: {bound} is {got}, promised was {limit}", tensor=name, bound=bound
            )


def _asked_and_broken(promised: TensorPromise, original: Words, reconstructed: Words) -> str | None:
    """The bound that was asked for, in words, if the block breaks it."""
    element = ELEMENTS.get(promised.dtype)
    if element is None or promised.asked is None:
        return None
    usable = element.is_finite(original) & element.is_finite(reconstructed)
    a, b = original[usable], reconstructed[usable]
    match promised.asked:
        case MaxUlp(steps):
            here, there = element.ordered(a).astype(np.uint64), element.ordered(b).astype(np.uint64)
            kept = bool((np.where(here > there, here - there, there - here) <= steps).all())
        case MaxAbs(error) if not element.is_float:
            here, there = element.ordered(a).astype(np.uint64), element.ordered(b).astype(np.uint64)
            kept = bool(
                (np.where(here > there, here - there, there - here).astype(np.float64) <= error).all()
            )
        case MaxAbs(error):
            kept = bool(at_most_off(element.values(a), element.values(b), error).all())
        case Threshold(change):
            kept = bool((np.abs(element.differences(a, b)) < change).all())
        case _:
            return None
    return None if kept else str(promised.asked)
