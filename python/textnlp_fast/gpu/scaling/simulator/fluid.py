"""A policy over traffic: replicas that take their time to start, one queue before them, and what it all costs.

A fluid model with seconds as its grain: work arrives, `ready` replicas take one replica-second of it each second, the
rest waits in one first-come queue; a request waits as long as the replicas that are ready when it comes need for what
is before it. A replica is paid from its order to its end. Replicas that go finish what they stream: they cost
`service_s` more, and serve nothing new. Decisions come at the end of a step and hold from the next on. Whoever has
waited for `patience_s` leaves, and counts as missed: gateways give up after a minute.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, repeat
from typing import TYPE_CHECKING, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import Policy

if TYPE_CHECKING:
    from textnlp_fast.gpu.scaling.simulator.traffic import Traffic

__all__ = ["MAX_COLD_START_S", "Market", "Run", "simulate"]

MAX_COLD_START_S: Final = 86400.0


@dataclass(frozen=True, kw_only=True)
class Market:
    """What replicas cost, and when spot ones are taken away. The zones of a spot market are simulated elsewhere."""

    usd_per_hour: float = 0.0
    spot_usd_per_hour: float = 0.0
    spot_share: float = 0.0
    """Of all replicas that are paid for; a part of a replica counts as on demand."""
    losses: tuple[tuple[float, int], ...] = ()
    """Seconds since the traffic's first, and how many ready spot replicas go then, at the next step's begin."""

    @property
    def priced(self) -> bool:
        return self.usd_per_hour > 0.0 or self.spot_usd_per_hour > 0.0

    def __post_init__(self) -> None:
        prices = (self.usd_per_hour, self.spot_usd_per_hour)
        if not all(math.isfinite(one) and one >= 0 for one in prices) or not 0 <= self.spot_share <= 1:
            raise InvalidInputError("a market's prices must not be negative, and its spot share is 0 to 1")
        if not all(math.isfinite(at) and count >= 0 for at, count in self.losses):
            raise InvalidInputError("a market's losses must be times in seconds, and counts of replicas")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of it; the lists hold one figure a step."""

    policy: str
    traffic: str
    step_s: int
    cold_start_s: float
    requests: int
    missed: float
    """Requests that waited longer than the SLO allows."""
    replica_hours: float
    """Paid for: starting, ready and draining."""
    changes: int
    """Steps at which the number of replicas wanted was another than before."""
    lost: int
    """Spot replicas that were taken away while they served."""
    usd: float
    served_work_s: float
    """Replica-seconds of work: what came, and what losses undid, is served, or has given up, or is queued yet."""
    given_up_work_s: float
    queued_work_s: float
    redone_work_s: float
    ready: list[int]
    paid: list[int]
    demand: list[float]
    """Work that arrived, in replicas."""
    misses: list[float]

    @property
    def attainment(self) -> float:
        """Share of requests within the SLO."""
        return 1.0 - self.missed / self.requests if self.requests else 1.0


def simulate(
    policy: Policy,
    traffic: Traffic,
    *,
    cold_start_s: float,
    queue_wait_s: float = 1.0,
    patience_s: float = 60.0,
    initial: int | None = None,
    market: Market | None = None,
) -> Run:
    """Runs `policy` over `traffic`, beginning with `initial` ready replicas (None: what the first minute needs).

    Raises InvalidInputError for times that are no times.
    """
    times = (cold_start_s, queue_wait_s, patience_s)
    if not all(one >= 0 for one in times) or math.isinf(cold_start_s) or patience_s < queue_wait_s:
        raise InvalidInputError(
            "cold start, wait and patience must not be negative, nor patience below the wait"
        )
    if cold_start_s > MAX_COLD_START_S:
        raise InvalidInputError(
            f"a cold start of {cold_start_s:g} s is longer than a day", hint="Cold starts are in seconds."
        )
    market = market or Market()
    step_s, steps, mean_work_s = traffic.step_s, traffic.steps, traffic.mean_work_s
    fleet = _Fleet(_first(traffic) if initial is None else initial, cold_start_s, traffic.service_s)
    queue = _Queue(traffic, queue_wait_s, patience_s)
    out_ready, out_paid, out_demand, out_misses = [0] * steps, [0] * steps, [0.0] * steps, [0.0] * steps
    losses = deque(sorted(market.losses))
    running = redone = usd = 0.0
    lost = 0
    settle = (1.0 - math.exp(-step_s / traffic.service_s)) * traffic.service_s / mean_work_s / step_s
    fade = math.exp(-step_s / traffic.service_s)
    for step in range(steps):
        now = step * step_s
        fleet.arrive(now)
        while losses and losses[0][0] <= now:
            before = fleet.ready
            gone = fleet.lose(losses.popleft()[1], market.spot_share)
            if gone:
                # Streams that break are asked for again from their begin: on average half of their work was done.
                broken = gone * running / before
                running -= broken
                queue.work += broken * mean_work_s / 2.0
                redone += broken * mean_work_s / 2.0
                lost += gone
        ready, paid = fleet.ready, fleet.paid
        came, brought, served, late = queue.step(now, ready)
        running = running * fade + served * settle
        usd += _usd_per_hour(market, paid)
        out_ready[step], out_paid[step], out_demand[step], out_misses[step] = (
            ready,
            paid,
            brought / step_s,
            late,
        )
        seen = _observation(
            traffic, step, fleet, came, late, queue.work / mean_work_s, running, served / step_s
        )
        fleet.scale(now + step_s, policy.decide(seen).target)
    return Run(
        policy=policy.name,
        traffic=traffic.name,
        step_s=step_s,
        cold_start_s=cold_start_s,
        requests=sum(traffic.requests[: steps * step_s]),
        missed=math.fsum(out_misses),
        replica_hours=sum(out_paid) * step_s / 3600.0,
        changes=fleet.changes,
        lost=lost,
        usd=usd * step_s / 3600.0,
        served_work_s=queue.served,
        given_up_work_s=queue.given_up,
        queued_work_s=queue.work,
        redone_work_s=redone,
        ready=out_ready,
        paid=out_paid,
        demand=out_demand,
        misses=out_misses,
    )


def _observation(
    traffic: Traffic,
    step: int,
    fleet: _Fleet,
    came: int,
    late: float,
    waiting: float,
    running: float,
    served_a_second: float,
) -> Observation:
    step_s, ready, prompt_tokens = traffic.step_s, fleet.ready, traffic.prompt_tokens[step]
    a_request = prompt_tokens / came if came else 0.0
    return Observation(
        traffic.start_s + (step + 1) * step_s,
        ready,
        fleet.starting,
        came / step_s,
        prompt_tokens / step_s,
        traffic.output_tokens[step] / step_s,
        waiting,
        running,
        waiting * a_request,
        running * a_request,
        # Memory that is full when the batch is: what policies that look at memory alone see best.
        min(1.0, running / (ready * traffic.concurrency)) if ready else None,
        None,
        None,
        1.0 - late / came if came else None,
        min(1.0, served_a_second / ready) if ready else 0.0,
    )


def _first(traffic: Traffic) -> int:
    head = traffic.work_s[: max(60, traffic.step_s)]
    return max(1, math.ceil(1.3 * sum(head) / len(head))) if head else 1


def _usd_per_hour(market: Market, paid: int) -> float:
    spot = int(paid * market.spot_share)
    return spot * market.spot_usd_per_hour + (paid - spot) * market.usd_per_hour


class _Queue:
    """First come, first served; what is before a request decides how long it waits."""

    __slots__ = ("_recent", "_requests", "_step_s", "_wait_s", "_work", "given_up", "served", "work")

    def __init__(self, traffic: Traffic, wait_s: float, patience_s: float) -> None:
        self._work: Sequence[float] = traffic.work_s
        self._requests: Sequence[int] = traffic.requests
        self._step_s = traffic.step_s
        self._wait_s = wait_s
        # What came within `patience_s` of each second's end: the queue holds nothing older.
        sums = list(accumulate(self._work, initial=0.0))
        held = min(len(sums), math.ceil(patience_s)) if patience_s < math.inf else len(sums)
        self._recent = [
            now - old for now, old in zip(sums[1:], chain(repeat(0.0, held - 1), sums), strict=False)
        ]
        self.work = self.served = self.given_up = 0.0

    def step(self, now: int, ready: int) -> tuple[int, float, float, float]:
        """A step from second `now` on: requests that came, their work, the work served, the requests that miss."""
        limit = ready * self._wait_s
        queue, end = self.work, now + self._step_s
        served = late = given_up = 0.0
        came = self._requests[now:end]
        brought = self._work[now:end]
        if queue == 0.0 and max(brought) <= ready:
            work = sum(brought)
            self.served += work
            return sum(came), work, work, 0.0
        for fresh, count, most in zip(brought, came, self._recent[now:end], strict=True):
            before = queue
            queue += fresh - ready
            if queue > limit or before > limit:
                # What arrives waits for what is queued when it comes: between `before` and `after`, linearly.
                after = max(0.0, queue)
                if before > limit and after > limit:
                    late += count
                elif after > before:
                    late += count * (after - limit) / (after - before)
                else:
                    late += count * (before - limit) / (before - after)
            if queue < 0.0:
                served += ready + queue
                queue = 0.0
            else:
                served += ready
                if queue > most:
                    given_up += queue - most
                    queue = most
        self.work = queue
        self.served += served
        self.given_up += given_up
        return sum(came), sum(brought), served, late


@dataclass
class _Fleet:
    """Replicas, by when those that start will serve and those that drain will be gone."""

    ready: int
    cold_start_s: float
    service_s: float
    starting: int = 0
    changes: int = 0
    _draining: int = 0
    _wanted: int = -1
    _due: deque[tuple[float, int]] = field(default_factory=deque)
    _ends: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        if self.ready < 0:
            raise InvalidInputError(f"a fleet cannot begin with {self.ready} replicas")
        self._wanted = self.ready

    @property
    def paid(self) -> int:
        return self.ready + self.starting + self._draining

    def arrive(self, now: float) -> None:
        """Takes in those whose cold start is over, and lets go of those that have drained."""
        while self._due and self._due[0][0] <= now:
            count = self._due.popleft()[1]
            self.starting -= count
            self.ready += count
        while self._ends and self._ends[0][0] <= now:
            self._draining -= self._ends.popleft()[1]

    def lose(self, count: int, spot_share: float) -> int:
        """Takes away as many ready replicas as are spot ones, at most `count`. They are paid for no longer."""
        gone = min(count, int(self.ready * spot_share))
        self.ready -= gone
        return gone

    def scale(self, now: float, target: int) -> None:
        """Orders replicas or lets them go, until as many serve or start as `target` says."""
        if target != self._wanted:
            self.changes += 1
            self._wanted = target
        surplus = self.ready + self.starting - max(0, target)
        if surplus < 0:
            self._due.append((now + self.cold_start_s, -surplus))
            self.starting -= surplus
        while surplus > 0 and self._due:
            # Those that do not serve yet go first, the latest first: they stream nothing.
            due, count = self._due.pop()
            gone = min(count, surplus)
            surplus -= gone
            self.starting -= gone
            if count > gone:
                self._due.append((due, count - gone))
        if surplus > 0:
            self.ready -= surplus
            self._draining += surplus
            self._ends.append((now + self.service_s, surplus))
