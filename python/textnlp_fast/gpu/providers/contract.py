"""What every provider does, and the words for it. `tests/providers/` holds the contract's cases.

Errors are the same everywhere: CapacityError (none to be had here now: try elsewhere), QuotaError (this account may not
have more), PriceTooHighError (over the request's cap), AuthenticationError, UnknownRegionError, InvalidInputError
(fix the request), ProviderUnavailableError (no answer after bounded retries). Each call has a deadline.
"""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from textnlp_fast.gpu.types import Market

__all__ = [
    "LAUNCH_TAG",
    "OWNER_TAG",
    "Instance",
    "InstanceState",
    "LaunchOutcome",
    "LaunchRequest",
    "Provider",
]

#: Every instance carries these tags (on GCP: labels): which launch it came of, and which fleet it is of.
LAUNCH_TAG = "textnlp-fast-launch"
OWNER_TAG = "textnlp-fast-owner"


class InstanceState(str, Enum):
    """Where an instance is in its life, in one vocabulary for all providers."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATING = "terminating"
    TERMINATED = "terminated"

    def __str__(self) -> str:
        return self.value

    @property
    def alive(self) -> bool:
        """True while the instance exists: stopped ones cost their disks."""
        return self not in (InstanceState.TERMINATING, InstanceState.TERMINATED)


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What to launch. The same `launch_id` launches once, however often it is asked for."""

    launch_id: str
    """Client token: at most 36 characters of a-z, 0-9 and `-`, beginning with a letter."""
    instance_type: str
    count: int = 1
    min_count: int = 1
    """Fewer than `count` are taken, down to this; below it, whatever came is given back."""
    market: Market = Market.ON_DEMAND
    zone: str | None = None
    image: str | None = None
    """The provider's own name of an image; None takes the one that the provider was made with."""
    disk_gib: int = 100
    user_data: str | None = None
    max_usd_per_hour: float | None = None
    """Of one instance. Passed on to the provider where it takes a cap, checked before launching where not."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One machine, as its provider last described it."""

    provider: str
    region: str
    zone: str | None
    instance_id: str
    instance_type: str
    market: Market
    state: InstanceState
    launched_at: datetime.datetime
    """In UTC."""
    launch_id: str | None
    tags: Mapping[str, str] = field(default_factory=dict)
    public_ip: str | None = None
    private_ip: str | None = None
    reason: str | None = None
    """Why it stopped or ended, in the provider's words: an interruption of spot, a failed launch."""


@dataclass(frozen=True, kw_only=True)
class LaunchOutcome:
    """The instances of a launch; `missing` is how many fewer than asked for, `why` in the provider's words."""

    instances: tuple[Instance, ...]
    missing: int = 0
    why: str | None = None


class Provider(ABC):
    """One region of one cloud. Thread-safe; blocking: callers that must not wait use threads."""

    name: str
    region: str

    @abstractmethod
    def launch(self, request: LaunchRequest) -> LaunchOutcome:
        """Launches, or finds what the same `launch_id` launched before. Returns once the order is taken."""

    @abstractmethod
    def describe(self, instance_ids: Sequence[str]) -> list[Instance]:
        """Those of the instances that the provider knows, in the order asked for; unknown ones are left out."""

    @abstractmethod
    def list_instances(self, tags: Mapping[str, str] | None = None) -> list[Instance]:
        """All instances with these tags (None: with any OWNER_TAG), ended ones too while the provider shows them."""

    @abstractmethod
    def stop(self, instance_ids: Sequence[str]) -> None:
        """Stops and keeps the disks. Idempotent."""

    @abstractmethod
    def start(self, instance_ids: Sequence[str]) -> None:
        """Starts stopped ones. Idempotent."""

    @abstractmethod
    def terminate(self, instance_ids: Sequence[str]) -> None:
        """Ends instances with their disks. Idempotent; ids that the provider does not know are taken as ended."""

    @abstractmethod
    def tag(self, instance_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Adds tags to instances, replacing values of the same keys."""

    @abstractmethod
    def zones(self, instance_type: str) -> list[str]:
        """The zones of the region that offer the type, in a stable order."""
