"""Scale sets for the contract's cases: the fake that Microsoft's own models check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fakes.azure_arm.scale_sets import ScaleSet, ScaleSetMachine, VmssFake
from fakes.azure_arm.server import GROUP, SUBSCRIPTION
from gpu.providers.azure_harness import StaticToken
from gpu.scaling.actuators.plane_harness import PlaneGroupHarness
from textnlp_fast.gpu.scaling.actuators.azure_vmss import AzureScaleSet

__all__ = ["VmssHarness"]


class VmssHarness(PlaneGroupHarness):
    kind = "azure-vmss"
    sdk = "azure.mgmt.compute"
    throttled = (429, "TooManyRequests")
    paths: ClassVar[Mapping[str, tuple[str, str]]] = {
        "tell": ("PATCH", "/virtualMachineScaleSets/llm"),
        "mark": ("PUT", "/virtualMachines/"),
        "end": ("POST", "/delete"),
    }
    cannot: ClassVar[Mapping[str, str]] = {"bounds": "a set has none; an autoscale setting of Azure's would"}

    def __init__(self, fake: VmssFake) -> None:
        self.fake = fake
        fake.tokens = {"good"}
        self.set = fake.add(ScaleSet("llm", 3))

    def actuator(self, **options: Any) -> AzureScaleSet:
        mine = {
            "subscription": SUBSCRIPTION,
            "resource_group": GROUP,
            "name": "llm",
            "credential": StaticToken("good"),
        }
        return AzureScaleSet(**{**self.options(), **mine, **options})

    def actuator_of_nothing(self) -> AzureScaleSet:
        return self.actuator(name="nobody")

    def told(self) -> int:
        return self.set.capacity

    def machine(self, replica_id: str) -> ScaleSetMachine:
        (found,) = [one for one in self.set.machines if str(one.number) == replica_id]
        return found

    def alive(self) -> set[str]:
        return {str(one.number) for one in self.set.machines if one.stage != "Deleting"}

    def pass_time(self) -> None:
        self.fake.settle_sets()

    def hold_back(self, replica_id: str) -> None:
        self.machine(replica_id).health = "unhealthy"

    def vanish(self, replica_id: str) -> None:
        self.machine(replica_id).stage = "Deleting"
