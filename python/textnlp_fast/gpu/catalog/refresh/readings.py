"""What a price list said, before anybody believes it, and how the parts of a refresh are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from textnlp_fast.errors import ProviderUnavailableError
from textnlp_fast.gpu.catalog.document import Key, Listed
from textnlp_fast.gpu.types import Market

__all__ = ["Part", "Place", "Price", "Reading", "Source", "decimal", "field_of", "one_line", "strange"]

_LONGEST_QUOTE: Final = 400


class Place(NamedTuple):
    """Of what a price is one."""

    provider: str
    instance_type: str
    region: str
    zone: str | None
    market: Market

    def __str__(self) -> str:
        return f"{self.market} {self.instance_type} in {self.zone or self.region}"


class Price(NamedTuple):
    """A price as its list has it."""

    place: Place
    usd_per_hour: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one part of a refresh brought. `notes` say what of the answer could not be used, and why."""

    prices: tuple[Price, ...] = ()
    instance_types: Mapping[Key, Listed] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a refresh that fails or succeeds by itself."""

    what: str
    """As in `spot prices of us-east-1`."""
    read: Callable[[], Reading]


class Source(Protocol):
    """The price lists of a provider."""

    def parts(self, regions: tuple[str, ...]) -> Iterator[Part]:
        """The parts of a refresh of these regions, in order; a later one may build on an earlier one."""
        ...  # pragma: no cover


def decimal(value: object) -> float | None:
    """The number that a text or a number is; None for all that is no finite number: lists write `0.5260000000`."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or len(str(value)[:41]) > 40:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def field_of(value: object, name: str, kind: type) -> Any:
    """A field of a JSON object if it is of that type; None else, for what is no object too."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, kind) and not (kind is int and isinstance(found, bool)) else None


def strange(what: str, why: str) -> ProviderUnavailableError:
    """The error of an answer that is not what its API promises."""
    return ProviderUnavailableError(
        f"the answer to a question for {what} is none: {why}",
        hint="Try again later; former prices are kept. If it stays so, the API has changed: report it.",
    )


def one_line(error: Exception) -> str:
    """What another library says, on one line: some quote a page of HTML as it came."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]} ..."
