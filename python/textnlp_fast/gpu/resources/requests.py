"""What is asked of the fleet, and what it may cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Literal

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, OWNER_TAG
from textnlp_fast.gpu.types import GPUType, Market

__all__ = ["MARKETS", "AcquireRequest", "Budget", "MarketChoice"]

MarketChoice = Literal["on-demand", "spot", "spot-first"]
"""`spot-first`: spot wherever it is to be had, on demand where no spot is."""

MARKETS: dict[MarketChoice, tuple[Market, ...]] = {
    "on-demand": (Market.ON_DEMAND,),
    "spot": (Market.SPOT,),
    "spot-first": (Market.SPOT, Market.ON_DEMAND),
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the fleet of one owner may cost. None: no bound.

    A launch is refused before it is made. What runs already is not ended by a budget.
    """

    usd_per_hour: float | None = None
    """All that runs, together."""
    total_usd: float | None = None
    """All that was ever spent, and `expected_hours` of what is to be launched."""

    def __post_init__(self) -> None:
        for name in ("usd_per_hour", "total_usd"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InvalidInputError(f"a budget's {name} is a number of dollars, not {value}")


@dataclass(frozen=True, kw_only=True)
class AcquireRequest:
    """Machines with GPUs: any that fit, the cheapest first.

    `key` names the request: asked for again under the same key, by whatever process, it is the same machines as long as
    they are alive; with more `instances` than it holds, the missing ones are launched beside them. It must ask for
    what they are: ConflictError where cap, market, place, image, disk, tags or user data do not fit. Without a key
    every call is a request of its own.
    """

    gpu_types: Sequence[GPUType | str]
    """Any of them will do."""
    gpu_count: float = 1
    """GPUs of each machine, at least."""
    instances: int = 1
    min_instances: int | None = None
    """Fewer are taken, down to this; None: all or none."""
    spread: bool = False
    """True if they may come from several places; else one place gives them all."""
    market: MarketChoice = "on-demand"
    providers: Sequence[str] | None = None
    """Of those that are registered; None: all. The same for `regions`, `zones` and `instance_types`."""
    regions: Sequence[str] | None = None
    zones: Sequence[str] | None = None
    instance_types: Sequence[str] | None = None
    max_usd_per_hour: float | None = None
    """Of one machine."""
    expected_hours: float = 1.0
    """For how long the total budget must suffice."""
    image: str | Mapping[str, str] | None = None
    """An image's name, or one for each provider."""
    disk_gib: int = 100
    user_data: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None

    def __post_init__(self) -> None:
        types = (self.gpu_types,) if isinstance(self.gpu_types, str) else self.gpu_types
        if not isinstance(types, Iterable) or not all(isinstance(one, str) for one in types):
            raise InvalidInputError(
                f"gpu_types={types!r}: types are named, one or several", hint="Write nvidia-t4, for example."
            )
        _check_numbers(self)
        object.__setattr__(self, "gpu_types", tuple(dict.fromkeys(GPUType.parse(one) for one in types)))
        if not self.gpu_types:
            raise InvalidInputError("no GPU type was named", hint="Name one, or set DEFAULT_GPU_TYPE.")
        if self.market not in MARKETS:
            raise InvalidInputError(f"market {self.market!r} is none of {', '.join(MARKETS)}")
        least = self.least_instances
        if not 1 <= least <= self.instances <= 1000:
            raise InvalidInputError(
                f"instances={self.instances} and min_instances={least}: 1 to 1000, the second not above the first"
            )
        for name in ("gpu_count", "expected_hours", "max_usd_per_hour"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InvalidInputError(f"{name}={value} is not positive")
        if not 1 <= self.disk_gib <= 65536:
            raise InvalidInputError(f"disk_gib={self.disk_gib}: a disk has 1 to 65536 GiB")
        ours = {LAUNCH_TAG, OWNER_TAG} & set(self.tags)
        if ours:
            raise InvalidInputError(f"the tag {min(ours)!r} is set by the fleet itself")
        if self.key is not None and not 1 <= len(self.key) <= 256:
            raise InvalidInputError("a key has 1 to 256 characters")

    @property
    def least_instances(self) -> int:
        """`min_instances`, or all."""
        return self.instances if self.min_instances is None else self.min_instances

    def image_for(self, provider: str) -> str | None:
        """The image to launch there; None: the provider's own."""
        return self.image if self.image is None or isinstance(self.image, str) else self.image.get(provider)


def _check_numbers(request: AcquireRequest) -> None:
    """Whoever passes a text, a flag or None for a number is told so, before it is compared with one."""
    for kind, names, word in (
        (Integral, ("instances", "disk_gib", "min_instances"), "a whole number"),
        (Real, ("gpu_count", "expected_hours", "max_usd_per_hour"), "a number"),
    ):
        for name in names:
            value = getattr(request, name)
            if value is None and name in ("min_instances", "max_usd_per_hour"):
                continue
            if isinstance(value, bool) or not isinstance(value, kind):
                raise InvalidInputError(f"{name}={value!r} is not {word}")
