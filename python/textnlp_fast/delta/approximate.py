"""What a user may ask for instead of a bit-exact patch, by name and never by default.

Each description has two forms, a text for a command line (``max_ulp=2``) and JSON for a patch's index
(``{"max_ulp": 2}``), and says nothing about how it is met: that is :mod:`textnlp_fast.delta.quantise`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias, cast

from textnlp_fast.errors import InvalidInputError

__all__ = [
    "Approximation",
    "LowRank",
    "MaxAbs",
    "MaxUlp",
    "SignScale",
    "Threshold",
    "TopK",
    "from_json",
    "parse",
]

_HINT: Final = (
    "Known: max_ulp=2, max_abs=1e-5, top_k=0.01, threshold=1e-4, low_rank=16, sign_scale or sign_scale=row."
)
MOST_ULP: Final = 2**31 - 1
MOST_RANK: Final = 4096


class _Described:
    """The two written forms, which differ only in the value."""

    name: ClassVar[str]
    __slots__ = ()

    @property
    def value(self) -> int | float | str:
        raise NotImplementedError

    def to_json(self) -> dict[str, int | float | str]:
        return {self.name: self.value}

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


def _refused(name: str, value: object, wanted: str) -> InvalidInputError:
    return InvalidInputError(f"{name} of {str(value)[:40]!a}: {wanted}", hint=_HINT)


def _check_whole(name: str, value: object, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise _refused(name, value, f"it is a whole number from 1 to {most}")


def _check_positive(name: str, value: object) -> None:
    if type(value) is not float or not (math.isfinite(value) and value > 0):
        raise _refused(name, value, "it is a positive finite number")


@dataclass(frozen=True, slots=True)
class MaxUlp(_Described):
    """No weight is further off than ``steps`` steps between neighbouring representable values."""

    name: ClassVar[str] = "max_ulp"
    steps: int

    def __post_init__(self) -> None:
        _check_whole(self.name, self.steps, MOST_ULP)

    @property
    def value(self) -> int:
        return self.steps


@dataclass(frozen=True, slots=True)
class MaxAbs(_Described):
    """No weight is further off than ``error`` in value."""

    name: ClassVar[str] = "max_abs"
    error: float

    def __post_init__(self) -> None:
        _check_positive(self.name, self.error)

    @property
    def value(self) -> float:
        return self.error


@dataclass(frozen=True, slots=True)
class TopK(_Described):
    """Of each tensor, the ``share`` of the weights that changed most, rounded up, arrives exactly; others stay."""

    name: ClassVar[str] = "top_k"
    share: float

    def __post_init__(self) -> None:
        _check_positive(self.name, self.share)
        if self.share > 1:
            raise _refused(self.name, self.share, "it is a share of the weights, at most 1")

    @property
    def value(self) -> float:
        return self.share


@dataclass(frozen=True, slots=True)
class Threshold(_Described):
    """Changes of at least ``change`` in value arrive exactly; smaller ones not at all."""

    name: ClassVar[str] = "threshold"
    change: float

    def __post_init__(self) -> None:
        _check_positive(self.name, self.change)

    @property
    def value(self) -> float:
        return self.change


@dataclass(frozen=True, slots=True)
class LowRank(_Described):
    """Of each matrix the change is replaced by its best approximation of rank ``rank``."""

    name: ClassVar[str] = "low_rank"
    rank: int

    def __post_init__(self) -> None:
        _check_whole(self.name, self.rank, MOST_RANK)

    @property
    def value(self) -> int:
        return self.rank


@dataclass(frozen=True, slots=True)
class SignScale(_Described):
    """Of each matrix the signs of the change, and one size for all or for each row (BitDelta, arXiv:2402.10193)."""

    name: ClassVar[str] = "sign_scale"
    per: Literal["tensor", "row"] = "tensor"

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "row"):
            raise _refused(self.name, self.per, "the scale is per 'tensor' or per 'row'")

    @property
    def value(self) -> str:
        return self.per


Approximation: TypeAlias = MaxUlp | MaxAbs | TopK | Threshold | LowRank | SignScale

_WHOLE: Final[dict[str, type[MaxUlp] | type[LowRank]]] = {"max_ulp": MaxUlp, "low_rank": LowRank}
_REAL: Final[dict[str, type[MaxAbs] | type[TopK] | type[Threshold]]] = {
    "max_abs": MaxAbs,
    "top_k": TopK,
    "threshold": Threshold,
}


def parse(text: str) -> Approximation:
    """Reads the text form. :class:`InvalidInputError` says what is wrong and lists what there is."""
    name, equals, value = text.strip().partition("=")
    if name == SignScale.name:
        return SignScale(cast(Literal["tensor", "row"], value)) if equals else SignScale()
    if name in _WHOLE:
        # No signs, spaces or underscores, nor digits of other scripts, which int() would take.
        if not (value.isascii() and value.isdigit() and len(value) <= 10):
            raise _refused(name, value, "it is a whole number")
        return _WHOLE[name](int(value))
    if name in _REAL:
        try:
            number = float(value) if len(value) <= 40 and "_" not in value else math.nan
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise _refused(name, value, "it is a number")
        return _REAL[name](number)
    raise InvalidInputError(f"{text[:80]!a} is no approximation", hint=_HINT)


def from_json(document: object) -> Approximation:
    """Reads the JSON form: an object with one key. Raises :class:`InvalidInputError` for anything else.

    Whole numbers are taken where reals are meant, since other writers of JSON drop a trailing ``.0``.
    """
    if not isinstance(document, dict) or len(document) != 1:
        raise InvalidInputError("an approximation is an object with one key", hint=_HINT)
    ((name, value),) = document.items()
    if name == SignScale.name:
        if not isinstance(value, str):
            raise _refused(name, value, "the scale is per 'tensor' or per 'row'")
        return SignScale(cast(Literal["tensor", "row"], value))
    if name in _WHOLE:
        return _WHOLE[name](value)
    if name in _REAL:
        small = type(value) is int and abs(value) < 2**53
        return _REAL[name](float(value) if small else value)
    raise InvalidInputError(f"{str(name)[:80]!a} is no approximation", hint=_HINT)
