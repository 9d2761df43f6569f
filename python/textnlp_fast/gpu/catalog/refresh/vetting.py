"""Which prices are believed. Pure: former prices and a reading in, believed and refused ones out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from textnlp_fast.gpu.catalog.document import (
    LEAST_USD_PER_HOUR,
    MOST_USD_PER_HOUR,
    Key,
    Listed,
)
from textnlp_fast.gpu.catalog.refresh.readings import Place, Price
from textnlp_fast.gpu.types import Market, Offer

__all__ = ["Refused", "vetted"]

#: A whole GPU's hour, whatever the GPU: the cheapest on record is a P4 or T4G on spot at some 0.07, the dearest a
#: GB200 at some 34. Lists hold 0.0001 or 9999 where a price is not settled.
LEAST_USD_PER_GPU: Final = 0.02
MOST_USD_PER_GPU: Final = 150.0
#: A price that changes by this much overnight is a slip more often than a sale.
JUMP: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A price that is not believed, and why."""

    price: Price
    why: str

    def __str__(self) -> str:
        return f"{self.price.place} at {self.price.usd_per_hour:g} USD/h: {self.why}"


def vetted(
    prices: Iterable[Price],
    kinds: Mapping[Key, Listed],
    former: Iterable[Offer],
    *,
    accept_jumps: bool = False,
) -> tuple[list[Price], list[Refused]]:
    """Parts prices into believed and refused ones.

    Refused are: prices of instance types that `kinds` lacks, two prices of one thing, placeholders, spot above the
    price on demand in the same region, and jumps by `JUMP` or more against `former`. The price on demand that spot is
    held against is that of this reading, where it is believed, else the former one.
    """
    refused: list[Refused] = []
    once: dict[Place, Price] = {}
    twice: set[Place] = set()
    for price in prices:
        other = once.setdefault(price.place, price)
        if other.usd_per_hour != price.usd_per_hour:
            twice.add(price.place)
            refused.append(Refused(price=price, why=f"it is {other.usd_per_hour:g}, too"))
    for place in twice:
        refused.append(Refused(price=once.pop(place), why="there is another price of it"))

    past = _Past(former)
    believed: list[Price] = []
    on_demand: dict[tuple[str, str, str], float] = {}
    # On demand first: spot is held against it.
    for price in sorted(once.values(), key=lambda one: one.place.market is Market.SPOT):
        why = _implausible(price, kinds) or _above(price, on_demand, past)
        if why is None and not accept_jumps:
            why = past.jump(price)
        if why is not None:
            refused.append(Refused(price=price, why=why))
            continue
        believed.append(price)
        if price.place.market is Market.ON_DEMAND:
            on_demand[price.place[:3]] = price.usd_per_hour
    return believed, refused


def _implausible(price: Price, kinds: Mapping[Key, Listed]) -> str | None:
    listed = kinds.get(price.place[:2])
    if listed is None:
        return "nothing is known of this instance type"
    usd = price.usd_per_hour
    gpus = listed.instance_type.gpu_count
    if not max(LEAST_USD_PER_HOUR, LEAST_USD_PER_GPU * gpus) <= usd <= MOST_USD_PER_HOUR:
        return "a placeholder"
    # A part of a GPU comes with processors and memory of its own: only whole ones are held to the upper bound.
    if usd > MOST_USD_PER_GPU * max(1.0, gpus):
        return "a placeholder"
    return None


def _above(price: Price, on_demand: Mapping[tuple[str, str, str], float], past: _Past) -> str | None:
    if price.place.market is not Market.SPOT:
        return None
    listed = on_demand.get(price.place[:3]) or past.on_demand(price.place)
    if listed is not None and price.usd_per_hour > listed:
        return f"above the price on demand, {listed:g}"
    return None


class _Past:
    """Former prices, by what they were of."""

    def __init__(self, offers: Iterable[Offer]) -> None:
        self._prices: dict[tuple[str, str, str, Market], dict[str | None, float]] = {}
        for offer in offers:
            kind = offer.instance_type
            group = (kind.provider, kind.name, offer.region, offer.market)
            self._prices.setdefault(group, {})[offer.zone] = offer.usd_per_hour

    def on_demand(self, place: Place) -> float | None:
        zones = self._prices.get((place.provider, place.instance_type, place.region, Market.ON_DEMAND))
        return min(zones.values()) if zones else None

    def jump(self, price: Price) -> str | None:
        """What is wrong with a price that is far from all former ones; of a zone, from the zone's if that is known."""
        place = price.place
        zones = self._prices.get((place.provider, place.instance_type, place.region, place.market))
        if not zones:
            return None
        known = [zones[place.zone]] if place.zone in zones else list(zones.values())
        near = min(known, key=lambda usd: max(usd / price.usd_per_hour, price.usd_per_hour / usd))
        if max(near / price.usd_per_hour, price.usd_per_hour / near) >= JUMP:
            return f"a jump from {near:g}"
        return None
