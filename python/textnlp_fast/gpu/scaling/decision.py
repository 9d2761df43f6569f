"""What a policy says: a number of replicas, and why."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Alert", "Decision", "Reason"]


class Reason(NamedTuple):
    """What one part of a policy wanted. The text is made when somebody asks for it: a simulation rarely does."""

    part: str
    """reactive, forecast, panic, schedule, slo, hold, limit, budget, ...: stable words, for metrics and filters."""
    replicas: float
    """What this part alone would have, before rounding."""
    detail: str = ""
    """A format string over `figures`, for people: "{rate:.1f} requests/s need {replicas:.2f} replicas"."""
    figures: tuple[tuple[str, float], ...] = ()

    @property
    def text(self) -> str:
        """The reason as a sentence without its full stop."""
        return self.detail.format(replicas=self.replicas, **dict(self.figures)) if self.detail else self.part


class Alert(NamedTuple):
    """Something that an operator should hear of."""

    name: str
    """metrics_missing, metrics_late, metrics_invalid, metrics_contradict, at_max_instances, budget_reached, ..."""
    text: str
    """A sentence that says what to look at."""


class Decision(NamedTuple):
    """How many replicas there should be. The first reason is the one that decided."""

    time_s: float
    target: int
    reasons: tuple[Reason, ...] = ()
    alerts: tuple[Alert, ...] = ()
    forecast: float | None = None
    """What the policy expects the demand to be when replicas that are ordered now would serve, in replicas."""
    demand: float | None = None
    """The demand now, in replicas."""
