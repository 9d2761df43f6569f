"""How what runs is changed: which replicas at a time, and what must hold before the next."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from textnlp_fast.adapter.words import check_number, check_whole, refuse, shown

__all__ = ["HealthCheck", "Rollout", "Strategy"]

Strategy = Literal["rolling", "canary", "blue-green"]
_PERCENT: Final = re.compile(r"[0-9]{1,3}%", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~&*+,;=:@/%?-]{0,1023}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """How a replica is asked whether it serves."""

    path: str = "/health"
    interval_s: float = 10.0
    timeout_s: float = 5.0
    """Of one question."""
    failures: int = 3
    """In a row, before it counts as unwell."""
    success_after: int = 1
    """In a row, before it counts as well."""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not _PATH.fullmatch(self.path):
            refuse("rollout.health.path", f"must be a path of a URL, not {shown(self.path)}")
        for name in ("interval_s", "timeout_s"):
            check_number(f"rollout.health.{name}", getattr(self, name), above=0.0, most=3600.0)
        for name in ("failures", "success_after"):
            check_whole(f"rollout.health.{name}", getattr(self, name), least=1, most=1000)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """From one version to the next.

    `rolling` replaces a few replicas at a time; `canary` sends the percentages of `steps` to the new version, one after
    another; `blue-green` starts all that is new beside what is old and then switches.
    """

    strategy: Strategy = "rolling"
    max_unavailable: int | str = 0
    """Of the replicas, at a time: a number, or a share as `25%`."""
    max_surge: int | str = 1
    """Replicas beyond those wanted, at a time: a number, or a share as `25%`."""
    steps: tuple[int, ...] = (5, 25, 50, 100)
    """Percent of the traffic, rising to 100; of `canary` only."""
    bake_s: float = 60.0
    """How long a step is watched before the next; of `blue-green`, how long what is old is kept."""
    health: HealthCheck = field(default_factory=HealthCheck)
    hot_swap: bool = False
    """Change weights inside running replicas where the engine can, instead of replacing them."""

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            refuse(
                "rollout.strategy",
                f"must be one of {', '.join(get_args(Strategy))}, not {shown(self.strategy)}",
            )
        for name in ("max_unavailable", "max_surge"):
            value = getattr(self, name)
            percent = isinstance(value, str) and _PERCENT.fullmatch(value) and int(value[:-1]) <= 100
            if not percent and isinstance(value, str):
                refuse(f"rollout.{name}", f"must be a number, or a share as 25%, not {shown(value)}")
            if not percent:
                check_whole(f"rollout.{name}", value, least=0, most=10**6)
        if self.unavailable_of(100) == 0 and self.surge_of(100) == 0:
            refuse(
                "rollout.max_surge",
                "and max_unavailable are both 0: no replica could ever be replaced",
                hint="Allow one replica more, or one fewer.",
            )
        if not isinstance(self.steps, tuple) or not self.steps or len(self.steps) > 100:
            refuse("rollout.steps", "must be 1 to 100 percentages")
        for one in self.steps:
            check_whole("rollout.steps", one, least=1, most=100)
        if list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 100:
            refuse("rollout.steps", "must rise, and end at 100", hint="Write, for example: [5, 25, 50, 100].")
        check_number("rollout.bake_s", self.bake_s, most=7 * 86400.0)
        if not isinstance(self.health, HealthCheck):
            refuse("rollout.health", "must be a HealthCheck")
        if not isinstance(self.hot_swap, bool):
            refuse("rollout.hot_swap", f"must be true or false, not {shown(self.hot_swap)}")

    def unavailable_of(self, replicas: int) -> int:
        """How many of so many may be missing; a share is rounded down."""
        return _part(self.max_unavailable, replicas, up=False)

    def surge_of(self, replicas: int) -> int:
        """How many there may be beyond so many; a share is rounded up."""
        return _part(self.max_surge, replicas, up=True)


def _part(value: int | str, whole: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = int(value[:-1]) * whole
    return -(-share // 100) if up else share // 100
