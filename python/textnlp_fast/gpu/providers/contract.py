"""What every provider does, and the words for it. `tests/gpu/providers/contract_cases.py` holds the contract's cases.

Errors are the same everywhere: CapacityError (none to be had here now: try elsewhere), QuotaError (this account may not
have more), PriceTooHighError (over the request's cap), AuthenticationError, UnknownRegionError, InvalidInputError
(fix the request), ProviderUnavailableError (no answer after bounded retries). Each call has a deadline.
"""

from __future__ import annotations

import datetime
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from textnlp_fast.errors import InvalidInputError, PriceTooHighError
from textnlp_fast.gpu.types import Market, Offer

__all__ = [
    "LAUNCH_TAG",
    "OWNER_TAG",
    "Instance",
    "InstanceState",
    "LaunchOutcome",
    "LaunchRequest",
    "PriceOf",
    "Provider",
    "check_request",
    "deleted_since",
    "refuse_other_type",
    "refuse_over_cap",
]

PriceOf = Callable[[str, Market], "float | None"]
"""What an hour of an instance type costs in a market of the provider's region, in USD; None: not known.

Providers take one as the option `price_of`, for caps that their cloud does not take.
"""

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
    alternatives: tuple[str, ...] = ()
    """Other types that will do as well, for a cloud that chooses (spot on AWS that names no zone); all instances of a
    launch are of one type. Other launches are of `instance_type`, and leave these aside."""
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


_LAUNCH_ID = re.compile(r"[a-z][a-z0-9-]{0,35}", re.ASCII)
_MOST_INSTANCES = 1000


def check_request(request: LaunchRequest) -> None:
    """Raises InvalidInputError for a request that no provider can carry out; providers call it first."""
    if not _LAUNCH_ID.fullmatch(request.launch_id):
        raise InvalidInputError(
            f"{request.launch_id!r} is no launch id: at most 36 of a-z, 0-9 and '-', a letter first"
        )
    if not 1 <= request.min_count <= request.count <= _MOST_INSTANCES:
        raise InvalidInputError(
            f"count={request.count} and min_count={request.min_count}: "
            f"at least 1, at most {_MOST_INSTANCES}, and the second not above the first"
        )
    if not 1 <= request.disk_gib <= 65536:
        raise InvalidInputError(f"disk_gib={request.disk_gib}: a disk has 1 to 65536 GiB")
    cap = request.max_usd_per_hour
    if cap is not None and not 0 < cap < float("inf"):
        raise InvalidInputError(f"max_usd_per_hour={cap}: a cap is a positive number of dollars")


def refuse_over_cap(request: LaunchRequest, usd_per_hour: float | None) -> None:
    """Raises PriceTooHighError where the request has a cap and the price is above it, or is not known."""
    cap = request.max_usd_per_hour
    if cap is None or (usd_per_hour is not None and usd_per_hour <= cap):
        return
    what = f"{request.market} {request.instance_type}"
    if usd_per_hour is None:
        raise PriceTooHighError(
            f"the price of {what} is not known, so no cap can be kept",
            hint="Launch it without a cap, or make the provider with price_of.",
        )
    raise PriceTooHighError(f"{what} costs {usd_per_hour:.4f} USD an hour, over the cap of {cap:.4f}")


def refuse_other_type(request: LaunchRequest, found: Sequence[Instance], *, any_case: bool = False) -> None:
    """Raises InvalidInputError where what the launch id launched before is of another type than is asked for now."""

    def spelt(name: str) -> str:
        return name.lower() if any_case else name

    for one in found:
        if spelt(one.instance_type) != spelt(request.instance_type):
            raise InvalidInputError(
                f"launch {request.launch_id} was of {one.instance_type}, not of {request.instance_type}",
                hint="Give every launch an id of its own.",
            )


def deleted_since(
    request: LaunchRequest,
    instance_id: str,
    *,
    provider: Provider,
    zone: str | None,
    launched_at: datetime.datetime,
) -> Instance:
    """An instance of a launch of which only the order is known any more."""
    return Instance(
        provider=provider.name,
        region=provider.region,
        zone=zone,
        instance_id=instance_id,
        instance_type=request.instance_type,
        market=request.market,
        state=InstanceState.TERMINATED,
        launched_at=launched_at,
        launch_id=request.launch_id,
        tags={**request.tags, LAUNCH_TAG: request.launch_id},
        reason="deleted since",
    )


class Provider(ABC):
    """One region of one cloud. Thread-safe; blocking: callers that must not wait use threads."""

    name: str
    region: str
    chooses_zone: frozenset[Market] = frozenset()
    """Markets in which a launch that names no zone goes where the cloud finds it best: one request for all zones."""

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

    def offers(self) -> Sequence[Offer]:
        """What it offers and no catalogue knows; most have nothing of the kind."""
        return ()

    @abstractmethod
    def zones(self, instance_type: str) -> list[str]:
        """The zones of the region that offer the type, in a stable order."""
