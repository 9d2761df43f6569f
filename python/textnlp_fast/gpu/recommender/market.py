"""What may be rented: offers as they are given, and of each instance type the cheapest."""

from __future__ import annotations

import math
from collections.abc import Iterable

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.types import GPUType, Market, Offer

__all__ = ["cheapest_by_type", "listed", "types_of"]


def types_of(gpu_types: Iterable[GPUType | str] | GPUType | str | None) -> tuple[GPUType, ...] | None:
    """The types that are meant; None: all. Raises InvalidInputError for what is none."""
    if gpu_types is None:
        return None
    many = gpu_types if isinstance(gpu_types, Iterable) and not isinstance(gpu_types, str) else [gpu_types]
    return tuple(GPUType.parse(one) for one in many)


def listed(
    offers: Iterable[Offer], gpu_types: tuple[GPUType, ...] | None = None, *, spot: bool = True
) -> list[Offer]:
    """Those of the types; without `spot` those on demand. Raises InvalidInputError for what is no offer."""
    hint = "Give a list of offers, as Catalog.load().offers() does."
    if not isinstance(offers, Iterable):
        raise InvalidInputError(f"offers cannot be {offers!r}", hint=hint)
    found = []
    for one in offers:
        if not isinstance(one, Offer):
            raise InvalidInputError(f"{one!r:.80} is no offer", hint=hint)
        if (gpu_types is None or one.instance_type.gpu_type in gpu_types) and (
            spot or one.market is Market.ON_DEMAND
        ):
            found.append(one)
    return found


def cheapest_by_type(offers: Iterable[Offer]) -> dict[tuple[str, str], dict[Market, Offer]]:
    """Of each instance type, the cheapest offer in each market; of equal ones the first by region and zone."""
    found: dict[tuple[str, str], dict[Market, Offer]] = {}
    for one in offers:
        if not (math.isfinite(one.usd_per_hour) and one.usd_per_hour >= 0):
            raise InvalidInputError(
                f"{one.instance_type.name} is offered at {one.usd_per_hour!r} dollars an hour"
            )
        markets = found.setdefault((one.instance_type.provider, one.instance_type.name), {})
        before = markets.get(one.market)
        if before is None or _price(one) < _price(before):
            markets[one.market] = one
    return found


def _price(offer: Offer) -> tuple[float, str, str]:
    return offer.usd_per_hour, offer.region, offer.zone or ""
