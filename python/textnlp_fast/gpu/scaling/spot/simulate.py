"""Mix policies tried on traces of zones: cold starts, preemptions, refused launches, bills. Deterministic.

A tick is a reading. In its order: machines beyond what their zone now has are taken (those that serve first, the
worst case); replicas that serve are counted; the policy is asked, surplus machines are drained, and launches are tried;
where any was refused the policy is asked again, `rounds` times at most, since a refusal comes back in seconds. What was
taken is billed to the reading that found it gone. Refused launches cost nothing, drained machines serve no more and
cost `drain_s` longer. Machines on demand are always to be had, unless `on_demand_limit` says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.spot.market import Mix, SpotObservation, SpotPolicy, ZoneMarket
from textnlp_fast.gpu.scaling.spot.traces import UNLIMITED, Traces

__all__ = ["Costs", "Outcome", "Tick", "simulate"]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """USD an hour of one machine. `spot` is one price for all zones, or one for each region."""

    on_demand: float = 3.06
    spot: float | dict[str, float] = 0.918

    def of(self, region: str) -> float:
        return self.spot if isinstance(self.spot, int | float) else self.spot[region]


class Tick(NamedTuple):
    """What served at one tick, for plots and tests."""

    target: int
    spot_ready: int
    spot_starting: int
    on_demand_ready: int
    on_demand_starting: int
    preempted: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    policy: str
    ticks: int
    at_target: int
    """Ticks at which as many replicas served as were wanted, right after what was taken had been."""
    missing: int
    """Replicas that were wanted and did not serve, summed over ticks."""
    usd: float
    on_demand_usd: float
    """Of `usd`, what machines on demand cost."""
    all_on_demand_usd: float
    """What the target would have cost on demand, with cold starts left out."""
    launches: int
    refused: int
    preempted: int
    drained: int
    """Machines that were ended by the policy."""
    most: int
    """The most machines at a time."""
    history: tuple[Tick, ...] = field(repr=False, default=())

    @property
    def availability(self) -> float:
        return self.at_target / self.ticks

    @property
    def cost(self) -> float:
        """As a share of the cost on demand."""
        return self.usd / self.all_on_demand_usd if self.all_on_demand_usd else 0.0


def simulate(
    policy: SpotPolicy,
    traces: Traces,
    *,
    target: int | Sequence[int],
    cold_start_s: float = 180.0,
    costs: Costs | None = None,
    rounds: int = 4,
    drain_s: float = 60.0,
    notice_s: float | None = None,
    on_demand_limit: int | None = None,
    keep_history: bool = False,
) -> Outcome:
    """Runs a policy over all ticks. `target` is a number, or one for each tick.

    `notice_s`: the provider says so long before (at most a tick) that it will take a machine, and the policy is asked
    at that moment, too; None: it says nothing. The first hour of ticks counts like any other: a fleet begins at zero.
    """
    targets = [target] * traces.ticks if isinstance(target, int) else list(target)
    if len(targets) != traces.ticks:
        raise InvalidInputError(f"{len(targets)} targets are given for {traces.ticks} ticks")
    if notice_s is not None and not 0 < notice_s <= traces.gap_s:
        raise InvalidInputError(f"notice_s={notice_s} is not within a tick, {traces.gap_s} s")
    fleet = _Fleet(
        traces, costs or Costs(), cold_start_s=cold_start_s, drain_s=drain_s, on_demand_limit=on_demand_limit
    )
    at_target = missing = 0
    asked_for = 0.0
    history: list[Tick] = []
    for tick, wanted in enumerate(targets):
        time_s = tick * traces.gap_s
        if notice_s is not None and tick and fleet.take_notice(tick):
            fleet.ask(policy, time_s - notice_s, wanted, tick - 1, tick, rounds)
        taken = fleet.arrive(tick, time_s)
        serving = fleet.serving(time_s)
        at_target += serving >= wanted
        missing += max(0, wanted - serving)
        asked_for += wanted
        fleet.ask(policy, time_s, wanted, tick, tick, rounds)
        if keep_history:
            history.append(fleet.picture(time_s, wanted, taken))
    fleet.bill_until(traces.ticks * traces.gap_s)
    return Outcome(
        policy=policy.name,
        ticks=traces.ticks,
        at_target=at_target,
        missing=missing,
        usd=fleet.spot_usd + fleet.on_demand_usd,
        on_demand_usd=fleet.on_demand_usd,
        all_on_demand_usd=asked_for * traces.gap_s / 3600 * fleet.costs.on_demand,
        launches=fleet.launches,
        refused=fleet.refusals,
        preempted=fleet.taken,
        drained=fleet.drained,
        most=fleet.most,
        history=tuple(history),
    )


class _Fleet:
    """All machines: for each place the times at which they serve, earliest first."""

    def __init__(
        self,
        traces: Traces,
        costs: Costs,
        *,
        cold_start_s: float,
        drain_s: float,
        on_demand_limit: int | None,
    ) -> None:
        self.costs = costs
        self.cold_start_s, self.drain_s = cold_start_s, drain_s
        self.names = [one.zone for one in traces.zones]
        self.regions = [one.region for one in traces.zones]
        self.capacity = [one.capacity for one in traces.zones]
        self.prices = [costs.of(one.region) for one in traces.zones]
        self.place = {name: at for at, name in enumerate(self.names)}
        count = len(self.names)
        self.spot: list[list[float]] = [[] for _ in range(count)]
        self.on_demand: list[float] = []
        self.on_demand_limit = UNLIMITED if on_demand_limit is None else on_demand_limit
        self.events = [[0, 0, 0, 0] for _ in range(count)]  # launched, refused, preempted, noticed
        self.on_demand_refused = 0
        self.billed_until_s = 0.0
        self.spot_usd = self.on_demand_usd = 0.0
        self.launches = self.refusals = self.taken = self.drained = self.most = 0

    def bill_until(self, time_s: float) -> None:
        hours = (time_s - self.billed_until_s) / 3600
        if hours > 0:
            self.spot_usd += hours * sum(
                len(held) * price for held, price in zip(self.spot, self.prices, strict=True)
            )
            self.on_demand_usd += hours * len(self.on_demand) * self.costs.on_demand
            self.billed_until_s = time_s

    def take_notice(self, tick: int) -> bool:
        """Marks what the next reading will find gone."""
        found = False
        for at, held in enumerate(self.spot):
            if held and len(held) > self.capacity[at][tick]:
                self.events[at][3] = len(held) - self.capacity[at][tick]
                found = True
        return found

    def arrive(self, tick: int, time_s: float) -> int:
        """The reading: what is beyond it is taken."""
        self.bill_until(time_s)
        taken = 0
        for at, held in enumerate(self.spot):
            self.events[at][3] = 0
            if held:
                lost = len(held) - self.capacity[at][tick]
                if lost > 0:
                    del held[:lost]
                    self.events[at][2] += lost
                    taken += lost
        self.taken += taken
        return taken

    def serving(self, time_s: float) -> int:
        return sum(_ready(held, time_s) for held in self.spot if held) + _ready(self.on_demand, time_s)

    def ask(
        self, policy: SpotPolicy, time_s: float, target: int, before: int, after: int, rounds: int
    ) -> None:
        """The policy's turn. A launch comes off where the readings `before` and `after` both have room."""
        self.bill_until(time_s)
        for _ in range(max(1, rounds)):
            mix = policy.decide(self.observation(time_s, target))
            refused = self.carry_out(mix, time_s, before, after)
            self.most = max(self.most, sum(map(len, self.spot)) + len(self.on_demand))
            if not refused:
                break

    def observation(self, time_s: float, target: int) -> SpotObservation:
        zones = []
        for name, region, price, held, events in zip(
            self.names, self.regions, self.prices, self.spot, self.events, strict=True
        ):
            ready = _ready(held, time_s) if held else 0
            zones.append(
                ZoneMarket(
                    name, region, price, ready, len(held) - ready, events[0], events[1], events[2], events[3]
                )
            )
            events[0] = events[1] = events[2] = 0
        ready = _ready(self.on_demand, time_s)
        refused, self.on_demand_refused = self.on_demand_refused, 0
        return SpotObservation(
            time_s, target, tuple(zones), ready, len(self.on_demand) - ready, self.costs.on_demand, refused
        )

    def carry_out(self, mix: Mix, time_s: float, before: int, after: int) -> int:
        """Surplus goes, what is missing is launched. How many launches were refused."""
        wanted = dict(mix.spot)
        refused = 0
        for at, (name, held, events) in enumerate(zip(self.names, self.spot, self.events, strict=True)):
            missing = wanted.get(name, 0) - (len(held) - events[3])
            if missing < 0:
                # Those that are starting go first. What is under notice ends by itself.
                del held[missing:]
                self.spot_usd += -missing * self.prices[at] * self.drain_s / 3600
                self.drained -= missing
            elif missing > 0:
                room = min(self.capacity[at][before], self.capacity[at][after]) - len(held)
                come = max(0, min(missing, room))
                held.extend([time_s + self.cold_start_s] * come)
                events[0] += come
                events[1] += missing - come
                self.launches += come
                refused += missing - come
        self.refusals += refused
        missing = mix.on_demand - len(self.on_demand)
        if missing < 0:
            del self.on_demand[missing:]
            self.on_demand_usd += -missing * self.costs.on_demand * self.drain_s / 3600
            self.drained -= missing
        elif missing > 0:
            come = max(0, min(missing, self.on_demand_limit - len(self.on_demand)))
            self.on_demand += [time_s + self.cold_start_s] * come
            self.launches += come
            self.on_demand_refused += missing - come
        return refused

    def picture(self, time_s: float, target: int, taken: int) -> Tick:
        ready = sum(_ready(held, time_s) for held in self.spot)
        served = _ready(self.on_demand, time_s)
        spot = sum(map(len, self.spot))
        return Tick(target, ready, spot - ready, served, len(self.on_demand) - served, taken)


def _ready(held: Sequence[float], time_s: float) -> int:
    if not held or held[0] > time_s:
        return 0
    if held[-1] <= time_s:
        return len(held)
    return sum(at <= time_s for at in held)
