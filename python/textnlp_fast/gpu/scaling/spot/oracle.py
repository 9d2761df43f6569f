"""What somebody who knows the future would pay: a bound below which no policy comes.

Replicas do not hinder each other where a zone that is up gives any number, so each is bought by itself, on the cheapest
path through time: it stays where it is at its price, or goes to another place, which must have been up for the cold
start before, and is paid for during it. Where nothing is wanted nothing is held. Machines on demand are ordered in
time. At the very beginning, within one cold start, nobody can serve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from textnlp_fast.gpu.scaling.spot.simulate import Costs
from textnlp_fast.gpu.scaling.spot.traces import Traces

__all__ = ["oracle_usd"]


def oracle_usd(
    traces: Traces, *, target: int | Sequence[int], cold_start_s: float = 180.0, costs: Costs | None = None
) -> float:
    """The least USD for being at target at every tick after the first cold start, capacities being 0 or any."""
    costs = costs or Costs()
    targets = [target] * traces.ticks if isinstance(target, int) else list(target)
    usd, paths = 0.0, {}
    for replica in range(max(targets)):
        wanted = tuple(one > replica for one in targets)
        if wanted not in paths:
            paths[wanted] = _path_usd(traces, wanted, cold_start_s, costs)
        usd += paths[wanted]
    return usd


def _path_usd(traces: Traces, wanted: Sequence[bool], cold_start_s: float, costs: Costs) -> float:
    hours = traces.gap_s / 3600
    ahead = max(1, math.ceil(cold_start_s / traces.gap_s))
    prices = [costs.of(one.region) * hours for one in traces.zones] + [costs.on_demand * hours]
    places = len(prices)
    # What it costs to serve up to and with this tick, ending in a place; the last is to have nothing.
    least = [math.inf] * places
    nothing = 0.0
    up_for = [0] * places
    for tick, needed in enumerate(wanted):
        for at, one in enumerate(traces.zones):
            up_for[at] = up_for[at] + 1 if one.capacity[tick] else 0
        up_for[-1] = tick + 1
        best = min(nothing, *least)
        free = not needed or tick < ahead
        # Serving at this tick means: paid since the tick before, or since the order.
        least = [
            min(least[at] + prices[at], best + ahead * prices[at]) if up_for[at] > ahead else math.inf
            for at in range(places)
        ]
        # To stay through a tick of being up only keeps what served before.
        nothing = best if free else math.inf
    return min(nothing, *least)
