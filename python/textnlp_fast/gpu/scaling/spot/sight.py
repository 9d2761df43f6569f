"""What an observation says once everything in it that cannot be has been put right."""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

from textnlp_fast.gpu.scaling.decision import Alert
from textnlp_fast.gpu.scaling.numbers import is_number
from textnlp_fast.gpu.scaling.spot.market import SpotObservation, ZoneMarket

__all__ = ["Sight", "see"]

_SPOT_SHARE = 1 / 3
"""Of the price on demand: what is reckoned with where a price is not known."""
_MOST_USD_PER_HOUR = 1e6
"""Of one machine. What is said to cost more is no price, and sums and products of prices stay finite."""


class Sight(NamedTuple):
    """An observation without doubts."""

    time_s: float = 0.0
    target: int = 0
    zones: tuple[ZoneMarket, ...] = ()
    on_demand_ready: int = 0
    on_demand_starting: int = 0
    on_demand_usd_per_hour: float = 1.0
    period_s: float = 60.0
    refusals: int = 0
    """Decisions in a row, at one time or nearly, that saw a launch of spot refused."""

    @property
    def gap(self) -> int:
        """Replicas that are wanted and neither serve nor start."""
        spot = sum(one.ready + one.starting - one.noticed for one in self.zones)
        return self.target - spot - self.on_demand_ready - self.on_demand_starting


def see(observation: SpotObservation, before: Sight) -> tuple[Sight | None, tuple[Alert, ...]]:
    """The observation, with what was seen before where it is silent, and an alert for each thing that was put right."""
    alerts: list[Alert] = []
    time_s = observation.time_s
    if not is_number(time_s):
        return None, (
            Alert("time_invalid", f"The observation's time is {time_s!r}; what was decided last stays."),
        )
    if before.zones and time_s < before.time_s:
        alerts.append(Alert("time_back", f"The time went back by {before.time_s - time_s:.0f} s."))
        time_s = before.time_s
    target = observation.target
    if type(target) is not int or target < 0:
        if target is not None:
            alerts.append(
                Alert("target_invalid", f"A target of {target!r} is not believed; {before.target} stays.")
            )
        target = before.target
    known = {one.zone: one for one in before.zones}
    zones: dict[str, ZoneMarket] = {}
    for one in observation.zones:
        if not isinstance(one.zone, str) or not isinstance(one.region, str) or one.zone in zones:
            alerts.append(Alert("zone_invalid", f"The zone {one.zone!r} has no name, or is named twice."))
            continue
        zones[one.zone] = _zone(one, known.get(one.zone), alerts)
    for name, one in known.items():
        if name not in zones and one.ready + one.starting:
            alerts.append(
                Alert("zone_missing", f"Nothing is said of {name}, where machines are; they are left alone.")
            )
            zones[name] = one._replace(launched=0, refused=0, preempted=0)
    if not zones and known:
        return None, (
            *alerts,
            Alert("zones_missing", "No zone is seen any more; what was decided last stays."),
        )
    price = observation.on_demand_usd_per_hour
    if price is None or not _is_price(price) or price <= 0:
        price = before.on_demand_usd_per_hour
        if not before.zones:
            most = max((one.usd_per_hour or 0.0 for one in zones.values()), default=0.0)
            price = most / _SPOT_SHARE or 1.0
            alerts.append(
                Alert("price_unknown", f"The price on demand is not known; {price:.2f} USD is reckoned with.")
            )
    ready, starting = (
        _count(value, "on_demand", last, alerts)
        for value, last in (
            (observation.on_demand_ready, before.on_demand_ready),
            (observation.on_demand_starting, before.on_demand_starting),
        )
    )
    refused = any(one.refused for one in zones.values())
    near = time_s - before.time_s < 60.0
    refusals = (before.refusals if near else 0) + refused if refused or near else 0
    return (
        Sight(
            time_s, target, tuple(zones.values()), ready, starting, float(price), before.period_s, refusals
        ),
        tuple(alerts),
    )


def _zone(one: ZoneMarket, last: ZoneMarket | None, alerts: list[Alert]) -> ZoneMarket:
    if one == last:
        return last
    price = one.usd_per_hour
    if price is None or not _is_price(price):
        if price is not None:
            alerts.append(Alert("price_invalid", f"A price of {price!r} in {one.zone} is not believed."))
        price = None if last is None else last.usd_per_hour
    if price is None and (one.ready or one.starting):
        alerts.append(
            Alert(
                "price_unknown", f"The price of spot in {one.zone} is not known; nothing is launched there."
            )
        )
    ready, starting = (
        _count(getattr(one, name), one.zone, 0 if last is None else getattr(last, name), alerts)
        for name in ("ready", "starting")
    )
    launched, refused, preempted = (
        min(_count(getattr(one, name), one.zone, 0, alerts), 1_000_000)
        for name in ("launched", "refused", "preempted")
    )
    noticed, rebalance = (
        min(_count(getattr(one, name), one.zone, 0, alerts), ready + starting)
        for name in ("noticed", "rebalance")
    )
    return ZoneMarket(
        one.zone, one.region, price, ready, starting, launched, refused, preempted, noticed, rebalance
    )


def _is_price(value: object) -> TypeGuard[int | float]:
    return is_number(value) and 0 <= value <= _MOST_USD_PER_HOUR


def _count(value: object, where: str, last: int, alerts: list[Alert]) -> int:
    if type(value) is int and value >= 0:
        return value
    alerts.append(Alert("count_invalid", f"A count of {value!r} in {where} is not believed."))
    return last
