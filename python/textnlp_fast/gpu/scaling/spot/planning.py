"""Which machines to hold, all things weighed: candidates, what each costs, and how likely each falls short.

A candidate says how many spot machines each of a few zones has and how many there are on demand. It falls short when
the zones that go within the horizon take more than it has beyond the target. How likely that is, is summed over all
sets of zones: a zone goes alone, with its region, or with all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from textnlp_fast.gpu.scaling.spot.terms import Choice, Terms, ZoneChance

__all__ = ["choose"]

Numbers = NDArray[np.float64]


@lru_cache(maxsize=4096)
def choose(zones: tuple[ZoneChance, ...], terms: Terms) -> Choice:
    """The cheapest candidate, counting what a shortfall is worth and what changes cost. At most MOST_ZONES zones."""
    count = len(zones)
    held = [one.held for one in zones]
    tables = []
    by_loss = sorted(range(count), key=lambda at: (zones[at].loss, zones[at].usd_per_hour))
    by_price = sorted(range(count), key=lambda at: (zones[at].usd_per_hour, zones[at].loss))
    for order in dict.fromkeys((tuple(by_loss), tuple(by_price))):
        pattern = _patterns(terms.target, count)
        table = np.empty_like(pattern)
        table[:, list(order)] = pattern[:, :count]
        table[:, count] = pattern[:, count]
        tables.append(table)
    tables.append(_nearby(held, terms))
    table = np.concatenate(tables)
    table[:, :count] = np.minimum(table[:, :count], [one.most for one in zones])
    table[:, count] = np.maximum(table[:, count], terms.least_on_demand)
    total = table.sum(axis=1)
    enough = (total >= terms.target) & (total <= terms.most)
    spot = total - table[:, count]
    enough &= spot >= min(terms.least_spot, spot[enough].max(initial=0))
    if not enough.any():
        enough = total == min(int(total.max()), terms.most)
        enough |= total == total[total <= terms.most].max()
    table, total = table[enough], total[enough]
    prices = np.array([one.usd_per_hour for one in zones] + [terms.on_demand_usd_per_hour])
    running = table @ prices
    within = True
    if terms.budget_usd_per_hour is not None:
        fits = running <= terms.budget_usd_per_hour * (1 + 1e-9)
        within = bool(fits.any())
        if within:
            table, total, running = table[fits], total[fits], running[fits]
    shortfall = _shortfall(zones, table[:, :count], total - terms.target, terms)
    launched = np.maximum(table - [*held, terms.on_demand_held], 0) @ prices
    weighed = running + terms.shortfall_usd_per_hour * shortfall + terms.change_share * launched
    best = int(np.argmin(weighed))
    row = [int(one) for one in table[best]]
    return Choice(tuple(row[:count]), row[count], float(shortfall[best]), float(running[best]), within)


def _shortfall(zones: Sequence[ZoneChance], spot: Numbers, spare: Numbers, terms: Terms) -> Numbers:
    if not zones:
        return (spare < 0).astype(np.float64)
    members = _members(len(zones))
    lost = spot @ members.T
    short: Numbers = (lost > spare[:, None]) @ _chances(zones, terms, members)
    return short


def _chances(zones: Sequence[ZoneChance], terms: Terms, members: Numbers) -> Numbers:
    """How likely it is, for each set of zones, that just these go."""
    loss = np.array([min(max(one.loss, 1e-9), 0.999999) for one in zones])
    regions = sorted({one.region for one in zones})
    own = [[at for at, one in enumerate(zones) if one.region == region] for region in regions]
    everywhere = terms.other_region * float(loss.min()) if len(regions) > 1 else 0.0
    left = 1.0 - (1.0 - loss) / (1.0 - everywhere)
    product = np.ones(len(members))
    for inside in own:
        together = min(terms.same_region * float(left[inside].min()), 0.999) if len(inside) > 1 else 0.0
        alone = 1.0 - (1.0 - left[inside]) / (1.0 - together)
        part = members[:, inside]
        each = np.where(part > 0, alone, 1.0 - alone).prod(axis=1) * (1.0 - together)
        product *= each + together * (part.sum(axis=1) == len(inside))
    product *= 1.0 - everywhere
    product[-1] += everywhere
    return product


@lru_cache(maxsize=16)
def _members(count: int) -> Numbers:
    """All sets of `count` zones, a row each; the last one is that of all."""
    return ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(np.float64)


@lru_cache(maxsize=64)
def _patterns(target: int, count: int) -> Numbers:
    """Zones in an order, and machines on demand last: so many for each zone until there are enough."""
    rows = set()
    for on_demand in _steps(target, 6):
        for extra in _steps(target, 8):
            spot = target - on_demand + extra
            for each in _steps(spot, 8)[1:] if spot else (0,):
                row, left = [], spot
                for _ in range(count):
                    row.append(min(each, left))
                    left -= row[-1]
                if left == 0:
                    rows.add((*row, on_demand))
    rows.add((0,) * count + (target,))
    return np.array(sorted(rows), dtype=np.float64)


def _steps(most: int, count: int) -> tuple[int, ...]:
    """0 to `most`, about evenly, all of them where they are few."""
    return (
        tuple(range(most + 1))
        if most <= count
        else tuple(sorted({round(at * most / count) for at in range(count + 1)}))
    )


def _nearby(held: Sequence[int], terms: Terms) -> Numbers:
    """What is held, and a machine more or less here and there."""
    rows = [list(held)]
    for at in range(len(held)):
        for step in (-1, 1):
            if held[at] + step >= 0:
                rows.append([*held[:at], held[at] + step, *held[at + 1 :]])
    now, target = terms.on_demand_held, terms.target
    counts = sorted(
        {
            one
            for one in (0, now - 1, now, now + 1, target - sum(held), target)
            if 0 <= one <= max(target, now)
        }
    )
    return np.array([[*row, count] for row in rows for count in counts], dtype=np.float64)
