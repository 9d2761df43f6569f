"""Bulk orders: what Compute Engine checks before it takes one, and what becomes of it.

As its documentation says (Troubleshooting bulk VM creation): what cannot be is refused at once with 400, 403
`quotaExceeded` or 503 `insufficientCapacity`; what fails later fails in the operation, and everything is rolled back
where fewer than `minCount` came.
"""

from __future__ import annotations

import time
from typing import Any

from fakes.gce.state import ACCELERATORS, MACHINE_TYPES, ApiError, Machine, Operation, State

__all__ = ["Orders"]

# Families whose boot disks are Hyperdisks and nothing else.
_HYPERDISK_ONLY = ("a4-",)
_PROJECT = "test-project"


class Orders:
    """Takes bulk orders. `upfront`: missing capacity is noticed before anything begins, as the real one may do."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.upfront = False

    def insert(self, scope: tuple[str, str], body: dict[str, Any], request_id: str | None) -> Operation:
        """Begins the order, or finds the one with the same request id."""
        if request_id in self.state.by_request:
            return self.state.by_request[request_id or ""]
        properties = body["instanceProperties"]
        names = list(body.get("perInstanceProperties", {}))
        count = int(body.get("count", len(names)))
        least = int(body.get("minCount", count))
        if len(names) != count:
            raise ApiError(
                400, "invalid", "Invalid value for field 'resource.count': it differs from the names."
            )
        accelerator = self._accelerator(properties)
        zones = [scope[1]] if scope[0] == "zones" else self._choice(scope[1], accelerator)
        zone = zones[0]
        for name in names:
            if (zone, name) in self.state.machines:
                path = f"projects/{_PROJECT}/zones/{zone}/instances/{name}"
                raise ApiError(409, "alreadyExists", f"The resource '{path}' already exists")
        machines = [
            Machine(
                name,
                zone,
                properties,
                accelerator,
                self.state.number(),
                labels=dict(properties.get("labels", {})),
                visible_at=time.monotonic() + self.state.lag_s,
                visible_after=self.state.hide_for,
            )
            for name in names
        ]
        over = self.state.over_quota(machines[0], least)
        if over:
            raise ApiError(403, "quotaExceeded", over)
        free = self.state.zone_of(zone)
        if self.upfront and accelerator and free.get(accelerator[0], 0) < accelerator[1] * least:
            raise ApiError(503, "insufficientCapacity", f"The zone {zone} does not have enough resources.")
        return self._begin(scope, machines, least, request_id)

    def _begin(
        self, scope: tuple[str, str], machines: list[Machine], least: int, request_id: str | None
    ) -> Operation:
        state, zone = self.state, machines[0].zone
        made = []
        for machine in machines:
            if state.over_quota(machine, 1) or not state.take(machine):
                break
            state.machines[machine.zone, machine.name] = machine
            made.append(machine)
        target = f"{scope[0]}/{scope[1]}/instances"
        operation = state.begin(
            "bulkInsert",
            scope,
            target,
            target_id=state.number(),
            request_id=request_id,
            group=machines[0].name,
        )
        status = {
            "targetVmCount": len(machines),
            "createdVmCount": len(made),
            "failedToCreateVmCount": len(machines) - len(made),
            "status": "CREATING",
        }
        operation.metadata = {"perLocationStatus": {f"zones/{zone}": status}}

        def finish(ended: Operation) -> None:
            if len(made) >= least:
                for machine in made:
                    if machine.status in {"PROVISIONING", "STAGING"}:
                        machine.status = "RUNNING"
            else:
                for machine in made:
                    state.remove(machine)
                status.update(createdVmCount=0, deletedVmCount=len(made))
                ended.errors = [
                    (
                        "VM_MIN_COUNT_NOT_REACHED",
                        f"Requested minimum count of {least} VMs could not be created.",
                    )
                ]
                ended.error_status = 503
            status["status"] = "DONE"

        operation.finish = finish
        # One operation for each machine, too, all in one group.
        for place, machine in enumerate(machines):
            child = state.begin(
                "insert",
                ("zones", zone),
                f"zones/{zone}/instances/{machine.name}",
                target_id=machine.number,
                request_id=None,
                group=operation.group,
            )
            if place < len(made):
                continue
            over = state.over_quota(machine, 1)
            code = "QUOTA_EXCEEDED" if over else "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
            child.errors = [(code, over or f"The zone '{zone}' does not have enough resources available.")]
            child.error_status = 403 if over else 503
        return operation

    def _choice(self, region: str, accelerator: tuple[str, int] | None) -> list[str]:
        """The zones of a region that offer it, the fullest last."""
        zones = self.state.regions[region]
        offering = [name for name, free in zones.items() if accelerator is None or accelerator[0] in free]
        if not offering:
            raise ApiError(400, "invalid", "No zone of the region supports the requested properties.")
        return sorted(offering, key=lambda name: -zones[name].get(accelerator[0] if accelerator else "", 0))

    def _accelerator(self, properties: dict[str, Any]) -> tuple[str, int] | None:
        """The GPUs of a machine with these properties, and all that Compute Engine would refuse of them."""
        name = properties["machineType"]
        if name not in MACHINE_TYPES:
            raise ApiError(
                400,
                "invalid",
                f"Invalid value for field 'resource.instanceProperties.machineType': '{name}'. "
                "Machine type specified in the request does not exist.",
            )
        built_in = MACHINE_TYPES[name][2]
        asked = properties.get("guestAccelerators", [])
        if asked and not name.startswith("n1-"):
            raise ApiError(
                400, "badRequest", f"[{name}, {asked[0]['acceleratorType']}] features are not compatible."
            )
        if asked and asked[0]["acceleratorCount"] not in ACCELERATORS.get(asked[0]["acceleratorType"], ()):
            raise ApiError(
                400, "badRequest", f"The number of GPUs or their type is not supported: {asked[0]}"
            )
        accelerator = (asked[0]["acceleratorType"], asked[0]["acceleratorCount"]) if asked else built_in
        scheduling = properties.get("scheduling", {})
        if accelerator and scheduling.get("onHostMaintenance") != "TERMINATE":
            raise ApiError(
                400, "badRequest", "Instances with guest accelerators do not support live migration."
            )
        if scheduling.get("provisioningModel") == "SPOT" and scheduling.get("automaticRestart", True):
            raise ApiError(400, "invalid", "Scheduling must have automaticRestart set to false for Spot VMs.")
        if "instanceTerminationAction" in scheduling and scheduling.get("provisioningModel") != "SPOT":
            raise ApiError(
                400, "invalid", "Instance termination action is for Spot VMs or with a max duration."
            )
        self._check_disk(name, properties["disks"][0])
        for key, value in properties.get("labels", {}).items():
            check_label(key, value)
        return accelerator

    def _check_disk(self, machine_type: str, disk: dict[str, Any]) -> None:
        asked = disk["initializeParams"]
        if not disk.get("boot") or not disk.get("autoDelete"):
            raise ApiError(400, "invalid", "The fake wants a boot disk that goes with its machine.")
        if "missing" in asked["sourceImage"]:
            path = asked["sourceImage"]
            raise ApiError(404, "notFound", f"The resource '{path}' was not found")
        hyperdisk = asked.get("diskType", "pd-standard").startswith("hyperdisk")
        if machine_type.startswith(_HYPERDISK_ONLY) != hyperdisk:
            raise ApiError(
                400, "badRequest", f"[{asked.get('diskType')}, {machine_type}] features are not compatible."
            )


def check_label(key: str, value: str) -> None:
    """Raises ApiError for a label that Compute Engine refuses."""
    letters = all((one.isalnum() and not one.isupper()) or one in "_-" for one in key + value)
    if not (letters and 0 < len(key) < 64 and key[0].isalpha() and len(value) < 64):
        raise ApiError(400, "invalid", f"Invalid value for field 'resource.labels': '{key}: {value}'.")
