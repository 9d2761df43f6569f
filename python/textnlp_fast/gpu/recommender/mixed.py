"""Fleets of several instance types, by integer programming (scipy's HiGHS; extra `gpu`)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from textnlp_fast.errors import InternalError, InvalidInputError, MissingPackageError
from textnlp_fast.gpu.recommender.market import cheapest_by_type, listed, types_of
from textnlp_fast.gpu.recommender.plans import (
    Plan,
    Purchase,
    Recommendation,
    Sized,
    SpecOf,
    no_plan,
    plan_of,
    sized_types,
)
from textnlp_fast.gpu.recommender.workload import Workload, check_is, check_positive, check_share
from textnlp_fast.gpu.types import GPUType, Market, Offer

__all__ = ["mixed_fleet"]


@dataclass(frozen=True)
class _Column:
    """A unit that can be bought any number of times: a machine, or the machines of one replica that spans several."""

    offer: Offer
    sized: Sized

    @property
    def machines(self) -> int:
        return self.sized.machines_a_replica

    @property
    def requests_per_s(self) -> float:
        return max(1, self.sized.replicas_a_machine) * self.sized.point.requests_per_s

    @property
    def usd_per_hour(self) -> float:
        return self.machines * self.offer.usd_per_hour


def mixed_fleet(
    workload: Workload,
    offers: Iterable[Offer],
    spec_of: SpecOf,
    *,
    gpu_types: Collection[GPUType] | None = None,
    spot_share: float = 0.0,
    max_share: float = 1.0,
    machine_limits: Mapping[str, int] | None = None,
    max_usd_per_hour: float | None = None,
) -> Recommendation:
    """The cheapest fleet of any instance types together.

    Minimises what all machines cost, so that together they serve the rate, at most `spot_share` of the capacity is
    spot, no instance type carries more than `max_share` of the rate, and of no instance type (by name) there are more
    machines than `machine_limits` says. One machine of a type is allowed whatever share it
    carries. Raises NoPlanError if there is none, MissingPackageError without scipy.
    """
    check_is("workload", workload, Workload)
    check_share("spot_share", spot_share)
    check_share("max_share", max_share)
    if max_share == 0:
        raise InvalidInputError("max_share of 0 leaves nobody to serve", hint="1.0 sets no limit.")
    limits = dict(machine_limits or {})
    for name, most in limits.items():
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise InvalidInputError(f"machine_limits: of {name} there cannot be {most!r}")
    if max_usd_per_hour is not None:
        check_positive("max_usd_per_hour", max_usd_per_hour, most=math.inf)
    there = listed(offers, types_of(gpu_types))
    known = {one.instance_type.name for one in there}
    if unknown := sorted(set(limits) - known):
        raise InvalidInputError(
            f"machine_limits: no {unknown[0]} is on offer there", hint=_nearest(unknown[0], known)
        )
    sized, why = sized_types(workload, (one.instance_type for one in there), spec_of)
    columns = _columns(sized, there, spot_share)
    counts = _solve(columns, workload.capacity_per_s, spot_share, max_share, limits) if columns else None
    rejected = tuple(sorted((gpu.value, text) for gpu, text in why.items()))
    if counts is None:
        limit = ("all types", "limits of machines and shares leave too little capacity")
        raise no_plan((*rejected, limit) if columns else rejected)
    plan = _fleet(workload, columns, counts)
    if max_usd_per_hour is not None and plan.usd_per_hour > max_usd_per_hour:
        text = f"the cheapest fleet costs ${plan.usd_per_hour:,.2f} an hour, over ${max_usd_per_hour:,.2f}"
        raise no_plan((*rejected, ("all types", text)))
    return Recommendation(plans=(plan,), rejected=rejected)


def _nearest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]}?" if near else "Names are the instance types' own, as p5.48xlarge."


def _columns(sized: list[Sized], offers: list[Offer], spot_share: float) -> list[_Column]:
    """Each instance type in each market, in the layout of most capacity: the price is the machine's in any layout."""
    best: dict[tuple[str, str], Sized] = {}
    for one in sized:
        key = one.instance_type.provider, one.instance_type.name
        before = best.get(key)
        if before is None or _capacity(one) > _capacity(before):
            best[key] = one
    cheapest = cheapest_by_type(offers)
    return [
        _Column(offer, one)
        for key, one in best.items()
        for market, offer in cheapest[key].items()
        if market is Market.ON_DEMAND or spot_share > 0
    ]


def _capacity(one: Sized) -> float:
    return max(1, one.replicas_a_machine) * one.point.requests_per_s


def _solve(
    columns: list[_Column], rate: float, spot_share: float, max_share: float, limits: Mapping[str, int]
) -> list[int] | None:
    optimize, numpy = _scipy()
    capacity = numpy.array([one.requests_per_s for one in columns])
    price = numpy.array([one.usd_per_hour for one in columns])
    spot = numpy.array([1.0 if one.offer.market is Market.SPOT else 0.0 for one in columns])
    # In units of the rate asked for, so that tolerances mean the same for one request and for a million.
    share = capacity / rate
    rows, lower, upper = [share], [1 - 1e-9], [math.inf]
    if 0 < spot_share < 1:
        rows, lower, upper = [*rows, share * (spot - spot_share)], [*lower, -math.inf], [*upper, 1e-9]
    names = sorted({one.offer.instance_type.name for one in columns})
    for name in names:
        its = numpy.array([1.0 if one.offer.instance_type.name == name else 0.0 for one in columns])
        if max_share < 1:
            # One machine more than the share: a share that no whole number of machines meets would forbid the type.
            largest = float((share * its).max())
            rows, lower, upper = (
                [*rows, share * its],
                [*lower, -math.inf],
                [*upper, max(max_share, largest) + 1e-9],
            )
        if name in limits:
            machines = numpy.array([float(one.machines) for one in columns])
            rows, lower, upper = [*rows, machines * its], [*lower, -math.inf], [*upper, float(limits[name])]
    scale = float(price.max()) or 1.0
    found = optimize.milp(
        c=price / scale,
        constraints=optimize.LinearConstraint(numpy.array(rows), lower, upper),
        integrality=numpy.ones(len(columns)),
        bounds=optimize.Bounds(0, numpy.ceil(1 / share) + 1),
        options={"mip_rel_gap": 0.0, "time_limit": 60.0},
    )
    if found.status == 2:
        return None
    if found.x is None:
        raise InternalError(f"the solver gave up: {found.message}")
    return [round(float(count)) for count in found.x]


def _fleet(workload: Workload, columns: list[_Column], counts: list[int]) -> Plan:
    purchases = [
        Purchase(
            offer=one.offer,
            machines=count * one.machines,
            replicas=count * max(1, one.sized.replicas_a_machine),
            point=one.sized.point,
        )
        for one, count in zip(columns, counts, strict=True)
        if count
    ]
    purchases.sort(key=lambda one: (-one.requests_per_s, one.offer.instance_type.name))
    return plan_of(workload, purchases)


def _scipy() -> tuple[Any, Any]:
    try:
        return import_module("scipy.optimize"), import_module("numpy")
    except ImportError:
        raise MissingPackageError(
            "fleets of several types need scipy", hint="pip install 'textnlp-fast[gpu]'"
        ) from None
