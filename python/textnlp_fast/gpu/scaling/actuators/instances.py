"""Plain machines, rented and given back by the resource manager: for clouds or cases without a group.

There is nobody who keeps a number: the fleet is what runs under its tag. What a decision launches carries the decision
in its launch ids, by way of the manager's journal, so that the decision said again finds its machines and launches
those alone that it lacks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from textnlp_fast.errors import InstanceNotFoundError, InvalidInputError
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.providers.contract import Instance, InstanceState, Provider
from textnlp_fast.gpu.resources.acquiring import acquisition_of
from textnlp_fast.gpu.resources.fleet import FleetInstance
from textnlp_fast.gpu.resources.manager import GPUResourceManager
from textnlp_fast.gpu.resources.requests import MarketChoice
from textnlp_fast.gpu.scaling.actuators.contract import Drain
from textnlp_fast.gpu.scaling.actuators.groups import DRAINING_TAG, GroupView, Member, mark_of
from textnlp_fast.gpu.scaling.actuators.reconciling import GroupActuator
from textnlp_fast.gpu.types import Market

__all__ = ["FLEET_TAG", "InstanceFleet"]

FLEET_TAG: Final = "textnlp-fast-fleet"
_NAME: Final = re.compile(r"[a-z][-a-z0-9]{0,62}", re.ASCII)
_STATES: Final = {
    InstanceState.PENDING: "starting",
    InstanceState.RUNNING: "ready",
    InstanceState.TERMINATING: "leaving",
}


class InstanceFleet(GroupActuator):
    """The machines of `provider` and `region` that carry `name` as their fleet.

    `gpu`, `gpu_count`, `market`, `image`, `disk_gib`, `max_usd_per_hour`, `user_data` say what is launched, as in a
    request to the manager; `manager` is one that exists, else one is made of `state` and `owner`, and
    `provider_options` go to its provider. A machine that was stopped is no replica. A replica counts as ready when its
    machine runs.
    """

    kind = "instances"

    def __init__(
        self,
        *,
        provider: str | Provider,
        region: str | None = None,
        name: str = "llm",
        gpu: str | None = None,
        gpu_count: float = 1.0,
        market: str | None = None,
        image: str | None = None,
        disk_gib: int = 100,
        max_usd_per_hour: float | None = None,
        user_data: str | None = None,
        state: str | None = None,
        owner: str | None = None,
        manager: GPUResourceManager | None = None,
        provider_options: Mapping[str, Any] | None = None,
        drain: Drain | None = None,
        drain_s: float = 600.0,
        give_up_s: float | None = None,
        deadline_s: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            patience=Patience(deadline_s=deadline_s),
            drain=drain,
            drain_s=drain_s,
            give_up_s=give_up_s,
            clock=clock,
        )
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInputError(
                f"{name!r:.100} names no fleet", hint="Use a-z, 0-9 and '-', a letter first."
            )
        self._name = name
        self._manager = manager or GPUResourceManager(state=state, owner=owner)
        self._machines = (
            self._manager.register_provider(provider, region, **(provider_options or {}))
            if isinstance(provider, str)
            else self._manager.add_provider(provider)
        )
        self._wish: dict[str, Any] = {
            "gpu_types": gpu,
            "gpu_count": gpu_count,
            "market": cast("MarketChoice | None", market),
            "image": image,
            "disk_gib": disk_gib,
            "max_usd_per_hour": max_usd_per_hour,
            "user_data": user_data,
            "providers": (self._machines.name,),
            "regions": (self._machines.region,),
            "tags": {FLEET_TAG: name},
        }
        self._manager.request(**self._wish)  # what cannot be asked for is refused now

    def _ours(self) -> list[FleetInstance]:
        place = (self._machines.name, self._machines.region)
        for problem in self._manager.settle():
            if problem.place == place:
                raise problem.error
        held = [one for one in self._manager.list(refresh=False) if (one.provider, one.region) == place]
        return [one for one in held if one.instance.tags.get(FLEET_TAG) == self._name]

    def _look(self, until: float) -> GroupView:
        held = self._ours()
        # The manager shows the journal where the cloud does not answer: marks are the cloud's alone.
        described = {
            one.instance_id: one for one in self._machines.describe([one.instance_id for one in held])
        }
        members = tuple(
            _member(described.get(one.instance_id, one.instance))
            for one in held
            if described.get(one.instance_id, one.instance).state in _STATES
        )
        return GroupView(told=sum(one.present for one in members), members=members)

    def _tell(self, view: GroupView, told: int, until: float) -> None:
        key = f"scale/{self._name}/{self._decision}"
        mine = acquisition_of(self._manager.owner, key)
        held = sum(
            one.launch_id.rpartition("-")[0] == mine and one.instance.state.alive for one in self._ours()
        )
        wanted = held + told - view.told
        self._manager.acquire(
            self._manager.request(
                **self._wish, key=key, instances=wanted, min_instances=min(held + 1, wanted), spread=True
            )
        )

    def _mark(self, members: Sequence[Member], at_s: float, until: float) -> None:
        for one in members:
            try:
                self._machines.tag([one.member_id], {DRAINING_TAG: str(int(at_s))})
            except InstanceNotFoundError:
                continue  # gone since

    def _may_lower(self, view: GroupView, told: int) -> bool:
        return False  # the number is what runs

    def _end(self, member: Member, *, told: int, shrink: bool, until: float) -> None:
        self._manager.release([member.member_id])


def _member(one: Instance) -> Member:
    return Member(
        member_id=one.instance_id,
        state=_STATES[one.state],  # type: ignore[arg-type]
        marked_at_s=mark_of(one.tags.get(DRAINING_TAG)),
        created_at_s=one.launched_at.timestamp(),
        zone=one.zone,
        spot=one.market is Market.SPOT,
        address=one.private_ip or one.public_ip,
    )
