"""Which places are tried for a request, in which order, and which are not and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from textnlp_fast.errors import NoPlanError, PriceTooHighError
from textnlp_fast.gpu.catalog import Catalog
from textnlp_fast.gpu.resources.failures import Failure, Place
from textnlp_fast.gpu.resources.requests import MARKETS, AcquireRequest
from textnlp_fast.gpu.types import InstanceType, Market, Offer

__all__ = ["Candidate", "Plan", "check_types", "fitting", "nothing_here", "on_demand_prices", "planned"]

#: Whoever asks for the cheapest gets what is at most this much dearer, in place of nothing.
_NEARLY: Final = Decimal("1.25")
_MOST_ALTERNATIVES: Final = 9


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An instance type in a place, at a price."""

    place: Place
    instance_type: InstanceType
    usd_per_hour: Decimal
    on_demand_usd_per_hour: Decimal | None
    stale: bool
    failure: Failure | None = None
    """What failed there lately: such places are tried last."""
    alternatives: tuple[Candidate, ...] = ()
    """Other types with the same GPUs at nearly its price, which the cloud may take in its stead. Each is a candidate
    of its own, too, for when this one is not to be had."""

    @property
    def most_usd_per_hour(self) -> Decimal:
        """What one machine may cost, whichever type it is."""
        return max([self.usd_per_hour, *(one.usd_per_hour for one in self.alternatives)])

    @property
    def name(self) -> str:
        """For people."""
        where = self.place.zone or self.place.region
        return f"{self.place.market} {self.place.instance_type} in {self.place.provider} {where}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`candidates` in the order in which they are tried; `rejected` what fits and is not, and why."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[tuple[str, str], ...] = ()


def fitting(request: AcquireRequest, offers: Iterable[Offer]) -> list[Offer]:
    """The offers with GPUs of a type that will do, and enough of them, in markets that are asked for."""
    return [
        offer
        for offer in offers
        if offer.instance_type.gpu_type in request.gpu_types
        and offer.instance_type.gpu_count >= request.gpu_count
        and offer.market in MARKETS[request.market]
        and (request.providers is None or offer.instance_type.provider in request.providers)
        and (request.regions is None or offer.region in request.regions)
        and (request.instance_types is None or offer.instance_type.name in request.instance_types)
    ]


def check_types(
    request: AcquireRequest, offers: Iterable[Offer], catalog: Catalog, registered: Collection[str]
) -> None:
    """Raises UnknownInstanceTypeError for a name that is none, which else would be an offer that does not fit.

    What a provider offers itself, among `offers`, need not be in the catalogue.
    """
    asked = [
        one
        for one in catalog.providers
        if one in registered and (request.providers is None or one in request.providers)
    ]
    if request.instance_types is not None and asked:
        offered = {offer.instance_type.name for offer in offers}
        catalog.check_instance_types(set(request.instance_types) - offered, asked)


def planned(
    request: AcquireRequest,
    offers: Iterable[Offer],
    *,
    zones: Mapping[tuple[str, str, str], Iterable[str]],
    list_prices: Mapping[tuple[str, str, str], float],
    failures: Mapping[Place, Failure],
    cloud_chooses: Collection[tuple[str, str, Market]] = (),
) -> Plan:
    """Every zone of every offer: those that did not fail lately first, then by market as asked for, then by price.

    `zones` says for (provider, region, instance type) where it is offered; without an entry, or with an empty one, the
    cloud chooses. So it does for (provider, region, market) in `cloud_chooses`, where the request leaves the zone open:
    one place for all zones under the cap, at the price of the dearest, for it may be that one, and with the types that
    will do as well as alternatives. `list_prices` are on-demand's, by the same. Raises NoPlanError where nothing fits,
    PriceTooHighError where all that does is over the cap.
    """
    markets = MARKETS[request.market]
    found: dict[Place, Candidate] = {}
    opened: set[Place] = set()
    rejected: list[tuple[str, str]] = []
    over_cap = 0
    for offer in fitting(request, offers):
        kind = offer.instance_type
        group = (kind.provider, offer.region, kind.name)
        listed = list_prices.get(group)
        known = list(zones.get(group, ()))
        if offer.zone is not None and known and offer.zone not in known:
            continue  # a price of a zone that does not offer it (any more)
        anywhere: list[str | None] = [*known] or [None]
        is_open = (
            (kind.provider, offer.region, offer.market) in cloud_chooses
            and request.zones is None
            and not request.spread  # over places that we choose
        )
        for zone in anywhere if offer.zone is None else [offer.zone]:
            if request.zones is not None and zone not in request.zones:
                continue
            where = Place(kind.provider, offer.region, zone, kind.name, offer.market)
            place = replace(where, zone=None) if is_open else where
            if is_open:
                opened.add(place)
            candidate = Candidate(
                place=place,
                instance_type=kind,
                usd_per_hour=_exact(offer.usd_per_hour),
                on_demand_usd_per_hour=None if listed is None else _exact(listed),
                stale=offer.stale,
                failure=failures.get(place),
            )
            cap = request.max_usd_per_hour
            if cap is not None and offer.usd_per_hour > cap:
                over_cap += 1
                name = replace(candidate, place=where).name
                rejected.append((name, f"{offer.usd_per_hour:.4f} USD an hour is over the cap of {cap:.4f}"))
            elif place not in found or (candidate.usd_per_hour < found[place].usd_per_hour) is not is_open:
                found[place] = candidate
    in_order = tuple(
        sorted(
            found.values(),
            key=lambda one: (
                one.failure is not None,
                markets.index(one.place.market),
                one.usd_per_hour,
                one.instance_type.gpu_count,
                one.place.provider,
                one.place.region,
                one.place.instance_type,
                one.place.zone or "",
            ),
        )
    )
    if not in_order:
        raise _nothing(request, rejected, over_cap)
    candidates = tuple(_with_alternatives(in_order, opened))
    return Plan(candidates=candidates, rejected=tuple(sorted(rejected)))


def _with_alternatives(candidates: Sequence[Candidate], opened: Collection[Place]) -> Iterator[Candidate]:
    """Each, in order, with what may be had in its stead in the places that are open: later ones, so not cheaper.

    A cloud that chooses weighs how likely a machine lasts against its price: how dear it may get is bounded here.
    """
    for place, one in enumerate(candidates):
        if one.place not in opened:
            yield one
            continue
        kind = one.instance_type
        alike = (
            other
            for other in candidates[place + 1 :]
            if replace(other.place, instance_type=kind.name) == one.place
            and (other.instance_type.gpu_type, other.instance_type.gpu_count)
            == (kind.gpu_type, kind.gpu_count)
            and other.usd_per_hour <= one.usd_per_hour * _NEARLY
            and (other.failure is None) == (one.failure is None)
        )
        yield replace(one, alternatives=tuple(alike)[:_MOST_ALTERNATIVES])


def _nothing(
    request: AcquireRequest, rejected: list[tuple[str, str]], over_cap: int
) -> NoPlanError | PriceTooHighError:
    names = " or ".join(map(str, request.gpu_types))
    if over_cap:
        cheapest = min(rejected, key=lambda one: float(one[1].split()[0]))
        said = f"{cheapest[0]}: {cheapest[1]}"
        return PriceTooHighError(f"of {over_cap} places with {names} none is under the cap; {said}")
    error = NoPlanError(
        f"no offer has {request.gpu_count:g} of {names} in the regions that are registered",
        hint="Register another region, name other GPU types, or refresh the catalogue.",
    )
    error.rejected = tuple(sorted(rejected))
    return error


def nothing_here(request: AcquireRequest, offers: Iterable[Offer]) -> NoPlanError:
    """The same, where this machine is the only place: another region would be no answer."""
    names = " or ".join(map(str, request.gpu_types))
    has = sorted({one.instance_type.name for one in offers})
    if not has:
        return NoPlanError(
            "this machine has no GPU to rent out: its driver shows none",
            hint="`textnlp-fast gpu doctor` says what is missing; name a cloud to rent elsewhere.",
        )
    return NoPlanError(
        f"this machine has no {request.gpu_count:g} of {names}; it has {', '.join(has)}",
        hint="Ask for what it has, or name a cloud to rent elsewhere.",
    )


def _exact(usd: float) -> Decimal:
    return Decimal(str(usd))


def on_demand_prices(offers: Iterable[Offer]) -> dict[tuple[str, str, str], float]:
    """The list price of each (provider, region, instance type)."""
    prices: dict[tuple[str, str, str], float] = {}
    for offer in offers:
        if offer.market is Market.ON_DEMAND:
            group = (offer.instance_type.provider, offer.region, offer.instance_type.name)
            prices[group] = min(offer.usd_per_hour, prices.get(group, offer.usd_per_hour))
    return prices
