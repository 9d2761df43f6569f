"""Deployments, StatefulSets and a CRD for the contract's cases, on the fake API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fakes.control_plane import ControlPlaneFault
from fakes.kube_api import KubeFake, Workload
from gpu.scaling.actuators.harness import GroupHarness
from textnlp_fast.gpu.scaling.actuators.kubernetes import KubernetesScale

__all__ = ["CustomHarness", "DeploymentHarness", "StatefulSetHarness"]

_ALWAYS = 10**9


class DeploymentHarness(GroupHarness):
    kind = "kubernetes"
    resource: ClassVar[str] = "deployment"
    plural: ClassVar[str] = "apps/v1/deployments"
    ordered: ClassVar[bool] = False
    cannot: ClassVar[Mapping[str, str]] = {"bounds": "a Scale has none"}
    drains: ClassVar[bool] = True

    def __init__(self, fake: KubeFake) -> None:
        self.fake = fake
        fake.tokens = {"good"}
        self.workload = fake.add(Workload(self.plural, "llm", 3, ordered=self.ordered))

    def actuator(self, **options: Any) -> KubernetesScale:
        quick: dict[str, Any] = {"first_pause_s": 0.01, "timeout_s": 20.0, "token": "good", "name": "llm"}
        if not self.drains:
            options.pop("drain", None)
        where = {"namespace": "prod", "resource": self.resource, "server": self.fake.endpoint_url}
        return KubernetesScale(**{**quick, **where, **options})

    def actuator_of_nothing(self) -> KubernetesScale:
        return self.actuator(name="nobody")

    def told(self) -> int:
        return self.workload.replicas

    def alive(self) -> set[str]:
        return {pod.name for pod in self.workload.pods if not pod.ending}

    def pass_time(self) -> None:
        self.fake.settle()
        for pod in self.workload.pods:
            pod.ready = True
        self.fake.settle()

    def hold_back(self, replica_id: str) -> None:
        (pod,) = [pod for pod in self.workload.pods if pod.name == replica_id]
        pod.ready = False

    def vanish(self, replica_id: str) -> None:
        self.workload.pods = [pod for pod in self.workload.pods if pod.name != replica_id]

    def heal(self) -> None:
        self.fake.heal()
        self.fake.tokens = {"good"}

    def throttle(self, times: int) -> None:
        self.fake.inject(ControlPlaneFault("status", code=429, reason="TooManyRequests", times=times))

    def lose_answer(self, verb: str) -> None:
        method, path = {"tell": ("PATCH", "/scale"), "mark": ("PATCH", "/pods/"), "end": ("PATCH", "/scale")}[
            verb
        ]
        self.fake.inject(ControlPlaneFault("lose_answer", method=method, path=path))

    def crash_after(self, requests: int, *, heard: bool) -> None:
        if heard:
            self.fake.inject(ControlPlaneFault("lose_answer", after=requests))
        self.fake.inject(ControlPlaneFault("lose_request", after=requests, times=_ALWAYS))

    def expire_credentials(self) -> None:
        self.fake.tokens = {"another"}

    def requests(self) -> int:
        return len(self.fake.exchanges)


class StatefulSetHarness(DeploymentHarness):
    resource = "statefulset"
    plural = "apps/v1/statefulsets"
    ordered = True
    cannot: ClassVar[Mapping[str, str]] = {
        "bounds": "a Scale has none",
        "new names": "an ordinal that is lost comes again",
        "starting": "the highest ordinal goes, whether it serves or not",
    }

    def vanish(self, replica_id: str) -> None:
        super().vanish(replica_id)
        self.fake.settle()


class CustomHarness(DeploymentHarness):
    """A resource whose order of going nobody knows."""

    resource = "models.example.com/v1alpha1/servers"
    plural = "models.example.com/v1alpha1/servers"
    drains = False
    cannot: ClassVar[Mapping[str, str]] = {
        "bounds": "a Scale has none",
        "chosen victims": "its controller chooses",
    }
