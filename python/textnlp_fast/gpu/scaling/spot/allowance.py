"""What a shortfall is worth: as much as it takes that the time below target is what is allowed, and no more.

An integral controller. Half of what counts is what happened, half what was expected: what happens is rare and comes in
lumps, what is expected may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["Allowance"]

_AIM = 0.75
"""Of what is allowed: the controller comes out on either side of what it aims at."""
_UNIT_S = 2 * 86400.0
"""An e-fold of the worth for each two days' allowance that was overdrawn or is left."""
_MOST_UNITS = 2.5
_FIRST = 1.3
"""The worth where nothing is overdrawn, in hours on demand, times the share of time that is allowed."""


class Allowance:
    """Time below target that is overdrawn (or, negative, left)."""

    def __init__(self, availability: float) -> None:
        self.allowed = max(1.0 - availability, 1e-6)
        self.overdrawn_s = 0.0

    def spend(self, over_s: float, *, short: bool, expected: float) -> None:
        """`over_s` have gone by: whether they were below target, and how likely that was thought to be."""
        self.overdrawn_s += over_s * ((short + expected) / 2 - _AIM * self.allowed)
        most = _MOST_UNITS * _UNIT_S * self.allowed
        self.overdrawn_s = min(max(self.overdrawn_s, -most), most)

    @property
    def worth(self) -> float:
        """Hours of a machine on demand that an hour below target costs."""
        return _FIRST / self.allowed * math.exp(self.overdrawn_s / (_UNIT_S * self.allowed))

    def snapshot(self) -> Mapping[str, Any]:
        return {"overdrawn_s": self.overdrawn_s}
