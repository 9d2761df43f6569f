"""The /scale of Kubernetes: the contract for three kinds of resources, and what only they have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("kubernetes", reason="needs kubernetes, for the models of its API")

from fakes.control_plane import ControlPlaneFault
from fakes.kube_api import KubeFake, Pod
from gpu.scaling.actuators.contract_cases import ActuatorContract
from gpu.scaling.actuators.harness import Streams, settled
from gpu.scaling.actuators.kube_harness import CustomHarness, DeploymentHarness, StatefulSetHarness
from textnlp_fast.errors import AuthenticationError, InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.providers.calling import NoCredentialsError
from textnlp_fast.gpu.scaling.actuators.api_server import access
from textnlp_fast.gpu.scaling.actuators.contract import Replica
from textnlp_fast.gpu.scaling.actuators.kubernetes import KubernetesScale


@pytest.fixture
def fake() -> Iterator[KubeFake]:
    with KubeFake() as server:
        yield server
        assert server.violations == []


@pytest.fixture
def deployment(fake: KubeFake) -> DeploymentHarness:
    return DeploymentHarness(fake)


class TestDeployment(ActuatorContract):
    @pytest.fixture
    def harness(self, fake: KubeFake) -> DeploymentHarness:
        return DeploymentHarness(fake)


class TestStatefulSet(ActuatorContract):
    @pytest.fixture
    def harness(self, fake: KubeFake) -> StatefulSetHarness:
        return StatefulSetHarness(fake)


class TestCustomResource(ActuatorContract):
    @pytest.fixture
    def harness(self, fake: KubeFake) -> CustomHarness:
        return CustomHarness(fake)


class TestScale:
    def test_a_status_that_changes_meanwhile_is_no_reason_to_fail(
        self, deployment: DeploymentHarness
    ) -> None:
        deployment.fake.touch = 3
        assert deployment.actuator().scale_to(5, decision_id="d-1").desired == 5

    def test_somebody_elses_number_is_not_overwritten_unseen(self, deployment: DeploymentHarness) -> None:
        def meanwhile() -> None:
            deployment.workload.replicas, deployment.workload.version = 8, 99

        deployment.fake.inject(ControlPlaneFault("garble", method="GET", path="/scale", meanwhile=meanwhile))
        actuator = deployment.actuator(drain=Streams())
        settled(deployment, actuator, 5)
        patches = [one.body for one in deployment.fake.asked("PATCH", "/scale")]
        assert all(one["metadata"]["resourceVersion"] for one in patches)

    def test_a_pod_that_was_not_ready_goes_in_the_place_of_one_that_drained(
        self, deployment: DeploymentHarness
    ) -> None:
        streams = Streams()
        streams.all_busy = True
        actuator = deployment.actuator(drain=streams)
        actuator.scale_to(2, decision_id="d-1")
        (drained,) = set(streams.asked)
        crashing = min(deployment.alive() - {drained})
        deployment.hold_back(crashing)
        streams.all_busy = False
        actuator.scale_to(2, decision_id="d-1")
        deployment.fake.settle()
        assert drained not in deployment.alive()
        assert (deployment.told(), len(deployment.alive())) == (2, 2)

    def test_a_number_that_changes_before_the_end_of_one_is_not_lowered(
        self, deployment: DeploymentHarness
    ) -> None:
        before = deployment.alive()
        asked: list[str] = []

        def drain(replica: Replica, _within_s: float) -> bool:
            if not asked:
                deployment.workload.replicas = 8
                deployment.workload.version += 1
                deployment.fake.settle()
            asked.append(replica.replica_id)
            return replica.replica_id == asked[0]

        deployment.actuator(drain=drain).scale_to(2, decision_id="d-1")
        deployment.fake.settle()
        assert deployment.alive() >= before - {asked[0]}
        assert deployment.told() == 7  # the one that was empty has gone, and nobody else

    def test_a_statefulset_that_lost_a_pod_is_not_told_less(self, fake: KubeFake) -> None:
        harness = StatefulSetHarness(fake)
        fake.controllers_wait = True
        harness.workload.pods = [pod for pod in harness.workload.pods if pod.name != "llm-0"]
        streams = Streams({"llm-2"})
        actuator = harness.actuator(drain=streams)
        actuator.scale_to(2, decision_id="d-1")
        fake.controllers_wait = False
        fake.settle()
        assert harness.alive() == {"llm-0", "llm-1", "llm-2"}
        streams.busy.clear()
        settled(harness, actuator, 2)

    def test_nobody_is_ended_during_a_rollout(self, deployment: DeploymentHarness) -> None:
        newer: Pod = deployment.workload.pods[0]
        newer.owner = "set-2"
        actuator = deployment.actuator(drain=Streams())
        assert actuator.scale_to(2, decision_id="d-1").draining == 1
        assert (deployment.told(), len(deployment.alive())) == (3, 3)
        newer.owner = "set-1"
        settled(deployment, actuator, 2)

    def test_a_statefulset_waits_for_its_highest_ordinal(self, fake: KubeFake) -> None:
        harness = StatefulSetHarness(fake)
        streams = Streams({"llm-2"})
        actuator = harness.actuator(drain=streams)
        actuator.scale_to(1, decision_id="d-1")
        assert harness.alive() == {"llm-0", "llm-1", "llm-2"}
        streams.busy.clear()
        settled(harness, actuator, 1)
        assert harness.alive() == {"llm-0"}

    def test_without_a_drain_the_pods_end_in_kubernetes_way(self, deployment: DeploymentHarness) -> None:
        deployment.actuator().scale_to(1, decision_id="d-1")
        assert deployment.told() == 1
        assert deployment.fake.asked("PATCH", "/pods") == deployment.fake.asked("DELETE") == []

    def test_a_resource_whose_order_is_not_known_drains_nobody(self, fake: KubeFake) -> None:
        with pytest.raises(InvalidInputError, match="nobody knows"):
            KubernetesScale(
                namespace="p", resource="x.io/v1/things", name="n", drain=Streams(), server=fake.endpoint_url
            )

    def test_a_scale_without_a_selector(self, deployment: DeploymentHarness) -> None:
        deployment.workload.selector = None
        with pytest.raises(InvalidInputError, match="selector"):
            deployment.actuator().read()

    def test_forbidden(self, deployment: DeploymentHarness) -> None:
        deployment.fake.inject(ControlPlaneFault("status", code=403, reason="Forbidden", path="/scale"))
        with pytest.raises(AuthenticationError) as caught:
            deployment.actuator().read()
        assert "gpu-actuators" in caught.value.hint

    def test_a_proxys_404_says_nothing_of_the_fleet(self, deployment: DeploymentHarness) -> None:
        deployment.fake.inject(ControlPlaneFault("garble", message="<html>", times=10**6))
        with pytest.raises(ProviderUnavailableError):
            deployment.actuator(retries=1).read()

    @pytest.mark.parametrize(
        "resource", ["", "deployment/x", "v1", "a/b/c/d", "apps/v1/Deployments", "x\n/v1/a", None]
    )
    def test_what_is_no_resource(self, resource: str) -> None:
        with pytest.raises(InvalidInputError):
            KubernetesScale(namespace="p", resource=resource, name="n")

    @pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "a" * 254])
    def test_what_is_no_name(self, name: str) -> None:
        for names in ({"namespace": name, "name": "n"}, {"namespace": "n", "name": name}):
            with pytest.raises(InvalidInputError):
                KubernetesScale(resource="deployment", **names)


class TestAccess:
    def test_in_a_pod_the_token_is_read_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        (tmp_path / "token").write_text("first\n")
        import certifi  # noqa: PLC0415

        (tmp_path / "ca.crt").write_text(Path(certifi.where()).read_text())
        found = access(account=tmp_path)
        assert (found.server, found.token()) == ("https://[fd00::1]:443", "first")
        (tmp_path / "token").write_text("second")
        assert found.token() == "second"

    def test_a_kubeconfig(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployment: DeploymentHarness
    ) -> None:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        entry = {
            "clusters": [{"name": "c", "cluster": {"server": deployment.fake.endpoint_url}}],
            "users": [{"name": "u", "user": {"token": "good"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "config").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **entry}))
        actuator = KubernetesScale(
            namespace="prod", resource="deployment", name="llm", kubeconfig=str(tmp_path / "config")
        )
        assert actuator.read().ready == 3

    def test_no_cluster(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        actuator = KubernetesScale(
            namespace="prod", resource="deployment", name="llm", kubeconfig=str(tmp_path / "missing")
        )
        with pytest.raises(NoCredentialsError):
            actuator.read()

    def test_a_token_does_not_go_over_plain_http(self) -> None:
        with pytest.raises(InvalidInputError, match="TLS"):
            access(server="http://kubernetes.example:6443", token="secret")
