"""The cheapest machine with so many GPUs of a type: the question that needs no model of serving."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.recommender.market import listed
from textnlp_fast.gpu.recommender.plans import no_plan
from textnlp_fast.gpu.recommender.workload import check_positive
from textnlp_fast.gpu.types import GPUType, Market, Offer

__all__ = ["Accelerators", "cheapest"]


@dataclass(frozen=True)
class Accelerators:
    """So many GPUs of a type in one machine. Below 1: a part of a GPU."""

    gpu_type: GPUType
    count: float = 1

    def __post_init__(self) -> None:
        check_positive("count", self.count, most=1024)


def cheapest(
    offers: Iterable[Offer],
    any_of: Collection[Accelerators],
    *,
    spot: bool = False,
    regions: Collection[str] | None = None,
    providers: Collection[str] | None = None,
    max_usd_per_hour: float | None = None,
) -> Offer:
    """The cheapest offer of a machine that has any of these, or more of it.

    `spot` asks for spot machines only. Among equal prices the one with more GPUs, then the first by name. Raises
    NoPlanError, whose `rejected` says of each accelerator why it is not to be had.
    """
    if not any_of:
        raise InvalidInputError("name at least one GPU type")
    market = Market.SPOT if spot else Market.ON_DEMAND
    best: Offer | None = None
    why = dict.fromkeys(any_of, "no machine has that many")
    for offer in listed(offers):
        its = offer.instance_type
        fits = [one for one in any_of if its.gpu_type is one.gpu_type and its.gpu_count >= one.count]
        if not fits:
            continue
        if offer.market is not market:
            reason = f"not offered {'on spot' if spot else 'on demand'} there"
        elif (regions is not None and offer.region not in regions) or (
            providers is not None and its.provider not in providers
        ):
            reason = "not offered in these places"
        elif max_usd_per_hour is not None and offer.usd_per_hour > max_usd_per_hour:
            reason = f"dearer than ${max_usd_per_hour:,.2f} an hour"
        else:
            if best is None or _order(offer) < _order(best):
                best = offer
            continue
        why.update(dict.fromkeys(fits, reason))
    if best is None:
        raise no_plan(tuple((f"{one.gpu_type}:{one.count:g}", text) for one, text in why.items()))
    return best


def _order(offer: Offer) -> tuple[float, float, str, str, str]:
    its = offer.instance_type
    return offer.usd_per_hour, -its.gpu_count, its.name, offer.region, offer.zone or ""
