"""Azure for the contract's cases: the fake that Microsoft's own models check."""

from __future__ import annotations

import base64
import time
from typing import Any, ClassVar

from fakes.azure_arm import ArmFake
from fakes.azure_arm.server import GROUP, SUBSCRIPTION
from fakes.azure_arm.state import Size
from gpu.providers.plane_harness import PLENTY, PlaneHarness
from textnlp_fast.gpu.providers.azure import AzureProvider
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, Provider

__all__ = ["AzureHarness", "StaticToken", "arm_sizes"]

_VERBS = {
    "launch": ("PUT", "/virtualMachines/"),
    "terminate": ("DELETE", "/virtualMachines/"),
    "tag": ("PATCH", "/virtualMachines/"),
    "stop": ("POST", "/deallocate"),
    "start": ("POST", "/start"),
    "describe": ("GET", "/virtualMachines/"),
}


def arm_sizes() -> dict[str, Size]:
    """Two sizes in two zones and outside of them."""
    return {
        name: Size({"": PLENTY, "1": PLENTY, "2": PLENTY}, "standardNCASv3_T4Family")
        for name in ("Standard_NC4as_T4_v3", "Standard_NC8as_T4_v3")
    }


class StaticToken:
    """A credential of azure-identity's form that always has the same token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        from azure.core.credentials import AccessToken  # noqa: PLC0415

        return AccessToken(self.token, int(time.time()) + 3600)


class AzureHarness(PlaneHarness):
    name = "azure"
    region = "westeurope"
    bad_region = "moonbase1"
    instance_type = "Standard_NC4as_T4_v3"
    other_type = "Standard_NC8as_T4_v3"
    bad_type = "Standard_NC99as_T9_v9"
    zone = "westeurope-1"
    bad_zone = "westeurope-7"
    image = "microsoft-dsvm:ubuntu-hpc:2204:latest"
    bad_image = "microsoft-dsvm:missing:2204:latest"
    spot_price_usd = 0.2
    sdk: ClassVar[str | None] = "azure.mgmt.compute"
    verbs = _VERBS
    throttled = (429, "TooManyRequests")

    def __init__(self, fake: ArmFake) -> None:
        super().__init__(fake)
        self._free = {name: dict(one.free) for name, one in fake.state.sizes.items()}

    def provider(self, *, region: str | None = None, **options: Any) -> Provider:
        mine: dict[str, Any] = {
            **self.options(),
            "resource_group": GROUP,
            "subscription": SUBSCRIPTION,
            "subnet": "network/gpu",
            "ssh_public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE test",
            "credential": StaticToken("good"),
        }
        return AzureProvider(region or self.region, **{**mine, **options})

    def truth(self) -> dict[str, str | None]:
        return {
            one.name: one.body["tags"].get(LAUNCH_TAG)
            for one in self.fake.machines()
            if one.stage != "Deleting"
        }

    def heal(self) -> None:
        super().heal()
        for name, free in self._free.items():
            self.fake.state.sizes[name].free.update(free)
            self.fake.state.sizes[name].quota = None

    def capacity(self, count: int) -> None:
        for one in self.fake.state.sizes.values():
            one.free.update(dict.fromkeys(one.free, count))

    def no_quota(self) -> None:
        for one in self.fake.state.sizes.values():
            one.quota = 0

    def deny(self) -> None:
        message = "The client does not have authorization to perform action 'virtualMachines/write'."
        self.deny_to("launch", reason="AuthorizationFailed", message=message)

    def user_data_of(self, instance_id: str) -> str:
        system = self.fake.state.machines[instance_id].body["properties"]["osProfile"]
        return base64.b64decode(system["customData"]).decode()

    def disk_gib_of(self, instance_id: str) -> int:
        return int(self.fake.state.things["disks"][f"{instance_id}-os"]["size"])
