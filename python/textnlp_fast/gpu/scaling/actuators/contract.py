"""What every actuator does. `tests/gpu/scaling/actuators/contract_cases.py` holds the contract's cases.

An actuator is told a number, not a difference: to say it twice does no more than to say it once, and to say it again
after a crash in the middle ends at the number. It never kills a replica that still streams: one that must go is drained
first, as far as the kind of fleet can, and `read` counts it as draining.

Errors are the providers': CapacityError, QuotaError, AuthenticationError, MissingObjectError (no such group),
InvalidInputError, ProviderUnavailableError after bounded retries. Each call has a deadline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Actuator", "Drain", "FleetState", "Replica"]


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One replica of the fleet, where the kind of fleet tells them apart."""

    replica_id: str
    state: str
    """starting, ready or draining."""
    zone: str | None = None
    spot: bool = False
    address: str | None = None


@dataclass(frozen=True, kw_only=True)
class FleetState:
    """What is there now."""

    desired: int
    """What the fleet was told last, by anybody."""
    ready: int
    starting: int = 0
    draining: int = 0
    min_size: int | None = None
    """The group's own bounds, where it has them: a decision outside them would be refused or cut."""
    max_size: int | None = None
    replicas: tuple[Replica, ...] = ()


Drain = Callable[[Replica, float], bool]
"""Asks a replica to take no more requests and to finish its streams within so many seconds; True: it is empty."""


class Actuator(ABC):
    """A fleet whose size can be read and set."""

    kind: str
    """aws-asg, aws-fleet, gcp-mig, azure-vmss, instances, kubernetes."""

    @abstractmethod
    def read(self) -> FleetState:
        """The fleet as its owner reports it."""

    @abstractmethod
    def scale_to(self, count: int, *, decision_id: str) -> FleetState:
        """Makes the fleet go towards `count` replicas, and returns without waiting for them to serve.

        `decision_id` names the decision: the same one, said again after a lost answer or a crash, orders nothing twice.
        """
