"""Scale sets in uniform orchestration: a capacity, and the machines that the set makes and ends until it has them.

As documented: a PATCH of the size's capacity makes machines, or ends those that the scale-in policy chooses (by default
the highest instance ids); a delete of instances ends those that are named and lowers the capacity; ids that are no
active machine's are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import azure.mgmt.compute.models as compute

from fakes.azure_arm import server
from fakes.azure_arm.server import ArmFake
from fakes.azure_arm.state import ArmError, stamp
from fakes.control_plane import Answer, Request

__all__ = ["ScaleSet", "ScaleSetMachine", "VmssFake"]

_SET = "compute.virtual_machine_scale_sets_"
_MACHINE = "compute.virtual_machine_scale_set_vms_"


@dataclass
class ScaleSetMachine:
    number: int
    stage: str = "Succeeded"
    power: str = "running"
    health: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    version: int = 1
    created: str = field(default_factory=stamp)


@dataclass
class ScaleSet:
    name: str
    capacity: int
    mode: str = "Uniform"
    version: int = 1
    machines: list[ScaleSetMachine] = field(default_factory=list)
    made: int = 0


class VmssFake(ArmFake):
    """Resource Manager with scale sets."""

    operations: ClassVar[dict[str, tuple[Any, Any]]] = {
        **server._OPERATIONS,
        f"{_SET}get": (None, compute.VirtualMachineScaleSet),
        f"{_SET}update": (compute.VirtualMachineScaleSetUpdate, compute.VirtualMachineScaleSet),
        f"{_SET}delete_instances": (compute.VirtualMachineScaleSetVMInstanceRequiredIDs, None),
        f"{_MACHINE}list": (None, [compute.VirtualMachineScaleSetVM]),
        f"{_MACHINE}get": (None, compute.VirtualMachineScaleSetVM),
        f"{_MACHINE}update": (compute.VirtualMachineScaleSetVM, compute.VirtualMachineScaleSetVM),
    }

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sets: dict[str, ScaleSet] = {}

    def add(self, one: ScaleSet) -> ScaleSet:
        self.sets[one.name.lower()] = one
        self.settle_sets()
        return one

    def settle_sets(self) -> None:
        """What sets do by themselves."""
        with self.state.lock:
            for one in self.sets.values():
                one.machines = [machine for machine in one.machines if machine.stage != "Deleting"]
                while len(one.machines) < one.capacity:
                    one.machines.append(ScaleSetMachine(one.made))
                    one.made += 1
                for machine in sorted(one.machines, key=lambda each: -each.number)[
                    : len(one.machines) - one.capacity
                ]:
                    machine.stage = "Deleting"

    # --- methods ----------------------------------------------------------------------------------------------

    def _set(self, names: dict[str, str]) -> ScaleSet:
        name = names.get("vmScaleSetName") or names["virtualMachineScaleSetName"]
        found = self.sets.get(name.lower())
        if found is None:
            what = f"Microsoft.Compute/virtualMachineScaleSets/{name}"
            raise ArmError(404, "ResourceNotFound", f"The Resource '{what}' was not found.")
        return found

    def _set_body(self, one: ScaleSet) -> dict[str, Any]:
        return {
            "id": f"{self.group_id}/providers/Microsoft.Compute/virtualMachineScaleSets/{one.name}",
            "name": one.name,
            "type": "Microsoft.Compute/virtualMachineScaleSets",
            "location": self.location,
            "etag": f'"{one.version}"',
            "sku": {"name": "Standard_NC4as_T4_v3", "tier": "Standard", "capacity": one.capacity},
            "properties": {"orchestrationMode": one.mode, "provisioningState": "Succeeded"},
        }

    def _virtual_machine_scale_sets_get(self, request: Request, names: dict[str, str]) -> Answer:
        return Answer(200, self._set_body(self._set(names)))

    def _virtual_machine_scale_sets_update(self, request: Request, names: dict[str, str]) -> Answer:
        one = self._set(names)
        self._check_condition(request, one.version)
        one.capacity = int(request.body["sku"]["capacity"])
        one.version += 1
        self.settle_sets()
        return Answer(200, self._set_body(one))

    def _check_condition(self, request: Request, version: int) -> None:
        if request.headers.get("if-match", f'"{version}"') != f'"{version}"':
            raise ArmError(412, "PreconditionFailed", "The etag does not match.")

    def _virtual_machine_scale_sets_delete_instances(self, request: Request, names: dict[str, str]) -> Answer:
        one = self._set(names)
        for number in request.body["instanceIds"]:
            found = [each for each in one.machines if str(each.number) == number and each.stage != "Deleting"]
            if not found:
                words = f"The provided instanceId {number} is not an active Virtual Machine Scale Set VM instanceId."
                raise ArmError(400, "InvalidParameter", words)
            found[0].stage = "Deleting"
            one.capacity -= 1
            one.version += 1
        return Answer(202)

    def _machine_body(self, one: ScaleSet, machine: ScaleSetMachine, *, view: bool) -> dict[str, Any]:
        properties: dict[str, Any] = {"provisioningState": machine.stage, "timeCreated": machine.created}
        if view:
            statuses = [{"code": f"PowerState/{machine.power}", "level": "Info"}]
            properties["instanceView"] = {"statuses": statuses}
            if machine.health:
                health = {"status": {"code": f"HealthState/{machine.health}", "level": "Info"}}
                properties["instanceView"]["vmHealth"] = health
        path = f"{self.group_id}/providers/Microsoft.Compute/virtualMachineScaleSets/{one.name}"
        return {
            "id": f"{path}/virtualMachines/{machine.number}",
            "name": f"{one.name}_{machine.number}",
            "type": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines",
            "instanceId": str(machine.number),
            "location": self.location,
            "zones": ["1"],
            "tags": dict(machine.tags),
            "etag": f'"{machine.version}"',
            "properties": properties,
        }

    def _member(self, names: dict[str, str]) -> ScaleSetMachine:
        found = [one for one in self._set(names).machines if str(one.number) == names["instanceId"]]
        if not found:
            raise ArmError(404, "ResourceNotFound", f"The entity {names['instanceId']} was not found.")
        return found[0]

    def _virtual_machine_scale_set_vms_list(self, request: Request, names: dict[str, str]) -> Answer:
        one = self._set(names)
        self.settle_sets()
        view = request.query.get("$expand") == "instanceView"
        return self._page(request, [self._machine_body(one, machine, view=view) for machine in one.machines])

    def _virtual_machine_scale_set_vms_get(self, request: Request, names: dict[str, str]) -> Answer:
        return Answer(200, self._machine_body(self._set(names), self._member(names), view=False))

    def _virtual_machine_scale_set_vms_update(self, request: Request, names: dict[str, str]) -> Answer:
        machine = self._member(names)
        self._check_condition(request, machine.version)
        machine.tags = dict(request.body["tags"])
        machine.version += 1
        return Answer(200, self._machine_body(self._set(names), machine, view=False))
