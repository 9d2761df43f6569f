"""A virtual machine scale set of Azure, in uniform orchestration.

More replicas are the capacity of the set's size, changed under the set's ETag. Fewer are chosen here: each that has to
go carries a tag, drains, and is ended by the set's own delete of instances, which takes its place out of the capacity.
The capacity is never lowered by itself, for then the set would choose.

API: https://learn.microsoft.com/rest/api/compute/virtual-machine-scale-sets and .../virtual-machine-scale-set-vms
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from textnlp_fast.errors import InstanceNotFoundError, InvalidInputError, ObjectNotFoundError
from textnlp_fast.gpu.providers.azure_client import Arm
from textnlp_fast.gpu.providers.azure_requests import moment
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.scaling.actuators.contract import Drain
from textnlp_fast.gpu.scaling.actuators.groups import DRAINING_TAG, GroupView, Member, mark_of
from textnlp_fast.gpu.scaling.actuators.reconciling import GroupActuator

__all__ = ["AzureScaleSet"]

_SETS: Final = "virtual_machine_scale_sets"
_MACHINES: Final = "virtual_machine_scale_set_vms"


class AzureScaleSet(GroupActuator):
    """The scale set `name`. Credentials are azure-identity's default ones, or `credential`.

    Where the set has the application health extension, a machine is ready when that says so, else when it runs. Sets in
    flexible orchestration are refused: their machines are marked and ended by other requests.
    """

    kind = "azure-vmss"
    overshoots = True  # with overprovisioning

    def __init__(
        self,
        *,
        subscription: str,
        resource_group: str,
        name: str,
        drain: Drain | None = None,
        drain_s: float = 600.0,
        give_up_s: float | None = None,
        credential: Any = None,
        endpoint_url: str | None = None,
        timeout_s: float = 30.0,
        deadline_s: float = 120.0,
        retries: int = 5,
        first_pause_s: float = 0.3,
        clock: Callable[[], float] = time.time,
    ) -> None:
        patience = Patience(
            timeout_s=timeout_s, deadline_s=deadline_s, retries=retries, first_pause_s=first_pause_s
        )
        super().__init__(patience=patience, drain=drain, drain_s=drain_s, give_up_s=give_up_s, clock=clock)
        self._name = name
        self._arm = Arm(
            f"{resource_group}/{name}",
            subscription=subscription,
            resource_group=resource_group,
            credential=credential,
            endpoint_url=endpoint_url,
            patience=patience,
        )
        self._sku: dict[str, Any] = {}

    def _look(self, until: float) -> GroupView:
        try:
            found = self._arm.get(_SETS, self._name, until=until)
        except InstanceNotFoundError as error:
            raise ObjectNotFoundError(
                f"there is no scale set {self._name!r}", hint="`az vmss list` shows what there is."
            ) from error
        if (found.get("properties") or {}).get("orchestrationMode") == "Flexible":
            raise InvalidInputError(
                f"the scale set {self._name} is in flexible orchestration",
                hint="Use one in uniform orchestration, or the actuator `instances`.",
            )
        self._sku = dict(found.get("sku") or {})
        machines = self._arm.pages(_MACHINES, self._name, until=until, expand="instanceView")
        return GroupView(
            told=int(self._sku.get("capacity") or 0),
            members=tuple(_member(one) for one in machines),
            version=found.get("etag"),
        )

    def _may_lower(self, view: GroupView, told: int) -> bool:
        return False  # the set would choose

    def _tell(self, view: GroupView, told: int, until: float) -> None:
        condition = self._arm.if_unchanged(view.version) if view.version else {}
        change = {"sku": {**self._sku, "capacity": told}}
        self._arm.ask(_SETS, "begin_update", self._name, change, until=until, **condition)

    def _mark(self, members: Sequence[Member], at_s: float, until: float) -> None:
        for one in members:
            try:
                found = self._arm.ask(_MACHINES, "get", self._name, one.member_id, until=until).as_dict()
                change = {
                    "location": found["location"],
                    "tags": {**(found.get("tags") or {}), DRAINING_TAG: str(int(at_s))},
                }
                condition = self._arm.if_unchanged(found["etag"]) if found.get("etag") else {}
                self._arm.ask(
                    _MACHINES, "begin_update", self._name, one.member_id, change, until=until, **condition
                )
            except InstanceNotFoundError:
                continue  # gone since

    def _end(self, member: Member, *, told: int, shrink: bool, until: float) -> None:
        try:
            who = {"instanceIds": [member.member_id]}
            self._arm.ask(_SETS, "begin_delete_instances", self._name, who, until=until)
        except (InvalidInputError, InstanceNotFoundError):
            # An id that is no active machine's is an error: after a lost answer it is as it should be.
            if self._is_there(member, until):
                raise


def _member(machine: dict[str, Any]) -> Member:
    properties = machine.get("properties") or {}
    created = properties.get("timeCreated")
    return Member(
        member_id=str(machine["instanceId"]),
        state=_state(properties),
        marked_at_s=mark_of((machine.get("tags") or {}).get(DRAINING_TAG)),
        created_at_s=moment(created).timestamp() if created else 0.0,
        zone=next(iter(machine.get("zones") or ()), None),
        version=machine.get("etag"),
    )


def _state(properties: dict[str, Any]) -> Literal["starting", "ready", "leaving"]:
    if properties.get("provisioningState") == "Deleting":
        return "leaving"
    view = properties.get("instanceView") or {}
    codes = {str(one.get("code", "")).lower() for one in view.get("statuses") or ()}
    health = str(((view.get("vmHealth") or {}).get("status") or {}).get("code", "HealthState/healthy"))
    made = properties.get("provisioningState") in ("Succeeded", "Updating")
    well = health.lower() == "healthstate/healthy"
    return "ready" if made and well and "powerstate/running" in codes else "starting"
