"""Managed instance groups: a target size, and the machines that the group makes and ends until it has them.

As documented: `resize` says how many, and the group chooses who goes, those first that do not run yet; deleteInstances
names who goes and lowers the target size by their number; one that is being deleted already is an error, or passed
over if that was asked for; a request id that was heard before does nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fakes.control_plane import Request
from fakes.gce import resources
from fakes.gce.server import PROJECT, GceFake
from fakes.gce.state import ApiError, Machine, Operation

__all__ = ["Group", "MigFake"]

_PROPERTIES: dict[str, Any] = {
    "machineType": "g2-standard-4",
    "networkInterfaces": [{"network": "global/networks/default"}],
    "scheduling": {"onHostMaintenance": "TERMINATE", "automaticRestart": True},
    "disks": [{"initializeParams": {"diskSizeGb": 100}}],
}


@dataclass
class Group:
    """One group. `scope`: zones or regions, and its name; `zones` are those in which it makes machines, in turn."""

    name: str
    scope: tuple[str, str]
    zones: list[str]
    target: int
    members: list[Machine] = field(default_factory=list)
    unhealthy: set[str] = field(default_factory=set)
    """Names of machines that health checks do not find well."""
    checked: bool = False
    autoscaler: str | None = None
    made: int = 0


class MigFake(GceFake):
    """Compute Engine with groups."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.groups: dict[tuple[tuple[str, str], str], Group] = {}

    def add(self, group: Group) -> Group:
        self.groups[group.scope, group.name] = group
        self.settle_groups()
        return group

    def settle_groups(self) -> None:
        """What groups do by themselves: what they lack is made, what was given up is ended."""
        with self.state.lock:
            self.state.settle()
            for group in self.groups.values():
                there = self.state.machines
                group.members = [one for one in group.members if (one.zone, one.name) in there]
                staying = [one for one in group.members if not one.ending]
                for one in staying:
                    if one.status == "PROVISIONING":
                        one.status = "RUNNING"
                for _ in range(group.target - len(staying)):
                    self._make(group)
                order = sorted(staying, key=lambda one: (one.status == "RUNNING", -one.number))
                for one in order[: max(0, len(staying) - group.target)]:
                    self._take_away(one)

    def _make(self, group: Group) -> None:
        zone = group.zones[group.made % len(group.zones)]
        group.made += 1
        machine = Machine(
            f"{group.name}-{group.made:04d}", zone, dict(_PROPERTIES), ("nvidia-l4", 1), self.state.number()
        )
        if self.state.take(machine):
            self.state.machines[zone, machine.name] = machine
            group.members.append(machine)

    def _take_away(self, machine: Machine) -> None:
        machine.ending, machine.status = True, "STOPPING"
        operation = self.state.begin(
            "delete",
            ("zones", machine.zone),
            f"zones/{machine.zone}/instances/{machine.name}",
            target_id=machine.number,
            request_id=None,
        )
        operation.finish = lambda _: self.state.remove(machine)

    # --- methods ----------------------------------------------------------------------------------------------

    def _group(self, names: dict[str, str]) -> Group:
        scope = ("zones", names["zone"]) if "zone" in names else ("regions", names["region"])
        found = self.groups.get((scope, names["instanceGroupManager"]))
        if found is None:
            path = (
                f"projects/{PROJECT}/{'/'.join(scope)}/instanceGroupManagers/{names['instanceGroupManager']}"
            )
            raise ApiError(404, "notFound", f"The resource '{path}' was not found")
        return found

    def _get_group(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        group = self._group(names)
        root = self._root(request)
        status: dict[str, Any] = {"isStable": True}
        if group.autoscaler:
            status["autoscaler"] = f"{root}/{'/'.join(group.scope)}/autoscalers/{group.autoscaler}"
        return {
            "kind": "compute#instanceGroupManager",
            "name": group.name,
            "baseInstanceName": group.name,
            group.scope[0].removesuffix("s"): f"{root}/{'/'.join(group.scope)}",
            "targetSize": group.target,
            "status": status,
        }

    def _list_managed(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        group = self._group(names)
        self.settle_groups()
        items = [self._managed(group, one, self._root(request)) for one in group.members]
        begin = int(request.query.get("pageToken", "0"))
        body: dict[str, Any] = {"managedInstances": items[begin : begin + self.page_size]}
        if begin + self.page_size < len(items):
            body["nextPageToken"] = str(begin + self.page_size)
        return body

    def _managed(self, group: Group, one: Machine, root: str) -> dict[str, Any]:
        action = "DELETING" if one.ending else "NONE" if one.status == "RUNNING" else "CREATING"
        described: dict[str, Any] = {
            "name": one.name,
            "id": str(one.number),
            "instance": f"{root}/zones/{one.zone}/instances/{one.name}",
            "currentAction": action,
            "instanceStatus": one.status,
            "targetStatus": "DELETED" if one.ending else "RUNNING",
        }
        if group.checked:
            state = "UNHEALTHY" if one.name in group.unhealthy else "HEALTHY"
            described["instanceHealth"] = [{"detailedHealthState": state}]
        return described

    def _resize_group(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        group = self._group(names)
        operation = self._changed(request, group, "compute.instanceGroupManagers.resize")
        group.target = int(request.query["size"])
        self.settle_groups()
        return resources.operation(operation, self._root(request))

    def _delete_members(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        group = self._group(names)
        known = request.query.get("requestId")
        if known in self.state.by_request:
            return resources.operation(self.state.by_request[known or ""], self._root(request))
        operation = self._changed(request, group, "compute.instanceGroupManagers.deleteInstances")
        for url in request.body["instances"]:
            zone, name = url.split("/")[1], url.split("/")[3]
            one = next((one for one in group.members if (one.zone, one.name) == (zone, name)), None)
            if one is None or one.ending:
                if request.body.get("skipInstancesOnValidationError"):
                    continue
                raise ApiError(400, "invalid", f"The instance '{url}' is not a member of the group.")
            group.target -= 1
            self._take_away(one)
        return resources.operation(operation, self._root(request))

    def _changed(self, request: Request, group: Group, kind: str) -> Operation:
        target = f"{'/'.join(group.scope)}/instanceGroupManagers/{group.name}"
        request_id = request.query.get("requestId")
        return self.state.begin(
            kind, group.scope, target, target_id=self.state.number(), request_id=request_id
        )

    _instanceGroupManagers_get = _regionInstanceGroupManagers_get = _get_group
    _instanceGroupManagers_listManagedInstances = _list_managed
    _regionInstanceGroupManagers_listManagedInstances = _list_managed
    _instanceGroupManagers_resize = _regionInstanceGroupManagers_resize = _resize_group
    _instanceGroupManagers_deleteInstances = _regionInstanceGroupManagers_deleteInstances = _delete_members
