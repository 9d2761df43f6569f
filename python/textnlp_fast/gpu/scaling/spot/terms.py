"""The words of a plan: zones that could be used, what they are weighed by, and the choice."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["MOST_ZONES", "Choice", "Terms", "ZoneChance", "rounded"]

#: Zones that one plan weighs: 2**6 sets of them.
MOST_ZONES = 6


class ZoneChance(NamedTuple):
    """A zone that could be used."""

    zone: str
    region: str
    usd_per_hour: float
    loss: float
    """How likely it goes within the horizon."""
    held: int
    """Machines there that stay if nothing happens."""
    most: int
    """Machines that it is thought to give."""


class Terms(NamedTuple):
    """What a plan is weighed by."""

    target: int
    most: int
    """Machines in all."""
    on_demand_usd_per_hour: float
    on_demand_held: int
    least_on_demand: int
    shortfall_usd_per_hour: float
    """What an hour below target is worth."""
    change_share: float
    """What a launch costs, as a share of an hour's price of its machine."""
    same_region: float
    other_region: float
    """How likely a zone goes if another does."""
    least_spot: int = 0
    """Spot machines that are held if there are zones for them: only what is held grows old."""
    budget_usd_per_hour: float | None = None


class Choice(NamedTuple):
    """The best candidate."""

    spot: tuple[int, ...]
    """For each of the zones that were given."""
    on_demand: int
    shortfall: float
    """How likely it falls short within the horizon."""
    usd_per_hour: float
    within_budget: bool = True


def rounded(value: float) -> float:
    """To one of twelve steps from a number to its double: what differs by less is planned alike, and once."""
    return 2.0 ** (round(math.log2(value) * 12) / 12) if value > 0 else 0.0
