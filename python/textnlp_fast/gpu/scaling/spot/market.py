"""What a policy of spot sees of its zones, and what it answers. One machine is one replica."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from textnlp_fast.gpu.scaling.decision import Alert, Reason

__all__ = ["ON_DEMAND", "Mix", "SpotObservation", "SpotPolicy", "ZoneMarket"]

#: Where a mix names the place of machines on demand among zones.
ON_DEMAND = "on-demand"


class ZoneMarket(NamedTuple):
    """One zone now. Counts of events are since the observation before. None, NaN and contradictions must be borne."""

    zone: str
    region: str
    usd_per_hour: float | None = None
    """Of one spot machine. None: not known."""
    ready: int = 0
    """Spot machines there that serve."""
    starting: int = 0
    """Those that are paid for and do not serve yet."""
    launched: int = 0
    """Launches that came off."""
    refused: int = 0
    """Launches that failed for want of capacity."""
    preempted: int = 0
    """Machines that were taken away."""
    noticed: int = 0
    """Of `ready` and `starting`: those that will be taken within minutes, by the provider's own word."""
    rebalance: int = 0
    """Of `ready` and `starting`: those of which the provider says that they are likelier than others to be taken."""


class SpotObservation(NamedTuple):
    """What is there now, and how many replicas the scaling policy wants to serve."""

    time_s: float
    target: int | None
    """None: the scaling policy has no answer; the last one stays."""
    zones: tuple[ZoneMarket, ...]
    on_demand_ready: int = 0
    on_demand_starting: int = 0
    on_demand_usd_per_hour: float | None = None
    on_demand_refused: int = 0


class Mix(NamedTuple):
    """How many machines there should be, and where. To say it twice does no more than to say it once."""

    time_s: float
    spot: tuple[tuple[str, int], ...]
    """Zone and machines, those not counted that are under notice: they end by themselves. Zones that are not named
    should have none."""
    on_demand: int
    drain: tuple[str, ...] = ()
    """From which places (zones, or `on-demand`) surplus machines go first. They are drained, then ended."""
    reasons: tuple[Reason, ...] = ()
    """The first is the one that decided."""
    alerts: tuple[Alert, ...] = ()

    @property
    def spot_total(self) -> int:
        return sum(count for _, count in self.spot)

    @property
    def total(self) -> int:
        """All machines, spot and on demand."""
        return self.spot_total + self.on_demand


class SpotPolicy(Protocol):
    """Like `policy.Policy`: no clock, no network, no randomness; the same observations give the same mixes."""

    @property
    def name(self) -> str:
        """As it is called in tables: ours, spothedge, ..."""

    def decide(self, observation: SpotObservation) -> Mix:
        """The mix for now. Never raises for what an observation says."""

    def snapshot(self) -> Mapping[str, Any]:
        """The state as JSON's types."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a snapshot's state. Raises CorruptDataError for one that it cannot read, and keeps its own."""
