"""Our mix: the machines that cost least for the share of time that may be below target.

Each decision weighs candidates (`planning.py`) with what is known of the zones (`survival.py`): spot in old zones needs
little beside it, spot in new ones needs spare machines elsewhere, and where few zones are up machines on demand are
left. What a shortfall is worth is no setting (`allowance.py`): it follows from how much of the time allowed for it has
been used, so that `availability` is what is reached.

Machines are given back only when those that take their place serve. Machines under notice count as gone at once, so
their replacements are ordered before they go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.scaling.decision import Alert, Reason
from textnlp_fast.gpu.scaling.spot.allowance import Allowance
from textnlp_fast.gpu.scaling.spot.market import ON_DEMAND, Mix, SpotObservation, ZoneMarket
from textnlp_fast.gpu.scaling.spot.settings import SpotSettings
from textnlp_fast.gpu.scaling.spot.sight import Sight, see
from textnlp_fast.gpu.scaling.spot.survival import Survival
from textnlp_fast.gpu.scaling.spot.terms import MOST_ZONES, Choice, Terms, ZoneChance, rounded

__all__ = ["SpotMix"]

_REBALANCE_LOSS = 0.3
"""How likely a machine goes within the horizon after its provider has said that it is likelier than others to."""
_FULL_S = 900.0
"""How long a zone that refused a machine beside those it gave is taken to be full."""
_PATIENCE_S = 60.0
"""A gap that spot was refused for twice within so long is closed without looking for new zones."""
_KEPT_SPOT = 4
"""Spot machines that are held where there are any, even while those on demand carry the target: they grow old."""
_NEVER_S = -1e12


class SpotMix:
    """The policy. Its state is small: a few numbers a zone."""

    name = "ours"

    def __init__(self, settings: SpotSettings | None = None) -> None:
        self.settings = settings or SpotSettings()
        self._survival = Survival()
        self._allowance = Allowance(self.settings.availability)
        self._sight = Sight()
        self._full: dict[str, tuple[int, float]] = {}
        """Zones that refused a machine beside those they gave: how many they gave, and when."""
        self._refused_s = self._raised_s = _NEVER_S
        """When a launch was last refused, and when the target last rose."""
        self._expected = 0.0
        self._last = Mix(0.0, (), 0)

    @property
    def worth(self) -> float:
        """What an hour below target costs now, in hours of a machine on demand."""
        return self._allowance.worth if self.settings.worth is None else self.settings.worth

    def decide(self, observation: SpotObservation) -> Mix:
        sight, alerts = see(observation, self._sight)
        if sight is None:
            why = Reason(
                "hold", self._last.total, "what was seen makes no sense; {replicas:.0f} machines stay"
            )
            return self._last._replace(reasons=(why,), alerts=alerts)
        over_s = max(0.0, sight.time_s - self._sight.time_s) if self._sight.zones else 0.0
        if over_s:
            sight = sight._replace(period_s=min(over_s, 3600.0))
        if sight.target > self._sight.target:
            self._raised_s = sight.time_s
        self._learn(sight, over_s)
        self._sight = sight
        zones = self._chances(sight)
        choice = self._choice(sight, tuple(zones))
        self._expected = choice.shortfall
        self._last = self._settled(sight, choice, zones, alerts)
        return self._last

    # --- what is learned --------------------------------------------------------------------------------------

    def _learn(self, now: Sight, over_s: float) -> None:
        before = {one.zone: one.ready + one.starting for one in self._sight.zones}
        lost: list[str] = []
        kept: list[str] = []
        for one in now.zones:
            held = one.ready + one.starting
            if over_s and (before.get(one.zone) or one.preempted):
                self._survival.held(one.zone, now.time_s, over_s, lost=one.preempted > 0)
                (lost if one.preempted else kept).append(one.zone)
            if one.refused:
                self._refused_s = now.time_s
            if held and (one.refused or one.preempted):
                self._full[one.zone] = (held, now.time_s)
            if held:
                self._survival.up(one.zone, now.time_s)
            elif one.refused or one.preempted:
                self._survival.down(one.zone, now.time_s)
        if lost:
            regions = {one.zone: one.region for one in now.zones}
            self._survival.went_together(lost, kept, regions, self._horizon_s(now), now.time_s)
        if over_s and now.time_s - self._raised_s > self._horizon_s(now):
            # Replicas that are missing because more are wanted than before are nobody's loss.
            serving = sum(one.ready for one in now.zones) + now.on_demand_ready
            self._allowance.spend(over_s, short=serving < now.target, expected=self._expected)

    def _horizon_s(self, sight: Sight) -> float:
        """How long it takes until what is ordered at the next decision serves, at whose times it is looked at."""
        period_s = max(sight.period_s, 1.0)
        return max(1, math.ceil(self.settings.cold_start_s / period_s)) * period_s

    # --- what should be ---------------------------------------------------------------------------------------

    def _chances(self, sight: Sight) -> list[ZoneChance]:
        """Zones that can be used, the most useful first: those that are, and the best others."""
        if not self.settings.spot:
            return []
        # Twice refused, the gap is closed with what is known to be there.
        closing = sight.gap > 0 and sight.refusals > 1 and sight.time_s - self._refused_s <= _PATIENCE_S
        found = [
            one for one in (self._chance(zone, sight, closing) for zone in sight.zones) if one is not None
        ]
        worth = 10.0 * sight.on_demand_usd_per_hour
        used = sorted((one for one in found if one.held), key=lambda one: one.usd_per_hour + worth * one.loss)
        used = used[: MOST_ZONES - 2]
        others = sorted(
            (one for one in found if one not in used), key=lambda one: one.usd_per_hour + worth * one.loss
        )
        return used + others[: MOST_ZONES - len(used)]

    def _chance(self, one: ZoneMarket, sight: Sight, closing: bool) -> ZoneChance | None:
        settings, price = self.settings, one.usd_per_hour
        held = max(0, one.ready + one.starting - one.noticed)
        most = settings.max_machines
        if price is None:
            # What is there is kept, reckoned at what spot usually costs.
            price, most = sight.on_demand_usd_per_hour / 3, held
        cap = settings.max_spot_usd_per_hour
        if price >= sight.on_demand_usd_per_hour or (cap is not None and price > cap):
            return None
        if one.noticed:
            most = held
        if one.zone in self._full:
            count, at_s = self._full[one.zone]
            if sight.time_s - at_s < _FULL_S:
                most = min(most, max(held, count))
            else:
                del self._full[one.zone]
        if most == 0:
            return None
        if not held:
            facts = self._survival.zones.get(one.zone)
            if closing:
                return None
            down_s = None if facts is None or facts.up_since_s is not None else facts.down_seen_s
            if down_s is not None and sight.time_s - down_s < self._survival.retry_s(one.zone):
                return None
        loss = self._survival.loss(one.zone, sight.time_s, self._horizon_s(sight))
        if one.rebalance:
            loss = max(loss, _REBALANCE_LOSS)
        return ZoneChance(one.zone, one.region, price, rounded(loss), held, most)

    def _choice(self, sight: Sight, zones: tuple[ZoneChance, ...]) -> Choice:
        from textnlp_fast.gpu.scaling.spot.planning import choose  # noqa: PLC0415 - brings numpy

        settings = self.settings
        target = min(sight.target, settings.max_machines)
        return choose(
            zones,
            Terms(
                target=target,
                most=settings.max_machines,
                on_demand_usd_per_hour=sight.on_demand_usd_per_hour,
                on_demand_held=sight.on_demand_ready + sight.on_demand_starting,
                least_on_demand=min(settings.min_on_demand, target),
                shortfall_usd_per_hour=rounded(self.worth) * sight.on_demand_usd_per_hour,
                change_share=max(settings.cold_start_s, 60.0) / 3600.0,
                same_region=rounded(self._survival.together(same_region=True)),
                other_region=rounded(self._survival.together(same_region=False)),
                least_spot=min(target, _KEPT_SPOT),
                budget_usd_per_hour=settings.budget_usd_per_hour,
            ),
        )

    # --- what is asked for now --------------------------------------------------------------------------------

    def _settled(
        self, sight: Sight, choice: Choice, zones: list[ZoneChance], alerts: tuple[Alert, ...]
    ) -> Mix:
        """Nothing that serves goes before its replacement serves, and no bound is passed."""
        chosen = {one.zone: count for one, count in zip(zones, choice.spot, strict=True)}
        chosen[ON_DEMAND] = choice.on_demand
        ready = {one.zone: max(0, one.ready - one.noticed) for one in sight.zones}
        ready[ON_DEMAND] = sight.on_demand_ready
        # The dearest first, then those that are likeliest to go.
        order = [
            ON_DEMAND,
            *sorted(
                ready.keys() - {ON_DEMAND}, key=lambda name: (self._survival.age_s(name, sight.time_s), name)
            ),
        ]
        surplus = max(0, sum(ready.values()) - sum(chosen.values()))
        wanted, drain = dict(chosen), []
        for name in order:
            over = ready[name] - chosen.get(name, 0)
            if over > 0:
                gone = min(over, surplus)
                surplus -= gone
                wanted[name] = ready[name] - gone
                drain.append(name)
        bounded = self._bounded(sight, wanted, chosen, order)
        if sight.target > self.settings.max_machines:
            alerts = (
                *alerts,
                Alert(
                    "at_max_instances",
                    f"{sight.target} replicas are wanted, {self.settings.max_machines} may be.",
                ),
            )
        if not choice.within_budget or (bounded and self.settings.budget_usd_per_hour is not None):
            alerts = (
                *alerts,
                Alert("budget_reached", "Fewer machines are asked for than would be without the budget."),
            )
        spot = tuple((one.zone, wanted[one.zone]) for one in sight.zones if wanted.get(one.zone))
        count = sum(each for _, each in spot)
        why = Reason(
            "off" if not self.settings.spot else "mix",
            count + wanted[ON_DEMAND],
            "{spot:.0f} on spot and {on_demand:.0f} on demand for {target:.0f}; short with chance {short:.5f}",
            (
                ("spot", count),
                ("on_demand", wanted[ON_DEMAND]),
                ("target", sight.target),
                ("short", choice.shortfall),
                ("worth", self.worth),
            ),
        )
        return Mix(sight.time_s, spot, wanted[ON_DEMAND], tuple(drain), (why,), alerts)

    def _bounded(
        self, sight: Sight, wanted: dict[str, int], chosen: Mapping[str, int], order: list[str]
    ) -> bool:
        """Takes from `wanted` until `max_machines` and the budget are kept: launches first. Whether it took any."""
        third = sight.on_demand_usd_per_hour / 3
        price = {one.zone: third if one.usd_per_hour is None else one.usd_per_hour for one in sight.zones}
        price[ON_DEMAND] = sight.on_demand_usd_per_hour
        held = {one.zone: max(0, one.ready + one.starting - one.noticed) for one in sight.zones}
        held[ON_DEMAND] = sight.on_demand_ready + sight.on_demand_starting
        going = sum(one.noticed for one in sight.zones)
        going_usd = sum(one.noticed * price[one.zone] for one in sight.zones)
        budget = math.inf if self.settings.budget_usd_per_hour is None else self.settings.budget_usd_per_hour
        took = False
        while True:
            total = sum(wanted.values()) + going
            usd = sum(count * price[name] for name, count in wanted.items()) + going_usd
            if total <= self.settings.max_machines and usd <= budget * (1 + 1e-9):
                return took
            launches = [name for name in order if wanted.get(name, 0) > held[name]]
            surplus = [name for name in order if wanted.get(name, 0) > chosen.get(name, 0)]
            rest = [name for name in order if wanted.get(name, 0) > 0]
            if not rest:
                return took
            if usd > budget * (1 + 1e-9):
                launches, rest = (sorted(names, key=lambda name: -price[name]) for names in (launches, rest))
            wanted[(launches or surplus or rest)[0]] -= 1
            took = True

    # --- kept -------------------------------------------------------------------------------------------------

    def snapshot(self) -> Mapping[str, Any]:
        return {
            "format": 1,
            "survival": self._survival.snapshot(),
            "overdrawn_s": self._allowance.overdrawn_s,
            "sight": [*self._sight[:2], [list(one) for one in self._sight.zones], *self._sight[3:]],
            "full": {name: list(each) for name, each in self._full.items()},
            "times": [self._refused_s, self._raised_s],
            "expected": self._expected,
            "last": [
                self._last.time_s,
                [list(one) for one in self._last.spot],
                self._last.on_demand,
                list(self._last.drain),
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        try:
            if state["format"] != 1:
                raise ValueError(f"its format is {state['format']!r}")
            survival = Survival.of(state["survival"])
            time_s, target, zones, *rest = state["sight"]
            sight = Sight(float(time_s), int(target), tuple(ZoneMarket(*one) for one in zones), *rest)
            full = {str(name): (int(count), float(at_s)) for name, (count, at_s) in state["full"].items()}
            refused_s, raised_s = (float(one) for one in state["times"])
            overdrawn_s, expected = float(state["overdrawn_s"]), float(state["expected"])
            last_s, spot, on_demand, drain = state["last"]
            last = Mix(
                float(last_s),
                tuple((str(n), int(c)) for n, c in spot),
                int(on_demand),
                tuple(map(str, drain)),
            )
            checked, _ = see(SpotObservation(sight.time_s, sight.target, sight.zones, *sight[3:6]), Sight())
            if checked is None or not math.isfinite(overdrawn_s + expected):
                raise ValueError("a number is none")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CorruptDataError(
                f"this is no state of a mix: {error!r}", hint="Begin without it: a mix learns its zones anew."
            ) from None
        self._survival, self._sight, self._full, self._last = survival, sight, full, last
        self._refused_s, self._raised_s, self._expected = refused_s, raised_s, expected
        self._allowance.overdrawn_s = overdrawn_s
