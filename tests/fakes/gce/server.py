"""The methods of the fake Compute Engine."""

from __future__ import annotations

import functools
import time
from typing import Any

from fakes.control_plane import Answer, ControlPlane, Request, json_answer
from fakes.discovery import Discovery
from fakes.gce import resources
from fakes.gce.orders import Orders, check_label
from fakes.gce.state import MACHINE_TYPES, ApiError, Machine, Operation, State, stamp

__all__ = ["GceFake"]

PROJECT = "test-project"


@functools.lru_cache(maxsize=1)
def _document() -> Discovery:
    return Discovery.installed("compute.v1")


class GceFake(ControlPlane):
    """The server. `regions`: region -> zone -> accelerator -> free GPUs. With `tokens`, only bearers of one get in."""

    def __init__(
        self,
        regions: dict[str, dict[str, dict[str, int]]],
        *,
        operation_s: float = 0.02,
        tokens: set[str] | None = None,
    ) -> None:
        super().__init__()
        self.state = State(regions, operation_s=operation_s)
        self.orders = Orders(self.state)
        self.tokens = tokens
        self.page_size = 3
        self.start_fails: tuple[str, str] | None = None
        """Code and message with which operations that start machines end."""

    def refusal(self, status: int, reason: str, message: str) -> Any:
        return resources.error_body(status, reason, message)

    def serve(self, request: Request) -> Answer:
        document = _document()
        name, names = document.route(request.method, request.path)
        document.check_request(name, names, request.query, request.body)
        try:
            sent = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self.tokens is not None and sent not in self.tokens:
                raise ApiError(401, "authError", "Request had invalid authentication credentials.")
            if names["project"] != PROJECT:
                raise ApiError(404, "notFound", f"The resource 'projects/{names['project']}' was not found")
            with self.state.lock:
                self.state.settle()
                body = getattr(self, "_" + name.removeprefix("compute.").replace(".", "_"))(request, names)
        except ApiError as error:
            return json_answer(resources.error_body(error.status, error.reason, str(error)), error.status)
        document.check_answer(name, body)
        return json_answer(body)

    def _root(self, request: Request) -> str:
        return f"{request.base}/compute/v1/projects/{PROJECT}"

    # --- what happens to machines --------------------------------------------------------------------------

    def machines(self) -> list[Machine]:
        """All machines that exist, in the order in which they came."""
        with self.state.lock:
            self.state.settle()
            return list(self.state.machines.values())

    def preempt(self, zone: str, name: str) -> None:
        """Takes a Spot machine back, as Compute Engine does after its notice."""
        with self.state.lock:
            self.state.settle()
            machine = self.state.machines[zone, name]
            assert machine.spot and machine.status == "RUNNING"
            machine.status, machine.stopped = "TERMINATED", stamp()
            self.state.release(machine)
            operation = self.state.begin(
                "compute.instances.preempted",
                ("zones", zone),
                f"zones/{zone}/instances/{name}",
                target_id=machine.number,
                request_id=None,
            )
            operation.done_at = 0.0

    # --- methods -------------------------------------------------------------------------------------------

    def _regions_get(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        root, region = self._root(request), names["region"]
        if region not in self.state.regions:
            raise ApiError(
                404, "notFound", f"The resource 'projects/{PROJECT}/regions/{region}' was not found"
            )
        return {
            "kind": "compute#region",
            "name": region,
            "status": "UP",
            "zones": [f"{root}/zones/{zone}" for zone in self.state.regions[region]],
        }

    def _machineTypes_get(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        zone, name = names["zone"], names["machineType"]
        free = self.state.zone_of(zone)
        offered = name in MACHINE_TYPES and (MACHINE_TYPES[name][2] or ("", 0))[0] in {"", *free}
        if not offered:
            path = f"projects/{PROJECT}/zones/{zone}/machineTypes/{name}"
            raise ApiError(404, "notFound", f"The resource '{path}' was not found")
        return resources.machine_type(name, zone, self._root(request))

    def _acceleratorTypes_get(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        zone, name = names["zone"], names["acceleratorType"]
        if name not in self.state.zone_of(zone):
            path = f"projects/{PROJECT}/zones/{zone}/acceleratorTypes/{name}"
            raise ApiError(404, "notFound", f"The resource '{path}' was not found")
        return {"kind": "compute#acceleratorType", "name": name, "zone": zone, "maximumCardsPerInstance": 4}

    def _instances_bulkInsert(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        self.state.zone_of(names["zone"])
        return self._order(request, ("zones", names["zone"]))

    def _regionInstances_bulkInsert(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        self._regions_get(request, names)
        return self._order(request, ("regions", names["region"]))

    def _order(self, request: Request, scope: tuple[str, str]) -> dict[str, Any]:
        operation = self.orders.insert(scope, request.body, request.query.get("requestId"))
        return resources.operation(operation, self._root(request))

    def _machine(self, names: dict[str, str]) -> Machine:
        zone, name = names["zone"], names["instance"]
        self.state.zone_of(zone)
        if (zone, name) not in self.state.machines:
            path = f"projects/{PROJECT}/zones/{zone}/instances/{name}"
            raise ApiError(404, "notFound", f"The resource '{path}' was not found")
        return self.state.machines[zone, name]

    def _instances_get(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        return resources.instance(self._machine(names), self._root(request))

    def _instances_list(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        self.state.zone_of(names["zone"])
        now, items = time.monotonic(), []
        for machine in self.state.machines.values():
            if machine.zone != names["zone"] or machine.visible_at > now:
                continue
            if machine.visible_after > 0:
                machine.visible_after -= 1
                continue
            items.append(resources.instance(machine, self._root(request)))
        return resources.page(items, request.query, "compute#instanceList", self.page_size)

    def _change(self, request: Request, machine: Machine, kind: str) -> Operation:
        request_id = request.query.get("requestId")
        if request_id in self.state.by_request:
            return self.state.by_request[request_id or ""]
        return self.state.begin(
            kind,
            ("zones", machine.zone),
            f"zones/{machine.zone}/instances/{machine.name}",
            target_id=machine.number,
            request_id=request_id,
        )

    def _instances_delete(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        machine = self._machine(names)
        operation = self._change(request, machine, "delete")
        machine.status, machine.ending = "STOPPING", True
        operation.finish = lambda _: self.state.remove(machine)
        return resources.operation(operation, self._root(request))

    def _instances_stop(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        machine = self._machine(names)
        operation = self._change(request, machine, "stop")
        if machine.status != "TERMINATED":
            machine.status = "STOPPING"

        def finish(_: Operation) -> None:
            if machine.status == "STOPPING":
                machine.status, machine.stopped = "TERMINATED", stamp()
                self.state.release(machine)

        operation.finish = finish
        return resources.operation(operation, self._root(request))

    def _instances_start(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        machine = self._machine(names)
        if machine.status == "STOPPING":
            raise ApiError(400, "resourceNotReady", "The resource is not ready")
        operation = self._change(request, machine, "start")

        def finish(ended: Operation) -> None:
            if machine.status != "TERMINATED":
                return
            if self.start_fails or not self.state.take(machine):
                code = self.start_fails or ("ZONE_RESOURCE_POOL_EXHAUSTED", "The zone is exhausted.")
                ended.errors, ended.error_status = [code], 503
                return
            machine.status = "RUNNING"

        operation.finish = finish
        return resources.operation(operation, self._root(request))

    def _instances_setLabels(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        machine = self._machine(names)
        for key, value in request.body["labels"].items():
            check_label(key, value)
        if request.body["labelFingerprint"] != machine.label_fingerprint:
            raise ApiError(
                412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed"
            )
        machine.labels = dict(request.body["labels"])
        operation = self._change(request, machine, "setLabels")
        return resources.operation(operation, self._root(request))

    def _operation(self, request: Request, scope: str, place: str, name: str) -> dict[str, Any]:
        operation = self.state.operations.get(name)
        if operation is None or operation.scope != (scope, place):
            path = f"projects/{PROJECT}/{scope}/{place}/operations/{name}"
            raise ApiError(404, "notFound", f"The resource '{path}' was not found")
        return resources.operation(operation, self._root(request))

    def _zoneOperations_get(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        return self._operation(request, "zones", names["zone"], names["operation"])

    def _regionOperations_get(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        return self._operation(request, "regions", names["region"], names["operation"])

    def _operations(self, request: Request, scope: tuple[str, str]) -> dict[str, Any]:
        items = [
            resources.operation(one, self._root(request))
            for one in self.state.operations.values()
            if one.scope == scope
        ]
        return resources.page(items, request.query, "compute#operationList", self.page_size)

    def _zoneOperations_list(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        return self._operations(request, ("zones", names["zone"]))

    def _regionOperations_list(self, request: Request, names: dict[str, str]) -> dict[str, Any]:
        return self._operations(request, ("regions", names["region"]))
