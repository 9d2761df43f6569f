"""Managed instance groups for the contract's cases: the fake that Google's discovery document checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fakes.gce.groups import Group, MigFake
from gpu.scaling.actuators.plane_harness import PlaneGroupHarness
from textnlp_fast.gpu.scaling.actuators.gcp_mig import GcpInstanceGroup

__all__ = ["RegionalHarness", "ZonalHarness", "mig_regions"]


def mig_regions() -> dict[str, dict[str, dict[str, int]]]:
    return {"us-central1": {"us-central1-a": {"nvidia-l4": 1000}, "us-central1-b": {"nvidia-l4": 1000}}}


class ZonalHarness(PlaneGroupHarness):
    kind = "gcp-mig"
    sdk = "google.cloud.compute_v1"
    place: ClassVar[str] = "us-central1-a"
    scope: ClassVar[tuple[str, str]] = ("zones", "us-central1-a")
    zones: ClassVar[tuple[str, ...]] = ("us-central1-a",)
    throttled = (403, "rateLimitExceeded")
    paths: ClassVar[Mapping[str, tuple[str, str]]] = {
        "tell": ("POST", "/resize"),
        "mark": ("POST", "/setLabels"),
        "end": ("POST", "/deleteInstances"),
    }
    cannot: ClassVar[Mapping[str, str]] = {"bounds": "a group has none; an autoscaler of Google's would"}

    def __init__(self, fake: MigFake) -> None:
        self.fake = fake
        fake.tokens = {"good"}
        self.group = fake.add(Group("llm", self.scope, list(self.zones), 3))
        fake.settle_groups()

    def actuator(self, **options: Any) -> GcpInstanceGroup:
        from google.oauth2.credentials import Credentials  # noqa: PLC0415

        mine = {
            "project": "test-project",
            "place": self.place,
            "name": "llm",
            "credentials": Credentials("good"),
        }
        return GcpInstanceGroup(**{**self.options(), **mine, **options})

    def actuator_of_nothing(self) -> GcpInstanceGroup:
        return self.actuator(name="nobody")

    def told(self) -> int:
        return self.group.target

    def alive(self) -> set[str]:
        return {f"{one.zone}/{one.name}" for one in self.fake.machines() if not one.ending}

    def pass_time(self) -> None:
        self.group.unhealthy.clear()
        for _ in range(3):
            self.fake.settle_groups()

    def hold_back(self, replica_id: str) -> None:
        self.group.checked = True
        self.group.unhealthy.add(replica_id.partition("/")[2])

    def vanish(self, replica_id: str) -> None:
        zone, _, name = replica_id.partition("/")
        self.fake.state.remove(self.fake.state.machines[zone, name])


class RegionalHarness(ZonalHarness):
    place = "us-central1"
    scope = ("regions", "us-central1")
    zones = ("us-central1-a", "us-central1-b")
