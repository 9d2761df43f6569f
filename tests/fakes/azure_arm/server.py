"""The operations of the fake Resource Manager."""

from __future__ import annotations

from typing import Any, ClassVar

import azure.mgmt.compute.models as compute
import azure.mgmt.network.models as network

from fakes.azure_arm import resources
from fakes.azure_arm.specification import Mismatch, Route, check_model, find_route
from fakes.azure_arm.state import ArmError, Machine, Size, State
from fakes.control_plane import Answer, ControlPlane, Request

__all__ = ["ArmFake"]

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = "fleet"

# Operation -> (model of the request's body, model of the answer). None: none.
_OPERATIONS: dict[str, tuple[Any, Any]] = {
    "compute.virtual_machines_create_or_update": (compute.VirtualMachine, compute.VirtualMachine),
    "compute.virtual_machines_update": (compute.VirtualMachineUpdate, compute.VirtualMachine),
    "compute.virtual_machines_get": (None, compute.VirtualMachine),
    "compute.virtual_machines_list": (None, [compute.VirtualMachine]),
    "compute.virtual_machines_delete": (None, None),
    "compute.virtual_machines_deallocate": (None, None),
    "compute.virtual_machines_start": (None, None),
    "compute.disks_get": (None, compute.Disk),
    "compute.disks_delete": (None, None),
    "compute.ssh_public_keys_create": (compute.SshPublicKeyResource, compute.SshPublicKeyResource),
    "compute.ssh_public_keys_get": (None, compute.SshPublicKeyResource),
    "compute.ssh_public_keys_delete": (None, None),
    "compute.ssh_public_keys_list_by_resource_group": (None, [compute.SshPublicKeyResource]),
    "compute.resource_skus_list": (None, [compute.ResourceSku]),
    "network.network_interfaces_get": (None, network.NetworkInterface),
    "network.network_interfaces_list": (None, [network.NetworkInterface]),
    "network.network_interfaces_delete": (None, None),
    "network.public_ip_addresses_get": (None, network.PublicIPAddress),
    "network.public_ip_addresses_list": (None, [network.PublicIPAddress]),
    "network.public_ip_addresses_delete": (None, None),
}
_KINDS = {
    "disks": "disks",
    "ssh_public_keys": "sshPublicKeys",
    "network_interfaces": "networkInterfaces",
    "public_ip_addresses": "publicIPAddresses",
}


class ArmFake(ControlPlane):
    """The server: one subscription, one resource group, one location. With `tokens`, only bearers of one get in."""

    operations: ClassVar[dict[str, tuple[Any, Any]]] = _OPERATIONS

    def __init__(
        self,
        sizes: dict[str, Size],
        *,
        location: str = "westeurope",
        operation_s: float = 0.02,
        tokens: set[str] | None = None,
    ) -> None:
        super().__init__()
        self.location = location
        self.names = {name.lower(): name for name in sizes}
        self.state = State({name.lower(): one for name, one in sizes.items()}, operation_s=operation_s)
        self.tokens = tokens
        self.page_size = 3

    @property
    def group_id(self) -> str:
        return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"

    def refusal(self, status: int, reason: str, message: str) -> Any:
        return resources.error_body(reason, message)

    def serve(self, request: Request) -> Answer:
        route, names = find_route(tuple(self.operations), request.method, request.path)
        key = next(full for full in self.operations if full.partition(".")[2] == route.name)
        asked, answered = self.operations[key]
        self._check_request(route, request, asked)
        try:
            sent = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self.tokens is not None and sent not in self.tokens:
                raise ArmError(
                    401, "ExpiredAuthenticationToken", "The access token expiry UTC time has passed."
                )
            if names["subscriptionId"] != SUBSCRIPTION:
                raise ArmError(404, "SubscriptionNotFound", "The subscription could not be found.")
            if names.get("resourceGroupName", GROUP).lower() != GROUP:
                group = names["resourceGroupName"]
                raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
            with self.state.lock:
                self.state.settle()
                answer = self._handle(route.name, request, names)
        except ArmError as error:
            return Answer(error.status, resources.error_body(error.code, str(error)))
        if answer.status not in route.statuses:
            raise Mismatch(f"{route.name} takes {sorted(route.statuses)}, not {answer.status}")
        if answered is not None:
            many = isinstance(answered, list)
            for item in answer.body["value"] if many else [answer.body]:
                check_model(item, answered[0] if many else answered, route.name, asked=False)
        return answer

    def _check_request(self, route: Route, request: Request, model: Any) -> None:
        query = set(request.query) - {"$skiptoken"}
        if query - route.query:
            raise Mismatch(f"{route.name} has no parameters {sorted(query - route.query)}")
        if request.query.get("api-version") != route.api_version:
            raise Mismatch(f"{route.name} is of {route.api_version}, not {request.query.get('api-version')}")
        conditions = {"if-match", "if-none-match"} & set(request.headers)
        if conditions - route.headers:
            raise Mismatch(f"{route.name} takes no {sorted(conditions)}")
        if (model is None) != (request.body is None):
            raise Mismatch(f"{route.name}: body {request.body!r}")
        if model is not None:
            check_model(request.body, model, f"request of {route.name}", asked=True)

    def _handle(self, name: str, request: Request, names: dict[str, str]) -> Answer:
        for prefix, kind in _KINDS.items():
            if name.startswith(prefix):
                return self._thing(kind, name.removeprefix(prefix + "_"), request, names)
        answer: Answer = getattr(self, "_" + name)(request, names)
        return answer

    # --- what happens to machines --------------------------------------------------------------------------

    def machines(self) -> list[Machine]:
        with self.state.lock:
            self.state.settle()
            return list(self.state.machines.values())

    def left(self) -> dict[str, list[str]]:
        """Disks, cards and addresses that are there, by kind."""
        with self.state.lock:
            self.state.settle()
            kinds = ("networkInterfaces", "publicIPAddresses", "disks")
            return {kind: sorted(self.state.things[kind]) for kind in kinds}

    def evict(self, name: str) -> None:
        """Takes a spot machine back: Azure deallocates it."""
        with self.state.lock:
            self.state.settle()
            machine = self.state.machines[name.lower()]
            assert machine.spot and machine.power == "running"
            self.state.release(machine)
            machine.power = "deallocated"
            machine.version += 1

    # --- virtual machines ----------------------------------------------------------------------------------

    def _machine(self, names: dict[str, str]) -> Machine:
        found = self.state.machines.get(names["vmName"].lower())
        if found is None:
            what = f"Microsoft.Compute/virtualMachines/{names['vmName']}"
            message = f"The Resource '{what}' under resource group '{GROUP}' was not found."
            raise ArmError(404, "ResourceNotFound", message)
        return found

    def _virtual_machines_get(self, request: Request, names: dict[str, str]) -> Answer:
        view = request.query.get("$expand") == "instanceView"
        return Answer(200, resources.machine(self._machine(names), self.state, self.group_id, view=view))

    def _virtual_machines_list(self, request: Request, names: dict[str, str]) -> Answer:
        shown = []
        for machine in self.state.machines.values():
            if machine.visible_after > 0:
                machine.visible_after -= 1
            else:
                shown.append(resources.machine(machine, self.state, self.group_id, view=False))
        return self._page(request, shown)

    def _page(self, request: Request, items: list[dict[str, Any]]) -> Answer:
        begin = int(request.query.get("$skiptoken", "0"))
        body: dict[str, Any] = {"value": items[begin : begin + self.page_size]}
        if begin + self.page_size < len(items):
            more = "&".join(f"{key}={value}" for key, value in request.query.items() if key != "$skiptoken")
            body["nextLink"] = f"{request.base}{request.path}?{more}&%24skiptoken={begin + self.page_size}"
        return Answer(200, body)

    def _virtual_machines_create_or_update(self, request: Request, names: dict[str, str]) -> Answer:
        name, body = names["vmName"], request.body
        if name.lower() in self.state.machines:
            if request.headers.get("if-none-match") == "*":
                raise ArmError(412, "PreconditionFailed", "The resource exists already.")
            raise Mismatch("the fake makes machines, and changes none by PUT")
        machine = Machine(name, body, (body.get("zones") or [""])[0])
        self._refuse(machine)
        self.state.machines[name.lower()] = machine
        machine.visible_after = self.state.hide_for
        self._card(machine)
        self.state.later(machine, "create")
        operation = f"{request.base}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/operations/x"
        return Answer(
            201,
            resources.machine(machine, self.state, self.group_id, view=False),
            {"Azure-AsyncOperation": operation, "Retry-After": "10"},
        )

    def _refuse(self, machine: Machine) -> None:
        """Raises what Azure says at once of an order that cannot be."""
        body, name = machine.body, machine.size.lower()
        if body["location"] != self.location:
            words = f"No registered resource provider found for location '{body['location']}'."
            raise ArmError(400, "NoRegisteredProviderFound", words)
        if name not in self.state.sizes:
            words = f"The value {machine.size} provided for the VM size is not valid."
            raise ArmError(400, "InvalidParameter", words)
        size = self.state.sizes[name]
        if machine.zone and machine.zone not in {"1", "2", "3"}:
            raise ArmError(400, "InvalidAvailabilityZone", f"The zone '{machine.zone}' is not supported.")
        if machine.zone and (machine.zone not in size.free or machine.zone in size.barred):
            words = (
                f"The requested VM size {machine.size} is currently not available in zone '{machine.zone}'."
            )
            raise ArmError(409, "SkuNotAvailable", words)
        image = body["properties"]["storageProfile"]["imageReference"]
        if "missing" in str(image):
            raise ArmError(
                404,
                "PlatformImageNotFound",
                f"The platform image '{':'.join(image.values())}' is not available.",
            )
        cap = body["properties"].get("billingProfile", {}).get("maxPrice", -1)
        if machine.spot and cap != -1 and cap < size.spot_usd:
            words = f"The max price {cap} is below the current price of Azure Spot, {size.spot_usd} USD."
            raise ArmError(409, "OperationNotAllowed", words)
        if size.quota is not None and self.state.used(name) >= size.quota:
            words = (
                f"Operation could not be completed as it results in exceeding approved {size.family} Cores quota. "
                f"Location: {self.location}, Current Limit: {size.quota}."
            )
            raise ArmError(409, "OperationNotAllowed", words)

    def _card(self, machine: Machine) -> None:
        for one in machine.body["properties"]["networkProfile"]["networkInterfaceConfigurations"]:
            if one["name"].lower() in self.state.things["networkInterfaces"]:
                raise ArmError(409, "Conflict", f"The network interface {one['name']} exists already.")
            number = next(self.state.numbers)
            address = one["properties"]["ipConfigurations"][0]["properties"].get(
                "publicIPAddressConfiguration"
            )
            card = {"name": one["name"], "machine": machine.name, "number": number}
            if address:
                card["public"] = address["name"]
                goes = address["properties"].get("deleteOption") == "Delete"
                made = {"name": address["name"], "machine": machine.name, "number": number, "goes": goes}
                self.state.things["publicIPAddresses"][address["name"].lower()] = made
            card["goes"] = one["properties"].get("deleteOption") == "Delete"
            self.state.things["networkInterfaces"][one["name"].lower()] = card

    def _virtual_machines_update(self, request: Request, names: dict[str, str]) -> Answer:
        machine = self._machine(names)
        if request.headers.get("if-match", machine.etag) != machine.etag:
            raise ArmError(412, "PreconditionFailed", "The etag does not match.")
        if set(request.body) != {"tags"}:
            raise Mismatch("the fake changes tags only")
        machine.body["tags"] = dict(request.body["tags"])
        machine.version += 1
        return Answer(200, resources.machine(machine, self.state, self.group_id, view=False))

    def _virtual_machines_delete(self, request: Request, names: dict[str, str]) -> Answer:
        if names["vmName"].lower() not in self.state.machines:
            return Answer(204)
        machine = self._machine(names)
        machine.stage = "Deleting"
        self.state.later(machine, "delete")
        return Answer(202)

    def _virtual_machines_deallocate(self, request: Request, names: dict[str, str]) -> Answer:
        machine = self._machine(names)
        machine.stage, machine.power = "Updating", "deallocating"
        self.state.later(machine, "deallocate")
        return Answer(202)

    def _virtual_machines_start(self, request: Request, names: dict[str, str]) -> Answer:
        machine = self._machine(names)
        if machine.power == "running":
            return Answer(202)
        machine.stage = "Updating"
        self.state.later(machine, "start")
        return Answer(202)

    def _resource_skus_list(self, request: Request, names: dict[str, str]) -> Answer:
        if request.query.get("$filter") != f"location eq '{self.location}'":
            return Answer(200, {"value": []})
        sizes = self.state.sizes.items()
        return self._page(
            request, [resources.size(self.names[name], one, self.location) for name, one in sizes]
        )

    # --- what is made with them ----------------------------------------------------------------------------

    def _thing(self, kind: str, verb: str, request: Request, names: dict[str, str]) -> Answer:
        things = self.state.things[kind]
        if verb.startswith("list"):
            return self._page(request, [resources.thing(kind, one, self.group_id) for one in things.values()])
        name = next(
            value for key, value in names.items() if key not in {"subscriptionId", "resourceGroupName"}
        )
        if verb == "create":
            made = name.lower() not in things
            things[name.lower()] = {
                "name": name,
                "machine": None,
                "tags": dict(request.body["tags"]),
                "key": request.body["properties"]["publicKey"],
                "location": request.body["location"],
            }
            return Answer(201 if made else 200, resources.thing(kind, things[name.lower()], self.group_id))
        found = things.get(name.lower())
        if verb == "get":
            if found is None:
                raise ArmError(404, "ResourceNotFound", f"The Resource '{kind}/{name}' was not found.")
            return Answer(200, resources.thing(kind, found, self.group_id))
        if found is None:
            return Answer(204)
        if found["machine"] is not None:
            raise ArmError(409, "OperationNotAllowed", f"{name} is attached to {found['machine']}.")
        if kind == "publicIPAddresses" and any(
            card.get("public") == found["name"] for card in self.state.things["networkInterfaces"].values()
        ):
            raise ArmError(400, "PublicIPAddressCannotBeDeleted", f"{name} is held by a network interface.")
        del things[name.lower()]
        return Answer(200 if kind == "sshPublicKeys" else 202)
