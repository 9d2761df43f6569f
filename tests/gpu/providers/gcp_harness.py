"""Compute Engine for the contract's cases: the fake that Google's discovery document checks."""

from __future__ import annotations

from typing import Any, ClassVar

from fakes.gce import GceFake
from gpu.providers.plane_harness import PLENTY, PlaneHarness
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, Provider
from textnlp_fast.gpu.providers.gcp import GcpProvider

__all__ = ["GcpHarness", "gce_regions"]

_VERBS = {
    "launch": ("POST", "bulkInsert"),
    "terminate": ("DELETE", "/instances/"),
    "tag": ("POST", "/setLabels"),
    "stop": ("POST", "/stop"),
    "start": ("POST", "/start"),
    "describe": ("GET", "/instances/"),
}


def gce_regions() -> dict[str, dict[str, dict[str, int]]]:
    """A region with two zones that offer L4s, and one that offers nothing."""
    offered = {"nvidia-l4": PLENTY, "nvidia-tesla-t4": PLENTY}
    return {
        "us-central1": {
            "us-central1-a": dict(offered),
            "us-central1-b": dict(offered),
            "us-central1-f": {},
        }
    }


class GcpHarness(PlaneHarness):
    name = "gcp"
    region = "us-central1"
    bad_region = "us-central9"
    instance_type = "g2-standard-4"
    other_type = "n1-standard-8+nvidia-tesla-t4x1"
    bad_type = "g99-standard-4"
    zone = "us-central1-a"
    bad_zone = "us-central1-q"
    image = "projects/images/global/images/family/ubuntu-with-driver"
    bad_image = "projects/images/global/images/missing"
    sdk: ClassVar[str | None] = "google.cloud.compute_v1"
    verbs = _VERBS
    throttled = (403, "rateLimitExceeded")
    cannot: ClassVar[dict[str, str]] = {
        "price cap": "Compute Engine takes no cap on spot: the provider holds it against price_of",
    }

    def __init__(self, fake: GceFake) -> None:
        super().__init__(fake)
        self._free = {zone: dict(free) for zone, free in fake.state.regions[self.region].items()}

    def provider(self, *, region: str | None = None, **options: Any) -> Provider:
        from google.oauth2.credentials import Credentials  # noqa: PLC0415

        mine: dict[str, Any] = {
            **self.options(),
            "project": "test-project",
            "credentials": Credentials("good"),
        }
        return GcpProvider(region or self.region, **{**mine, **options})

    def truth(self) -> dict[str, str | None]:
        return {
            f"{one.zone}/{one.name}": one.labels.get(LAUNCH_TAG)
            for one in self.fake.machines()
            if not (one.status == "STOPPING" and one.ending)
        }

    def heal(self) -> None:
        super().heal()
        self.fake.state.quotas[self.region].clear()
        for zone, free in self._free.items():
            self.fake.state.regions[self.region][zone].update(free)

    def capacity(self, count: int) -> None:
        for free in self.fake.state.regions[self.region].values():
            free.update(dict.fromkeys(free, count))

    def no_quota(self) -> None:
        self.fake.state.quotas[self.region]["NVIDIA_L4_GPUS"] = 0

    def deny(self) -> None:
        message = "Required 'compute.instances.create' permission for 'projects/test-project'"
        self.deny_to("launch", reason="forbidden", message=message)

    def user_data_of(self, instance_id: str) -> str:
        (item,) = self._machine(instance_id).properties["metadata"]["items"]
        return str(item["value"])

    def disk_gib_of(self, instance_id: str) -> int:
        return int(self._machine(instance_id).properties["disks"][0]["initializeParams"]["diskSizeGb"])

    def _machine(self, instance_id: str) -> Any:
        zone, _, name = instance_id.partition("/")
        return self.fake.state.machines[zone, name]
