"""What a monitor says of itself: who is watched by what, and how that goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from textnlp_fast.gpu.health.sinks.outbox import SinkStatus

__all__ = ["MachineStatus", "MonitorStatus", "SourceStatus"]


@dataclass(frozen=True, kw_only=True)
class SourceStatus:
    """How one source does."""

    name: str
    reads_gpus: bool
    heard_s: float | None
    """When it last answered; None: never."""
    failures: int
    """In a row, up to now."""
    error: str | None


@dataclass(frozen=True, kw_only=True)
class MachineStatus:
    """One machine that is watched, and by what."""

    machine: str
    provider: str
    sources: tuple[SourceStatus, ...]
    note: str
    """What the monitor cannot see of it; empty: nothing."""
    gpus: int
    """How many GPUs were heard of."""


@dataclass(frozen=True, kw_only=True)
class MonitorStatus:
    """How the monitor does."""

    running: bool
    machines: tuple[MachineStatus, ...]
    open: Mapping[str, int]
    """How many findings are open, by severity."""
    sinks: Mapping[str, SinkStatus]
    facts: int
    """How many facts were judged since the start."""
    ignored: int
    """How many of them said nothing: late ones, kinds that no rule knows."""
