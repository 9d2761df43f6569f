"""Azure for the contract's cases: the fake that Microsoft's own models check."""

from __future__ import annotations

import base64
import time
from typing import Any, ClassVar

from fakes.azure_arm import ArmFake
from fakes.azure_arm.server import GROUP, SUBSCRIPTION
from fakes.azure_arm.state import Size
from fakes.control_plane import ControlPlaneFault
from gpu.providers.harness import Harness
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
_ALWAYS = 10**9
_PLENTY = 1000


def arm_sizes() -> dict[str, Size]:
    """Two sizes in two zones and outside of them."""
    return {
        name: Size({"": _PLENTY, "1": _PLENTY, "2": _PLENTY}, "standardNCASv3_T4Family")
        for name in ("Standard_NC4as_T4_v3", "Standard_NC8as_T4_v3")
    }


class StaticToken:
    """A credential of azure-identity's form that always has the same token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        from azure.core.credentials import AccessToken  # noqa: PLC0415

        return AccessToken(self.token, int(time.time()) + 3600)


class AzureHarness(Harness):
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

    def __init__(self, fake: ArmFake) -> None:
        self.fake = fake
        fake.tokens = {"good"}
        fake.page_size = 50
        self._free = {name: dict(one.free) for name, one in fake.state.sizes.items()}

    def provider(self, *, region: str | None = None, **options: Any) -> Provider:
        quick: dict[str, Any] = {
            "resource_group": GROUP,
            "subscription": SUBSCRIPTION,
            "subnet": "network/gpu",
            "ssh_public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE test",
            "credential": StaticToken("good"),
            "endpoint_url": self.fake.endpoint_url,
            "first_pause_s": 0.01,
            "deadline_s": 60.0,
            "timeout_s": 20.0,
        }
        return AzureProvider(region or self.region, **{**quick, **options})

    def truth(self) -> dict[str, str | None]:
        return {
            one.name: one.body["tags"].get(LAUNCH_TAG)
            for one in self.fake.machines()
            if one.stage != "Deleting"
        }

    def heal(self) -> None:
        self.fake.heal()
        self.fake.tokens = {"good"}
        self.fake.state.hide_for = 0
        for name, free in self._free.items():
            self.fake.state.sizes[name].free.update(free)
            self.fake.state.sizes[name].quota = None

    def no_capacity(self) -> None:
        self.capacity(0)

    def capacity(self, count: int) -> None:
        for one in self.fake.state.sizes.values():
            one.free.update(dict.fromkeys(one.free, count))

    def no_quota(self) -> None:
        for one in self.fake.state.sizes.values():
            one.quota = 0

    def throttle(self, times: int) -> None:
        self.fake.inject(ControlPlaneFault("status", code=429, reason="TooManyRequests", times=times))

    def lose_answer(self, verb: str, times: int = 1) -> None:
        method, path = _VERBS[verb]
        self.fake.inject(ControlPlaneFault("lose_answer", method=method, path=path, times=times))

    def lose_request(self, verb: str, times: int = 1) -> None:
        method, path = _VERBS[verb]
        self.fake.inject(ControlPlaneFault("lose_request", method=method, path=path, times=times))

    def hide_new(self, looks: int) -> None:
        self.fake.state.hide_for = looks

    def expire_credentials(self) -> None:
        self.fake.tokens = {"another"}

    def deny(self) -> None:
        message = "The client does not have authorization to perform action 'virtualMachines/write'."
        self.fake.inject(
            ControlPlaneFault(
                "status",
                method="PUT",
                path="/virtualMachines/",
                code=403,
                reason="AuthorizationFailed",
                message=message,
                times=_ALWAYS,
            )
        )

    def launches_asked(self) -> int:
        return len(self.fake.asked("PUT", "/virtualMachines/"))

    def user_data_of(self, instance_id: str) -> str:
        system = self.fake.state.machines[instance_id].body["properties"]["osProfile"]
        return base64.b64decode(system["customData"]).decode()

    def disk_gib_of(self, instance_id: str) -> int:
        return int(self.fake.state.things["disks"][f"{instance_id}-os"]["size"])
