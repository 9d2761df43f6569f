"""How long zones last: learned while machines are held there, from a prior that says what spot usually does.

A zone's danger falls with its age: of recorded zones, one that has just come up goes within the hour as likely as not,
one that has been up for days goes within the hour with one chance in fifty. So a rate is kept for each power of two of
the age, for all zones together, and a factor for each zone. The prior is Pareto's law: the rate at age a is
`index / (a + scale)`. All are Gamma-Poisson: what was seen is weighed against a few made-up observations.

Zones of a region go together more often than chance says; how often, is counted in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from textnlp_fast.gpu.scaling.numbers import number

__all__ = ["Survival", "ZoneFacts"]

_INDEX, _SCALE_S, _LONGEST_S = 0.5, 600.0, 4 * 86400.0
"""The prior's rate: 3 an hour for a new zone, one in four days for one of two days' age."""
_BUCKETS = 16
_FIRST_S = 120.0
"""Ages below this are one bucket; the last begins at 2**15 times half of it, three weeks."""
_PRIOR_EVENTS = 4.0
"""How many events the prior counts for in each bucket."""
_ZONE_EVENTS = 4.0
"""The same of a zone's factor, whose prior is one."""
_PAIR_PRIOR = {True: (3.0, 15.0), False: (0.5, 25.0)}
"""Of two zones of one region, and of two regions: how often the second goes with the first, and out of how many."""
_LEAST_FACTOR, _MOST_FACTOR = 0.4, 4.0


class ZoneFacts(NamedTuple):
    """What is known of one zone. Times are those of observations."""

    up_since_s: float | None = None
    """Since when it is thought to be up; None: it is thought to be down, or nothing is known."""
    up_seen_s: float | None = None
    """When it was last seen up."""
    down_since_s: float | None = None
    """Since when it is down; None while it is up."""
    down_seen_s: float | None = None
    """When it was last seen down."""
    lost_s: float | None = None
    """When machines were last taken there."""
    events: float = 0.0
    expected: float = 0.0


class Survival:
    """Rates of loss by age, factors by zone, and how zones go together."""

    def __init__(self) -> None:
        self.zones: dict[str, ZoneFacts] = {}
        self.events = [0.0] * _BUCKETS
        self.exposed_s = [0.0] * _BUCKETS
        self.pairs = {True: [0.0, 0.0], False: [0.0, 0.0]}
        self._rates: list[float] | None = None

    # --- what is seen -----------------------------------------------------------------------------------------

    def held(self, zone: str, now_s: float, over_s: float, *, lost: bool) -> None:
        """Machines were held there for the `over_s` before now; `lost`: some were taken."""
        facts = self.zones.get(zone, ZoneFacts())
        age_s = max(
            0.0, now_s - over_s - (facts.up_since_s if facts.up_since_s is not None else now_s - over_s)
        )
        bucket = _bucket(age_s)
        expected = facts.expected + self._rate(bucket) * over_s
        self.exposed_s[bucket] += over_s
        self.events[bucket] += lost
        self._rates = None
        self.zones[zone] = facts._replace(
            events=facts.events + lost, expected=expected, lost_s=now_s if lost else facts.lost_s
        )

    def up(self, zone: str, now_s: float) -> None:
        """The zone gave a machine, or still has ours."""
        facts = self.zones.get(zone, ZoneFacts())
        since_s = facts.up_since_s
        if since_s is not None and facts.up_seen_s is not None:
            # Nobody looked for a while: after as long as it had lasted, it may have gone and come back.
            unseen_s = now_s - facts.up_seen_s
            if unseen_s > max(facts.up_seen_s - since_s, 2 * _FIRST_S):
                since_s = now_s - unseen_s / 4
        elif since_s is None:
            seen_s = facts.down_seen_s
            since_s = now_s if seen_s is None else now_s - (now_s - seen_s) / 4
        self.zones[zone] = facts._replace(up_since_s=since_s, up_seen_s=now_s, down_since_s=None)

    def down(self, zone: str, now_s: float) -> None:
        """The zone took machines away or refused one."""
        facts = self.zones.get(zone, ZoneFacts())
        since_s = now_s if facts.down_since_s is None else facts.down_since_s
        self.zones[zone] = facts._replace(up_since_s=None, down_since_s=since_s, down_seen_s=now_s)

    def went_together(
        self,
        lost: Iterable[str],
        others: Iterable[str],
        regions: Mapping[str, str],
        within_s: float,
        now_s: float,
    ) -> None:
        """`lost` are zones that just went, `others` those with machines that did not."""
        lost = list(lost)
        recent = [
            name
            for name, facts in self.zones.items()
            if facts.lost_s is not None
            and 0 < now_s - facts.lost_s <= within_s
            and name not in lost
            and name in regions
        ]
        others = [name for name in others if name not in recent]
        for zone in lost:
            for name, joint in [(one, 1.0) for one in (*lost, *recent) if one != zone] + [
                (one, 0.0) for one in others
            ]:
                pair = self.pairs[regions[name] == regions[zone]]
                pair[0] += joint
                pair[1] += 1.0

    # --- what is thought --------------------------------------------------------------------------------------

    def age_s(self, zone: str, now_s: float) -> float:
        """For how long the zone has been up; 0 where it is down or not known."""
        facts = self.zones.get(zone)
        if facts is None or facts.up_since_s is None or facts.up_seen_s is None:
            return 0.0
        unseen_s = now_s - facts.up_seen_s
        age_s = now_s - facts.up_since_s
        return age_s if unseen_s <= max(facts.up_seen_s - facts.up_since_s, 2 * _FIRST_S) else unseen_s / 4

    def loss(self, zone: str, now_s: float, within_s: float) -> float:
        """How likely the zone goes within that time, if it is up now."""
        age_s = self.age_s(zone, now_s)
        facts = self.zones.get(zone, ZoneFacts())
        factor = (facts.events + _ZONE_EVENTS) / (facts.expected + _ZONE_EVENTS)
        factor = min(max(factor, _LEAST_FACTOR), _MOST_FACTOR)
        rate = self._rate(_bucket(age_s + within_s / 2))
        return 1.0 - math.exp(-min(rate * factor * within_s, 50.0))

    def together(self, *, same_region: bool) -> float:
        """How likely one of two zones goes if the other does."""
        (prior, out_of), (seen, tried) = _PAIR_PRIOR[same_region], self.pairs[same_region]
        return (prior + seen) / (out_of + tried)

    def retry_s(self, zone: str) -> float:
        """How long after a refusal it is asked again: the longer it is down, the longer."""
        facts = self.zones.get(zone)
        if facts is None or facts.down_since_s is None or facts.down_seen_s is None:
            return 0.0
        return min(max((facts.down_seen_s - facts.down_since_s) / 8, 60.0), 900.0)

    def _rate(self, bucket: int) -> float:
        if self._rates is None:
            self._rates = [
                (events + _PRIOR_EVENTS) / (exposed_s + _PRIOR_EVENTS / prior)
                for events, exposed_s, prior in zip(self.events, self.exposed_s, _PRIOR_RATES, strict=True)
            ]
        return self._rates[bucket]

    # --- kept -------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        return {
            "zones": {name: list(facts) for name, facts in self.zones.items()},
            "events": list(self.events),
            "exposed_s": list(self.exposed_s),
            "pairs": [list(self.pairs[True]), list(self.pairs[False])],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Survival:
        """The reverse. Raises KeyError, TypeError, ValueError for what is no snapshot."""
        made = cls()
        for name, facts in state["zones"].items():
            a, b, c, d, e = (None if one is None else number(one) for one in facts[:5])
            made.zones[str(name)] = ZoneFacts(a, b, c, d, e, number(facts[5]), number(facts[6]))
        made.events = [number(one) for one in state["events"]]
        made.exposed_s = [number(one) for one in state["exposed_s"]]
        same, other = ([number(one) for one in pair] for pair in state["pairs"])
        made.pairs = {True: same, False: other}
        if (
            len(made.events) != _BUCKETS
            or len(made.exposed_s) != _BUCKETS
            or len(same) != 2
            or len(other) != 2
        ):
            raise ValueError("a list has another length")
        return made


def _bucket(age_s: float) -> int:
    return 0 if age_s < _FIRST_S else min(int(math.log2(age_s / _FIRST_S)) + 1, _BUCKETS - 1)


def _middle_s(bucket: int) -> float:
    return _FIRST_S / 2 if bucket == 0 else _FIRST_S * 2 ** (bucket - 0.5)


_PRIOR_RATES = [_INDEX / (_middle_s(bucket) + _SCALE_S) + 1 / _LONGEST_S for bucket in range(_BUCKETS)]
