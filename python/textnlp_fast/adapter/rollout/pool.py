"""The replicas of a target, and how patiently they are dealt with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from textnlp_fast.adapter.rollout.replicas import Replica
from textnlp_fast.adapter.rollout.traffic import NoGateway, Traffic

__all__ = ["Pace", "Pool"]

_LEASE_S: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The replicas of a target, and how they are reached.

    `spares` are names of those that do not serve at first: the surge, or what is green.
    """

    replicas: tuple[Replica, ...]
    spares: frozenset[str] = frozenset()
    token: Callable[[], str | None] = lambda: None
    traffic: Traffic = field(default_factory=NoGateway)
    drain_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a controller looks, and how long it puts up with what. In seconds."""

    poll_s: float = 1.0
    lease_s: float = _LEASE_S
    request_s: float = 5.0
    lost_s: float = 30.0
    patience_s: float = 180.0
    operation_s: float = 3600.0
