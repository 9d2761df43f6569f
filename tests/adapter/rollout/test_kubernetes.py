"""Kubernetes: what is applied, what is waited for, and what is brought back, on a server that checks bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("kubernetes", reason="the extra `kubernetes`: its models check the bodies")

from safetensors.numpy import save_file

from adapter.rollout.kube_deployments import DeploymentsFake
from fakes.control_plane import ControlPlaneFault
from textnlp_fast.adapter import Cache, Deployment, Engine, Model, Rollout
from textnlp_fast.adapter.description import Placement
from textnlp_fast.adapter.planning import make_plan
from textnlp_fast.adapter.rollout.kubernetes import KubernetesRollout
from textnlp_fast.adapter.targets.kubernetes import manifests
from textnlp_fast.cli.program import run
from textnlp_fast.errors import AuthenticationError, DeploymentNotFoundError, InvalidInputError
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.scaling.actuators.api_server import access
from textnlp_fast.storage import Registry, Repository


@pytest.fixture
def fake() -> Iterator[DeploymentsFake]:
    with DeploymentsFake("default") as server:
        yield server
    assert not server.violations


class Cluster:
    """A repository with versions, and rollouts of them to the cluster."""

    def __init__(self, folder: Path, fake: DeploymentsFake) -> None:
        self.fake = fake
        self.repository = Repository.open(str(folder / "repository"), create=True)
        for number, version in enumerate(("1.0.0", "2.0.0", "3.0.0")):
            made = folder / version
            made.mkdir()
            save_file({"w": np.full(8, number, dtype=np.float32)}, made / "model.safetensors")
            self.repository.push(made, "llm", version)
        self.registry = Registry(self.repository, actor="tests")
        self.told: list[str] = []

    def rollout(self, version: str, token: str = "good") -> KubernetesRollout:
        described = Deployment(
            name="chat",
            model=Model(reference=f"llm@{version}", repository="s3://bucket/models"),
            engine=Engine(
                kind="openai", image="registry.example.org/engine:1", command=("serve", "{model_dir}")
            ),
            cache=Cache(image="registry.example.org/textnlp-fast:1"),
            rollout=Rollout(bake_s=0),
            placement=Placement(namespace="default"),
        )
        plan = make_plan(described, self.repository)
        return KubernetesRollout(
            self.registry,
            "llm",
            "chat",
            manifests(plan),
            lambda: access(server=self.fake.endpoint_url, token=token),
            patience=Patience(timeout_s=20, deadline_s=30, first_pause_s=0.01),
            poll_s=0.01,
            told=self.told.append,
        )

    def workload(self) -> dict[str, Any]:
        return self.fake.objects["deployments", "chat"]

    def version(self) -> str:
        return str(self.workload()["spec"]["template"]["metadata"]["annotations"]["textnlp-fast/version"])


@pytest.fixture
def cluster(tmp_path: Path, fake: DeploymentsFake) -> Cluster:
    return Cluster(tmp_path, fake)


def test_a_version_is_applied_watched_and_noted(cluster: Cluster) -> None:
    assert cluster.rollout("1.0.0").apply("1.0.0").phase == "succeeded"
    assert cluster.rollout("2.0.0").apply("2.0.0", note="better").phase == "succeeded"
    assert cluster.version() == "llm@2.0.0"
    kinds = {plural for plural, _ in cluster.fake.objects}
    assert kinds >= {"deployments", "services", "configmaps", "poddisruptionbudgets"}
    deployed = cluster.registry.deployments("llm")["llm"]["chat"]
    assert (deployed.version, deployed.state, deployed.previous) == ("2.0.0", "healthy", ("1.0.0",))
    assert "waiting for the cluster to see it" in cluster.told


def test_what_does_not_get_ready_is_undone_and_the_history_says_why(cluster: Cluster) -> None:
    cluster.rollout("1.0.0").apply("1.0.0")
    before = cluster.workload()["spec"]["template"]
    cluster.fake.broken = {"2.0.0"}
    outcome = cluster.rollout("2.0.0").apply("2.0.0")
    assert (outcome.phase, outcome.version) == ("rolled-back", "1.0.0")
    assert cluster.workload()["spec"]["template"] == before
    deployed = cluster.registry.deployments("llm")["llm"]["chat"]
    assert (deployed.version, deployed.state) == ("1.0.0", "rolled-back")
    assert "timed out progressing" in deployed.note
    changes = [
        each for each in cluster.registry.deployment_history("llm", "chat") if "rollback" in each.action
    ]
    assert "timed out progressing" in changes[0].detail["note"]


def test_what_cannot_go_back_says_so(cluster: Cluster) -> None:
    cluster.fake.broken = {"1.0.0", "2.0.0"}
    first = cluster.rollout("1.0.0").apply("1.0.0")
    assert (first.phase, "no template of another version" in first.reason) == ("stuck", True)
    second = cluster.rollout("2.0.0").apply("2.0.0")
    assert (second.phase, "did not become ready again" in second.reason) == ("stuck", True)
    assert cluster.registry.deployments("llm")["llm"]["chat"].state == "failed"


def test_lost_answers_and_throttles_change_nothing(cluster: Cluster) -> None:
    cluster.rollout("1.0.0").apply("1.0.0")
    for fault in (
        ControlPlaneFault("lose_answer", method="PATCH", path="/deployments/"),
        ControlPlaneFault("lose_request", method="GET", path="/deployments/"),
        ControlPlaneFault("status", code=429, reason="TooManyRequests"),
    ):
        cluster.fake.inject(fault)
    assert cluster.rollout("2.0.0").apply("2.0.0").phase == "succeeded"
    assert cluster.workload()["metadata"]["generation"] == 2


def test_a_call_again_goes_on(cluster: Cluster) -> None:
    """What a killed process leaves: applied, and noted as under way."""
    cluster.rollout("1.0.0").apply("1.0.0")
    rollout = cluster.rollout("2.0.0")
    cluster.registry.deploy("llm", "2.0.0", "chat", state="rolling-out")
    for one in rollout._manifests:
        rollout._apply(one)
    assert cluster.rollout("2.0.0").apply("2.0.0").phase == "succeeded"
    assert cluster.registry.deployments("llm")["llm"]["chat"].previous == ("1.0.0",)


def test_strangers_and_kinds_that_nobody_knows_are_refused(cluster: Cluster) -> None:
    with pytest.raises(AuthenticationError):
        cluster.rollout("1.0.0", token="bad").apply("1.0.0")
    with pytest.raises(InvalidInputError, match="no Deployment"):
        KubernetesRollout(cluster.registry, "llm", "chat", [], lambda: access(server="https://x:1"))


# --- the way back ----------------------------------------------------------------------------------------------


def test_back_to_the_version_before(cluster: Cluster) -> None:
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        cluster.rollout(version).apply(version)
    assert cluster.rollout("2.0.0").roll_back("2.0.0", note="error rate").phase == "succeeded"
    assert cluster.version() == "llm@2.0.0"
    deployed = cluster.registry.deployments("llm")["llm"]["chat"]
    assert (deployed.version, deployed.state, deployed.previous) == ("2.0.0", "healthy", ("1.0.0",))
    changes = cluster.registry.deployment_history("llm", "chat")
    back = next(each for each in changes if each.action == "deploy.rollback")
    assert back.detail["note"] == "error rate"


def test_a_way_back_that_was_killed_goes_on_to_the_same_version(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        cluster.rollout(version).apply(version)
    killed = cluster.rollout("1.0.0")
    monkeypatch.setattr(killed, "_watch", lambda lease: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        killed.roll_back("1.0.0")
    deployed = cluster.registry.deployments("llm")["llm"]["chat"]
    assert (deployed.version, deployed.state) == ("3.0.0", "rolling-back")
    # No collection takes it: the pods are about to load it.
    assert cluster.registry.references("llm").state_of("1.0.0").pinned
    assert cluster.rollout("1.0.0").roll_back("1.0.0").phase == "succeeded"
    assert cluster.registry.deployments("llm")["llm"]["chat"].version == "1.0.0"
    assert cluster.registry.references("llm").state_of("1.0.0").pinned is None


def test_a_way_back_that_does_not_get_ready_is_stuck(cluster: Cluster) -> None:
    cluster.rollout("1.0.0").apply("1.0.0")
    cluster.rollout("2.0.0").apply("2.0.0")
    cluster.fake.broken = {"1.0.0"}
    outcome = cluster.rollout("1.0.0").roll_back("1.0.0")
    assert (outcome.phase, "timed out progressing" in outcome.reason) == ("stuck", True)
    deployed = cluster.registry.deployments("llm")["llm"]["chat"]
    assert (deployed.version, deployed.state) == ("1.0.0", "failed")


def test_a_version_that_was_never_served_is_no_way_back(cluster: Cluster) -> None:
    with pytest.raises(DeploymentNotFoundError):
        cluster.rollout("1.0.0").roll_back("1.0.0")
    cluster.rollout("1.0.0").apply("1.0.0")
    with pytest.raises(DeploymentNotFoundError, match=r"has not served 3\.0\.0"):
        cluster.rollout("3.0.0").roll_back("3.0.0")
    assert cluster.version() == "llm@1.0.0"


def test_the_commands(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = {
        "name": "chat",
        "model": {"reference": "llm@1.0.0", "repository": "s3://bucket/models"},
        "engine": {"kind": "openai", "image": "e:1", "command": ["serve", "{model_dir}"]},
        "cache": {"image": "t:1"},
        "placement": {"namespace": "default"},
    }
    file = tmp_path / "chat.yaml"
    file.write_text(yaml.safe_dump(described))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": cluster.fake.endpoint_url}}],
        "users": [{"name": "u", "user": {"token": "good"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))

    def verb(name: str, *more: str) -> tuple[int, str]:
        words = ["deploy", name, str(file), "--target", "k8s", "--kubeconfig", str(kubeconfig)]
        with pytest.raises(SystemExit) as ended:
            run([*words, "--repo", cluster.repository.url, *more])
        return int(ended.value.code or 0), capsys.readouterr().out

    code, said = verb("status")
    assert code == 0
    assert "registry: chat serves nothing" in said and "cluster: there is no such Deployment" in said
    assert verb("rollback")[0] == DeploymentNotFoundError.exit_code
    assert verb("apply")[0] == 0
    assert verb("apply", "--version", "2.0.0")[0] == 0
    status = json.loads(verb("status", "--json")[1])
    assert (status["registry"]["version"], status["cluster"]["version"], status["agree"]) == (
        "2.0.0",
        "2.0.0",
        True,
    )
    assert status["cluster"]["ready"] is True
    assert verb("rollback", "--note", "error rate") == (0, "chat: succeeded, 1.0.0\n")
    assert cluster.version() == "llm@1.0.0"
    cluster.registry.deploy("llm", "3.0.0", "chat")
    code, said = verb("status")
    assert code == 0
    assert "chat serves 3.0.0" in said and "cluster: 1.0.0," in said and "they differ" in said
