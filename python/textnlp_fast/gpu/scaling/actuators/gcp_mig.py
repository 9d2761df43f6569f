"""A managed instance group of Compute Engine, in a zone or over a region.

More replicas are the group's target size. Fewer are chosen here: each that has to go carries a label, drains, and is
ended by deleteInstances, which takes its place out of the target size in the same step. The target size is never
lowered by itself, for then the group would choose.

API: https://cloud.google.com/compute/docs/reference/rest/v1/instanceGroupManagers
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from textnlp_fast.errors import InstanceNotFoundError, InvalidInputError
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.providers.gcp import GcpProvider
from textnlp_fast.gpu.providers.gcp_client import Compute
from textnlp_fast.gpu.providers.gcp_requests import last_part, moment
from textnlp_fast.gpu.scaling.actuators.contract import Drain
from textnlp_fast.gpu.scaling.actuators.groups import DRAINING_TAG, GroupView, Member, mark_of
from textnlp_fast.gpu.scaling.actuators.reconciling import GroupActuator

__all__ = ["GcpInstanceGroup"]

_log = logging.getLogger(__name__)
_ZONE: Final = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]", re.ASCII)
_REGION: Final = re.compile(r"[a-z]+-[a-z]+\d+", re.ASCII)
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_REQUESTS: Final = uuid.UUID("5b2f5a0e-6b51-4f0c-9b0e-5a0c8b9f6a31")


class GcpInstanceGroup(GroupActuator):
    """The group `name` of `project` in `place`, a zone or a region. Credentials are Google's default ones.

    With health checks a machine is ready when they say so, else when it runs. Machines that a standby policy keeps
    stopped or suspended are no replicas. An autoscaler of Google's that sets the same group would undo what is done
    here: it is warned of.
    """

    kind = "gcp-mig"
    overshoots = True  # during a rolling update

    def __init__(
        self,
        *,
        project: str,
        place: str,
        name: str,
        drain: Drain | None = None,
        drain_s: float = 600.0,
        give_up_s: float | None = None,
        credentials: Any = None,
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
        zonal = bool(_ZONE.fullmatch(place))
        if not (zonal or _REGION.fullmatch(place)) or not _NAME.fullmatch(name):
            raise InvalidInputError(
                f"{place!r:.60} / {name!r:.60} names no instance group", hint="Write ZONE-OR-REGION/NAME."
            )
        region = place.rpartition("-")[0] if zonal else place
        self._client = "InstanceGroupManagers" if zonal else "RegionInstanceGroupManagers"
        self._scope = {"zone" if zonal else "region": place, "instance_group_manager": name}
        self._place, self._name, self._warned = place, name, False
        where: dict[str, Any] = {"project": project, "credentials": credentials, "endpoint_url": endpoint_url}
        self._api = Compute(region, patience=patience, **where)
        self._machines = GcpProvider(
            region,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            retries=retries,
            first_pause_s=first_pause_s,
            **where,
        )

    def _look(self, until: float) -> GroupView:
        group = self._api.ask(self._client, "get", dict(self._scope), until)
        if group.status.autoscaler and not self._warned:
            self._warned = True
            _log.warning(
                "%s has an autoscaler of Google's, too: set its mode to OFF, or two will size one group",
                self._name,
            )
        managed = [
            one
            for one in self._api.pages(
                self._client,
                dict(self._scope),
                until,
                method="list_managed_instances",
                key="managed_instances",
            )
            if one.target_status not in ("STOPPED", "SUSPENDED")
        ]
        zones = sorted({_zone_of(one.instance) for one in managed if one.instance})
        machines: dict[str, Any] = {}
        # A name of the group's ends in letters of the group's own after its base name.
        asked = {"filter": f'name eq "{group.base_instance_name}-.*"'}
        for zone in zones:
            listed = self._api.pages("Instances", {"zone": zone, **asked}, until)
            machines |= {f"{zone}/{one.name}": one for one in listed}
        members = [_member(one, machines) for one in managed if one.instance]
        return GroupView(told=int(group.target_size), members=tuple(members))

    def _tell(self, view: GroupView, told: int, until: float) -> None:
        self._api.ask(self._client, "resize", {**self._scope, "size": told}, until)

    def _mark(self, members: Sequence[Member], at_s: float, until: float) -> None:
        for one in members:
            try:
                self._machines.tag([one.member_id], {DRAINING_TAG: str(int(at_s))})
            except InstanceNotFoundError:
                continue  # gone since, or not made yet

    def _may_lower(self, view: GroupView, told: int) -> bool:
        return False  # the group would choose; all that it was told of it lists, made or not

    def _end(self, member: Member, *, told: int, shrink: bool, until: float) -> None:
        zone, _, name = member.member_id.partition("/")
        regional = self._client.startswith("Region")
        body = {
            "instances": [f"zones/{zone}/instances/{name}"],
            # One that is gone or going already is no error, and takes no second place out of the target size.
            "skip_instances_on_validation_error": True,
        }
        prefix = "region_" if regional else ""
        asked = {
            **self._scope,
            f"{prefix}instance_group_managers_delete_instances_request_resource": body,
            # The same machine, ended twice, is one request to Google.
            "request_id": str(
                uuid.uuid5(_REQUESTS, f"{self._place}/{self._name}/{member.member_id}/{member.version}")
            ),
        }
        self._api.ask(self._client, "delete_instances", asked, until)


def _zone_of(url: str) -> str:
    return url.partition("/zones/")[2].partition("/")[0]


def _member(managed: Any, machines: dict[str, Any]) -> Member:
    zone = _zone_of(managed.instance)
    member_id = f"{zone}/{last_part(managed.instance)}"
    machine = machines.get(member_id)
    created = machine is not None and machine.creation_timestamp
    address = None
    if machine is not None and machine.network_interfaces:
        address = machine.network_interfaces[0].network_i_p or None
    return Member(
        member_id=member_id,
        state=_state(managed),
        marked_at_s=mark_of(machine.labels.get(DRAINING_TAG)) if machine is not None else None,
        created_at_s=moment(created).timestamp() if created else 0.0,
        zone=zone,
        spot=machine is not None and machine.scheduling.provisioning_model == "SPOT",
        address=address,
        version=str(managed.id),
    )


def _state(managed: Any) -> Literal["starting", "ready", "leaving"]:
    if managed.current_action in ("DELETING", "ABANDONING"):
        return "leaving"
    healthy = all(one.detailed_health_state == "HEALTHY" for one in managed.instance_health)
    steady = managed.current_action in ("NONE", "REFRESHING")
    return "ready" if steady and managed.instance_status == "RUNNING" and healthy else "starting"
