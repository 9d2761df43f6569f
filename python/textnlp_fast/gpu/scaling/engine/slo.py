"""The SLO's feedback: what a miss may cost follows how many of the allowed misses have been used.

The price is the chance of missing that the margin accepts at a load of one replica. It rises slowly while nothing is
missed, and falls at once with what is: in balance, misses are what the SLO allows. Integral control with bounds, so
that neither a year of quiet nor a broken meter turns the margins off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.gpu.scaling.numbers import number

__all__ = ["SloFeedback"]

_WINDOW_S: Final = 7 * 86400.0
_LOWEST: Final = -3.0
_HIGHEST: Final = 0.5
_BEGIN: Final = 5.0
"""Chance at a load of one replica, in allowed shares of misses, before anything is observed."""


class SloFeedback:
    """`price` for `margin.chance_at`."""

    __slots__ = ("_allowed", "_correction", "price")

    def __init__(self, attainment: float) -> None:
        self._allowed = 1.0 - attainment
        self._correction = 0.0
        self.price = _BEGIN * self._allowed

    def observe(self, attainment: float | None, elapsed_s: float, weight: float) -> None:
        """Takes in the share of a period's requests within the SLO; `weight` is its load over the usual."""
        if attainment is None or not 0.0 <= attainment <= 1.0:
            return
        spent = (1.0 - attainment) / self._allowed
        moved = elapsed_s / _WINDOW_S * weight * (1.0 - spent)
        self._correction = max(_LOWEST, min(_HIGHEST, self._correction + moved))
        self.price = _BEGIN * self._allowed * math.exp(self._correction)

    def snapshot(self) -> Mapping[str, Any]:
        return {"correction": self._correction}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._correction = max(_LOWEST, min(_HIGHEST, number(state["correction"])))
        self.price = _BEGIN * self._allowed * math.exp(self._correction)
