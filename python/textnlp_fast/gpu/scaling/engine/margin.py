"""How many replicas a forecast with a known error needs, so that few enough requests wait.

Two things stand above the expected load. The load may come out higher: its logarithm errs by a standard deviation
sigma. And requests come in bursts: with n replicas under a load of r, work waits longer than w seconds with probability
exp(-2 n (n - r) w / V), V being the variance of arriving work a second (the diffusion limit of a single queue, Kingman
1962). Both at once are rarer than each, so their margins are added as independent errors are.

A replica more is worth what it saves: requests in proportion to the load. So the chance of missing that is accepted
falls with the load, as in the newsvendor's problem: the same price buys a saved request everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Final

__all__ = ["chance_at", "replicas_for"]

_QUANTILE: Callable[[float], float] = NormalDist().inv_cdf
_LEAST_LOAD: Final = 0.5
_MOST_CHANCE: Final = 0.4
_LEAST_CHANCE: Final = 1e-7


def chance_at(load: float, price: float, weight: float) -> float:
    """The chance of missing that is accepted at a load, in replicas."""
    chance: float = price / max(load, _LEAST_LOAD) ** weight
    return min(_MOST_CHANCE, max(_LEAST_CHANCE, chance))


def replicas_for(load: float, sigma: float, burst: float, chance: float, wait_s: float) -> float:
    """Replicas that a load needs: `sigma` is its error's, in logarithms; `burst` is V, in replica-seconds² a second."""
    error = load * math.expm1(_QUANTILE(1.0 - chance) * sigma)
    queue = 0.5 * (math.sqrt(load * load - 2.0 * burst * math.log(chance) / wait_s) - load)
    return load + math.sqrt(error * error + queue * queue)
