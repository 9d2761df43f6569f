"""SpotHedge, the peer: the policy of SkyServe, rebuilt from what its paper and its released code say.

Mao et al., "SkyServe: Serving AI Models across Regions and Clouds with Spot Instances", EuroSys 2025 (arXiv
2411.01438), and `sky/serve/spot_placer.py` of github.com/skypilot-org/skypilot.

- Placement: zones are active (Z_A) or preempting (Z_P). A preemption, or a launch that fails, moves its zone to Z_P; a
  launch that comes off moves it back; when fewer than two are active, all become active again. The next replica goes to
  the cheapest active zone that has none, or to the cheapest active one where all have some.
- Over-provision: N_extra spot replicas more than the target are kept.
- Fallback: with S_r spot replicas ready, min(target, target + N_extra - S_r) machines on demand are kept.

What they leave open, and what is done here:

1. Zones of one price. The one with the fewest replicas is taken, then the first. With `spread`, the fewest replicas
   come before the price even where all zones have some: the code as written puts everything in one cheapest zone.
2. Which spot replicas go when the target falls. Those of the fullest zone.
3. Whether a launch counts when it is granted or when the replica serves. When it is granted.
4. How soon a failed launch is tried again. At once, elsewhere: as often as the simulator asks.
5. Notices of interruption. They are not used.
6. Replicas that sit together when zones come back. They stay: nothing is ever moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.gpu.scaling.decision import Reason
from textnlp_fast.gpu.scaling.spot.market import ON_DEMAND, Mix, SpotObservation

__all__ = ["SpotHedge"]


class SpotHedge:
    """SpotHedge with `extra` replicas more than the target."""

    def __init__(self, *, extra: int = 1, spread: bool = False) -> None:
        if extra < 0:
            raise InvalidInputError(f"extra={extra} is negative")
        self.extra, self.spread = extra, spread
        self.preempting: list[str] = []
        """Z_P. All other zones are Z_A."""
        self._target = 0

    @property
    def name(self) -> str:
        return f"spothedge+{self.extra}{' spread' if self.spread else ''}"

    def decide(self, observation: SpotObservation) -> Mix:
        names = [one.zone for one in observation.zones]
        for one in observation.zones:
            if one.launched and one.zone in self.preempting:
                self.preempting.remove(one.zone)
        for one in observation.zones:
            if one.preempted or one.refused:
                self._preempted(one.zone, names)
        if observation.target is not None:
            self._target = observation.target
        target = self._target
        held = {one.zone: one.ready + one.starting for one in observation.zones}
        price = {one.zone: one.usd_per_hour or 0.0 for one in observation.zones}
        total, wanted = sum(held.values()), target + self.extra if target else 0
        while total < wanted:
            zone = self._next_zone(names, held, price)
            if zone is None:
                break
            held[zone] += 1
            total += 1
        while total > wanted:
            held[max(names, key=lambda name: held[name])] -= 1
            total -= 1
        ready = sum(one.ready for one in observation.zones)
        on_demand = max(0, min(target, wanted - ready))
        why = Reason(
            "fallback",
            on_demand,
            "{ready:.0f} of {wanted:.0f} spot replicas serve",
            (("ready", ready), ("wanted", wanted)),
        )
        return Mix(observation.time_s, tuple(held.items()), on_demand, (ON_DEMAND,), (why,))

    def _preempted(self, zone: str, names: list[str]) -> None:
        if zone not in self.preempting:
            self.preempting.append(zone)
        if len(names) - len(self.preempting) < 2:
            self.preempting.clear()

    def _next_zone(self, names: list[str], held: Mapping[str, int], price: Mapping[str, float]) -> str | None:
        active = [name for name in names if name not in self.preempting]
        if not active:
            return None
        free = [name for name in active if not held[name]]
        if free:
            return min(free, key=lambda name: price[name])
        if self.spread:
            return min(active, key=lambda name: (held[name], price[name]))
        return min(active, key=lambda name: (price[name], held[name]))

    def snapshot(self) -> Mapping[str, Any]:
        return {"preempting": list(self.preempting), "target": self._target}

    def restore(self, state: Mapping[str, Any]) -> None:
        try:
            preempting, target = list(state["preempting"]), state["target"]
        except (KeyError, TypeError) as error:
            raise CorruptDataError(f"this is no state of SpotHedge: {error!r}") from None
        if not all(isinstance(one, str) for one in preempting) or type(target) is not int or target < 0:
            raise CorruptDataError(
                "this is no state of SpotHedge: zones are names, the target is a whole number"
            )
        self.preempting, self._target = preempting, target
