"""A mix, carried out by the resource manager: what is missing is acquired, what is too much is drained, then ended.

Nothing is remembered here but a decision's name: machines are known by their tag, those that drain by their mark, and
what is launched carries the decision and the place in its key. So a decision said again, by another process too, finds
what the first one launched and launches the rest alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from textnlp_fast.config import Settings
from textnlp_fast.errors import (
    CapacityError,
    InstanceNotFoundError,
    InvalidInputError,
    NoPlanError,
    PriceTooHighError,
    QuotaError,
    TextnlpFastError,
)
from textnlp_fast.gpu.providers.contract import InstanceState, Provider
from textnlp_fast.gpu.resources.acquiring import acquisition_of
from textnlp_fast.gpu.resources.fleet import FleetInstance
from textnlp_fast.gpu.resources.manager import GPUResourceManager
from textnlp_fast.gpu.resources.requests import AcquireRequest, MarketChoice
from textnlp_fast.gpu.scaling.actuators.contract import Drain, Replica
from textnlp_fast.gpu.scaling.actuators.groups import DRAINING_TAG, mark_of
from textnlp_fast.gpu.scaling.spot.market import ON_DEMAND, Mix, SpotObservation, ZoneMarket
from textnlp_fast.gpu.scaling.spot.settings import SpotSettings
from textnlp_fast.gpu.types import Market

__all__ = ["SPOT_FLEET_TAG", "Acted", "SpotFleet", "spot_settings"]

SPOT_FLEET_TAG: Final = "textnlp-fast-spot-fleet"
_NAME: Final = re.compile(r"[a-z][-a-z0-9]{0,62}", re.ASCII)
_REFUSED: Final = (CapacityError, NoPlanError, PriceTooHighError, QuotaError)


def spot_settings(settings: Settings, **fields: Any) -> SpotSettings:
    """Settings of a mix, with spot as `enable_spot_instances` (ENABLE_SPOT_INSTANCES) allows it."""
    return SpotSettings(**{"spot": settings.enable_spot_instances, **fields})


@dataclass(frozen=True, kw_only=True)
class Acted:
    """What came of a mix."""

    launched: tuple[FleetInstance, ...] = ()
    drained: tuple[str, ...] = ()
    """Machines that were told to drain now."""
    ended: tuple[str, ...] = ()
    problems: tuple[tuple[str, TextnlpFastError], ...] = ()
    """Places whose launches failed, and why. The next observation says which were refused."""


@dataclass(kw_only=True)
class SpotFleet:
    """The machines of one region's `provider` under `name`, on spot in `zones` and on demand in any of them.

    `wish` takes the other fields of a request (gpu_types, instance_types, image, disk_gib, user_data, ...). `drain` is
    asked until it says that a machine is empty, for `drain_s` at most; without it a machine counts as empty. `serves`
    says whether a machine's replica answers; without it one that runs does. `notices` names machines under notice:
    they are marked at once, so that they get no more requests, and end by themselves.
    """

    manager: GPUResourceManager
    provider: Provider
    zones: Sequence[str]
    name: str = "llm"
    wish: dict[str, Any] = field(default_factory=dict)
    drain: Drain | None = None
    drain_s: float = 600.0
    serves: Callable[[FleetInstance], bool] | None = None
    notices: Callable[[], Collection[str]] | None = None
    _refused: Counter[str] = field(default_factory=Counter, init=False)
    _launched: Counter[str] = field(default_factory=Counter, init=False)
    _told: set[str] | None = field(default=None, init=False)
    _prices: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidInputError(
                f"{self.name!r:.100} names no fleet", hint="Use a-z, 0-9 and '-', a letter first."
            )
        if not self.zones or len(set(self.zones)) != len(self.zones):
            raise InvalidInputError(
                "zones must be named, each once", hint="The provider's zones() lists them."
            )
        self._request(ON_DEMAND)  # what cannot be asked for is refused now
        self._find_prices()

    # --- what is there ----------------------------------------------------------------------------------------

    def observe(self, *, time_s: float, target: int | None) -> SpotObservation:
        """The fleet as the policy sees it. Raises the provider's error where the region does not answer."""
        machines = [one for one in self._machines() if one.instance.tags.get(DRAINING_TAG) is None]
        noticed = set(self.notices()) if self.notices is not None else set()
        lost = self._lost()
        zones = []
        for zone in self.zones:
            here = [
                one for one in machines if one.instance.market is Market.SPOT and one.instance.zone == zone
            ]
            ready = sum(map(self._serves, here))
            zones.append(
                ZoneMarket(
                    zone,
                    self.provider.region,
                    self._prices.get(zone),
                    ready,
                    len(here) - ready,
                    self._launched[zone],
                    self._refused[zone],
                    lost[zone],
                    sum(one.instance_id in noticed for one in here),
                )
            )
        rest = [one for one in machines if one.instance.market is not Market.SPOT]
        ready = sum(map(self._serves, rest))
        refused = self._refused[ON_DEMAND]
        self._launched.clear()
        self._refused.clear()
        price = self._prices.get(ON_DEMAND)
        return SpotObservation(time_s, target, tuple(zones), ready, len(rest) - ready, price, refused)

    def _machines(self) -> list[FleetInstance]:
        place = (self.provider.name, self.provider.region)
        for problem in self.manager.settle():
            if problem.place == place:
                raise problem.error
        return [
            one
            for one in self.manager.list()
            if (one.provider, one.region) == place
            and one.instance.tags.get(SPOT_FLEET_TAG) == self.name
            and one.instance.state in (InstanceState.PENDING, InstanceState.RUNNING)
        ]

    def _serves(self, one: FleetInstance) -> bool:
        running = one.instance.state is InstanceState.RUNNING
        return running if self.serves is None else running and self.serves(one)

    def _lost(self) -> Counter[str]:
        """Spot machines that ended and that nobody wanted to end, since the last time; by zone."""
        lost = {
            one.instance_id: one.zone or ""
            for record in self.manager.journal.records()
            if record.market is Market.SPOT and record.tags.get(SPOT_FLEET_TAG) == self.name
            for one in record.instances
            if not one.state.alive and one.wanted is InstanceState.RUNNING
        }
        told, self._told = self._told, set(lost)
        # What a process before this one saw go is no news.
        return Counter() if told is None else Counter(zone for name, zone in lost.items() if name not in told)

    # --- what is done -----------------------------------------------------------------------------------------

    def act(self, mix: Mix, *, decision_id: str, now_s: float) -> Acted:
        """Goes towards the mix. Losses come first: launches before ends. Where spot is switched off in the settings,
        whatever the mix says of spot is had on demand. `now_s` is the time by which drains are measured."""
        wanted = Counter(dict(mix.spot)) if self.manager.settings.enable_spot_instances else Counter[str]()
        wanted[ON_DEMAND] = mix.total - sum(wanted.values())
        machines = self._machines()
        noticed = set(self.notices()) if self.notices is not None else set()
        staying = [
            one
            for one in machines
            if one.instance.tags.get(DRAINING_TAG) is None and one.instance_id not in noticed
        ]
        held: dict[str, list[FleetInstance]] = {}
        for one in staying:
            held.setdefault(self._place(one), []).append(one)
        launched: list[FleetInstance] = []
        problems: list[tuple[str, TextnlpFastError]] = []
        for place, count in sorted(wanted.items()):
            missing = count - len(held.get(place, ()))
            if missing > 0:
                self._launch(place, missing, decision_id, machines, launched, problems)
        order = {place: at for at, place in enumerate(mix.drain)}
        going = [
            one
            for one in machines
            if one.instance_id in noticed and one.instance.tags.get(DRAINING_TAG) is None
        ]
        for place in sorted(held, key=lambda name: (order.get(name, len(order)), name)):
            surplus = len(held[place]) - wanted[place]
            if surplus > 0:
                newest = sorted(held[place], key=lambda one: one.instance.launched_at, reverse=True)
                going += sorted(newest, key=self._serves)[:surplus]
        for one in going:
            self._mark(one, now_s)
        ended = self._end(machines, {one.instance_id for one in going}, noticed, now_s)
        drained = tuple(one.instance_id for one in going)
        return Acted(launched=tuple(launched), drained=drained, ended=ended, problems=tuple(problems))

    def _launch(
        self,
        place: str,
        missing: int,
        decision_id: str,
        machines: Sequence[FleetInstance],
        launched: list[FleetInstance],
        problems: list[tuple[str, TextnlpFastError]],
    ) -> None:
        key = f"spot/{self.name}/{decision_id}/{place}"
        mine = acquisition_of(self.manager.owner, key)
        before = {one.instance_id for one in machines if one.launch_id.rpartition("-")[0] == mine}
        try:
            found = self.manager.acquire(
                self._request(
                    place,
                    key=key,
                    instances=len(before) + missing,
                    min_instances=min(len(before) + 1, len(before) + missing),
                    spread=True,
                )
            )
        except TextnlpFastError as error:
            problems.append((place, error))
            self._refused[place] += missing * isinstance(error, _REFUSED)
            return
        new = [one for one in found if one.instance_id not in before]
        launched += new
        self._launched[place] += len(new)
        self._refused[place] += missing - len(new)

    def _mark(self, one: FleetInstance, now_s: float) -> None:
        try:
            self.provider.tag([one.instance_id], {DRAINING_TAG: str(int(now_s))})
        except InstanceNotFoundError:
            return  # gone since: the next look says so

    def _end(
        self,
        machines: Sequence[FleetInstance],
        going: Collection[str],
        noticed: Collection[str],
        now_s: float,
    ) -> tuple[str, ...]:
        """Ends what drains and is empty, or has drained for too long. What is under notice is left to its provider."""
        ended = []
        for one in machines:
            since_s = now_s if one.instance_id in going else mark_of(one.instance.tags.get(DRAINING_TAG))
            if since_s is None:
                continue
            left_s = self.drain_s - (now_s - since_s)
            replica = Replica(
                replica_id=one.instance_id,
                state="draining",
                zone=one.instance.zone,
                spot=one.instance.market is Market.SPOT,
                address=one.instance.private_ip or one.instance.public_ip,
            )
            empty = self.drain is None or self.drain(replica, max(0.0, left_s))
            if one.instance_id not in noticed and (empty or left_s <= 0):
                ended.append(one.instance_id)
        return tuple(self.manager.release(ended)) if ended else ()

    # --- inside -----------------------------------------------------------------------------------------------

    def _place(self, one: FleetInstance) -> str:
        return one.instance.zone or "" if one.instance.market is Market.SPOT else ON_DEMAND

    def _request(self, place: str, **more: Any) -> AcquireRequest:
        market: MarketChoice = "on-demand" if place == ON_DEMAND else "spot"
        return self.manager.request(
            **{
                **self.wish,
                "market": market,
                "providers": (self.provider.name,),
                "regions": (self.provider.region,),
                "zones": tuple(self.zones) if place == ON_DEMAND else (place,),
                "tags": {**self.wish.get("tags", {}), SPOT_FLEET_TAG: self.name},
                **more,
            }
        )

    def _find_prices(self) -> None:
        """What the cheapest machine that fits costs in each zone; a zone without an offer has none."""
        for place in (ON_DEMAND, *self.zones):
            try:
                plan = self.manager.plan(self._request(place))
            except _REFUSED:
                continue
            if plan.candidates:
                self._prices[place] = min(float(one.usd_per_hour) for one in plan.candidates)
