"""Policies by name, each swept over the one setting that trades replica-hours for misses: its frontier."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity, ScalingPolicy
from textnlp_fast.gpu.scaling.simulator.fluid import Market, Run, simulate
from textnlp_fast.gpu.scaling.simulator.oracle import Clairvoyant, oracle_of

if TYPE_CHECKING:
    from textnlp_fast.gpu.scaling.simulator.traffic import Traffic

__all__ = [
    "DEFAULT_SETTINGS",
    "Frontier",
    "Point",
    "capacity_of",
    "default_setting",
    "frontier_of",
    "made_policy",
    "policy_names",
    "run_policy",
    "settings_of",
]

_OURS: Final = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
_UTILISATIONS: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.4, 0.3)
_STATIC: Final = (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2)
DEFAULT_SETTINGS: Final = {"ours": 0.999, "static_peak": 1.0}
"""What a policy runs at where nothing is said; a rival aims at a utilisation of 0.7, as Knative and Ray Serve do."""


def policy_names() -> tuple[str, ...]:
    """All that can be run: ours, the rivals with a static fleet among them, and the oracle."""
    from textnlp_fast.gpu.scaling.rivals import RIVALS  # noqa: PLC0415

    return ("ours", *RIVALS, "oracle")


def settings_of(name: str) -> tuple[float, ...]:
    """What a policy's setting is swept over, the cheapest first.

    Ours: the share of requests that must be within the SLO. A rival: the utilisation that it aims at. Static: replicas,
    as a share of what the fullest minute needs. The oracle has none.
    """
    return {"ours": _OURS, "static_peak": _STATIC, "oracle": (1.0,)}.get(name, _UTILISATIONS)


def default_setting(name: str) -> float:
    return DEFAULT_SETTINGS.get(name, 0.7)


def capacity_of(traffic: Traffic) -> ReplicaCapacity:
    """What one replica carries of this traffic, full but stable: what somebody who measured it would set."""
    requests, prompts = sum(traffic.requests), math.fsum(traffic.prompt_tokens)
    # The simulator counts prompt tokens of those in flight; see `simulate`.
    tokens = traffic.concurrency * prompts / requests if requests and prompts else None
    return ReplicaCapacity(
        requests_per_s=1.0 / traffic.mean_work_s, concurrency=traffic.concurrency, tokens_in_flight=tokens
    )


def made_policy(
    name: str, setting: float, traffic: Traffic, *, cold_start_s: float, queue_wait_s: float = 1.0
) -> tuple[Policy, int | None]:
    """A policy for this traffic, and with how many replicas it begins, where it has a say in that.

    Raises InvalidInputError for a name that there is none of, or a setting that means nothing.
    """
    # Far above any need: no policy is held back by its limit.
    most = 10 + 4 * math.ceil(_peak(traffic))
    cold_start = ColdStart(provisioning_s=cold_start_s, weights_s=0.0, warm_up_s=0.0)
    if name == "ours":
        from textnlp_fast.gpu.scaling.engine import LLMPolicy  # noqa: PLC0415

        settings = ScalingPolicy(
            slo_attainment=setting,
            queue_wait_s=queue_wait_s,
            max_instances=most,
            capacity=capacity_of(traffic),
            cold_start=cold_start,
            period_s=float(traffic.step_s),
        )
        return LLMPolicy(settings), None
    if name == "static_peak":
        from textnlp_fast.gpu.scaling.rivals.static_peak import StaticPeak  # noqa: PLC0415

        if not 0 < setting < math.inf:
            raise InvalidInputError(
                f"a static fleet is a share of the fullest minute's demand, not {setting!r}"
            )
        count = max(1, math.ceil(setting * _peak(traffic)))
        return StaticPeak(instances=count, max_instances=count), count
    if name == "oracle":
        policy = Clairvoyant(oracle_of(traffic, cold_start_s=cold_start_s))
        return policy, policy.initial
    from textnlp_fast.gpu.scaling.rivals import rival  # noqa: PLC0415

    if name not in policy_names():
        raise InvalidInputError(
            f"no policy is called {name!r}", hint=f"There are {', '.join(policy_names())}."
        )
    other = rival(
        name,
        target_utilisation=setting,
        capacity=capacity_of(traffic),
        min_instances=1,
        max_instances=most,
        cold_start=cold_start,
        period_s=float(traffic.step_s),
    )
    return other, None


def _peak(traffic: Traffic) -> float:
    """The most replicas that a minute needs."""
    work = traffic.work_s
    return max((math.fsum(work[at : at + 60]) / 60 for at in range(0, len(work), 60)), default=0.0)


def run_policy(
    name: str,
    traffic: Traffic,
    *,
    setting: float | None = None,
    cold_start_s: float,
    queue_wait_s: float = 1.0,
    patience_s: float = 60.0,
    market: Market | None = None,
) -> Run:
    """One policy over one traffic."""
    chosen = default_setting(name) if setting is None else setting
    policy, initial = made_policy(name, chosen, traffic, cold_start_s=cold_start_s, queue_wait_s=queue_wait_s)
    return simulate(
        policy,
        traffic,
        cold_start_s=cold_start_s,
        queue_wait_s=queue_wait_s,
        patience_s=patience_s,
        initial=initial,
        market=market,
    )


class Point(NamedTuple):
    """A run, without its lists."""

    setting: float
    attainment: float
    replica_hours: float
    changes: float
    usd: float = 0.0


@dataclass(frozen=True)
class Frontier:
    """What a policy attains for what it costs. Between two settings: linear, in the logarithm of the misses."""

    policy: str
    points: tuple[Point, ...]

    @property
    def best(self) -> tuple[Point, ...]:
        """The points that no other beats, the cheapest first."""
        kept: list[Point] = []
        for point in sorted(self.points, key=lambda one: (one.replica_hours, -one.attainment)):
            if not kept or point.attainment > kept[-1].attainment:
                kept.append(point)
        return tuple(kept)

    def at_attainment(self, attainment: float) -> Point | None:
        """The point with that attainment; the cheapest one where all have more, None where none has as much."""
        best = self.best
        if best and best[0].attainment >= attainment:
            return best[0]
        for low, high in pairwise(best):
            if low.attainment <= attainment <= high.attainment:
                span = _depth(high.attainment) - _depth(low.attainment)
                return _between(low, high, (_depth(attainment) - _depth(low.attainment)) / span)
        return None

    def at_hours(self, replica_hours: float) -> Point | None:
        """The point that costs as much; the dearest one where all cost less, None where all cost more."""
        best = self.best
        if best and best[-1].replica_hours <= replica_hours:
            return best[-1]
        for low, high in pairwise(best):
            if low.replica_hours <= replica_hours <= high.replica_hours:
                return _between(
                    low, high, (replica_hours - low.replica_hours) / (high.replica_hours - low.replica_hours)
                )
        return None


def _depth(attainment: float) -> float:
    """Nines, roughly. No misses at all count as one in a hundred million."""
    return -math.log(max(1e-8, 1.0 - attainment))


def _between(low: Point, high: Point, share: float) -> Point:
    def mix(one: float, other: float) -> float:
        return one + share * (other - one)

    return Point(
        setting=mix(low.setting, high.setting),
        attainment=1.0 - math.exp(-mix(_depth(low.attainment), _depth(high.attainment))),
        replica_hours=mix(low.replica_hours, high.replica_hours),
        changes=mix(low.changes, high.changes),
        usd=mix(low.usd, high.usd),
    )


def frontier_of(
    name: str,
    traffic: Traffic,
    *,
    cold_start_s: float,
    settings: Sequence[float] | None = None,
    enough: float | None = None,
    on_run: Callable[[float, Run], None] | None = None,
    queue_wait_s: float = 1.0,
    patience_s: float = 60.0,
    market: Market | None = None,
) -> Frontier:
    """A policy at each of its settings, until one attains `enough`; `on_run` is told of each run as it ends."""
    points = []
    for setting in settings_of(name) if settings is None else settings:
        run = run_policy(
            name,
            traffic,
            setting=setting,
            cold_start_s=cold_start_s,
            queue_wait_s=queue_wait_s,
            patience_s=patience_s,
            market=market,
        )
        points.append(Point(setting, run.attainment, run.replica_hours, run.changes, run.usd))
        if on_run is not None:
            on_run(setting, run)
        if enough is not None and run.attainment >= enough:
            break
    return Frontier(name, tuple(points))
