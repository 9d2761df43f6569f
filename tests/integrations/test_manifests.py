"""The manifests that ship: against the models of Kubernetes' client, the fields of KEDA's CRD, and each other."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from integrations.hpa_reference import Hpa, Rules
from textnlp_fast.cli.gpu.external_metrics import command as external_metrics
from textnlp_fast.cli.gpu.keda import command as keda
from textnlp_fast.integrations.fleet_file import read_fleets
from textnlp_fast.integrations.fleet_settings import read_fleet
from textnlp_fast.integrations.hpa import shown
from textnlp_fast.integrations.kubernetes_metrics import HPA_USER, VERSION

pytest.importorskip("kubernetes", reason="needs the package kubernetes")
kube_api: Any = pytest.importorskip("fakes.kube_api")

FOLDER = files("textnlp_fast.integrations") / "manifests"
MODELS = {
    "Deployment": "V1Deployment",
    "Service": "V1Service",
    "Namespace": "V1Namespace",
    "ConfigMap": "V1ConfigMap",
    "APIService": "V1APIService",
    "ClusterRole": "V1ClusterRole",
    "ClusterRoleBinding": "V1ClusterRoleBinding",
    "HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler",
}
#: Of spec in config/crd/bases/keda.sh_scaledobjects.yaml (kedacore/keda): field -> type, or the fields within.
SCALED_OBJECT: dict[str, Any] = {
    "scaleTargetRef": {"apiVersion": str, "kind": str, "name": str, "envSourceContainerName": str},
    "pollingInterval": int,
    "cooldownPeriod": int,
    "idleReplicaCount": int,
    "minReplicaCount": int,
    "maxReplicaCount": int,
    "fallback": {"failureThreshold": int, "replicas": int},
    "advanced": {
        "restoreToOriginalReplicaCount": bool,
        "horizontalPodAutoscalerConfig": {"behavior": "V2HorizontalPodAutoscalerBehavior"},
    },
    "triggers": [{"type": str, "name": str, "metricType": str, "metadata": dict, "authenticationRef": dict}],
}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = [document for document in documents(name) if document["kind"] == kind]
    return found


@pytest.mark.parametrize("name", ["keda-scaler.yaml", "external-metrics.yaml"])
def test_kubernetes_knows_every_field(name: str) -> None:
    for document in documents(name):
        kube_api._check(document, MODELS[document["kind"]], document["kind"])
    broken = documents(name)[-1]
    broken["spec" if "spec" in broken else "metadata"]["replica"] = 1
    with pytest.raises(kube_api.ApiError, match="unknown field"):
        kube_api._check(broken, MODELS[broken["kind"]], broken["kind"])


def holds(value: Any, schema: Any, where: str) -> None:
    if isinstance(schema, str):
        kube_api._check(value, schema, where)
    elif isinstance(schema, dict):
        assert set(value) <= set(schema), f"{where} has {set(value) - set(schema)}"
        for key, inner in value.items():
            holds(inner, schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        for inner in value:
            holds(inner, schema[0], f"{where}[]")
    else:
        assert type(value) is schema, where


def test_keda_knows_every_field_of_the_scaled_object_and_our_scaler_its_metadata() -> None:
    (scaled,) = documents("keda-scaledobject.yaml")
    assert (scaled["apiVersion"], scaled["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    spec = scaled["spec"]
    holds(spec, SCALED_OBJECT, "spec")
    (trigger,) = spec["triggers"]
    assert trigger["metricType"] == "AverageValue"
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    settings = read_fleet(trigger["metadata"])
    assert settings.policy.min_instances == spec["minReplicaCount"]
    assert settings.policy.max_instances == spec["maxReplicaCount"]
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert {float(rules["tolerance"]) for rules in behaviour.values()} == {settings.hpa_tolerance}
    service = one("Service", "keda-scaler.yaml")
    address = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    assert trigger["metadata"]["scalerAddress"] == f"{address}:{service['spec']['ports'][0]['port']}"


def test_the_parts_of_external_metrics_fit_together(tmp_path: Path) -> None:
    name = "external-metrics.yaml"
    file = tmp_path / "fleets.yaml"
    file.write_text(one("ConfigMap", name)["data"]["fleets.yaml"])
    (fleet,) = read_fleets(file)
    hpa = one("HorizontalPodAutoscaler", name)
    spec = hpa["spec"]
    (metric,) = [one["external"] for one in spec["metrics"]]
    assert hpa["metadata"]["namespace"] == fleet.namespace
    assert metric["metric"]["name"] == fleet.settings.metric_name
    assert metric["metric"]["selector"]["matchLabels"] == fleet.labels
    assert metric["target"] == {"type": "AverageValue", "averageValue": "1"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (
        fleet.settings.policy.min_instances,
        fleet.settings.policy.max_instances,
    )
    service, registered = one("Service", name), one("APIService", name)["spec"]
    assert f"{registered['group']}/{registered['version']}" == VERSION
    assert registered["service"]["name"] == service["metadata"]["name"]
    assert registered["service"]["namespace"] == service["metadata"]["namespace"]
    (subject,) = one("ClusterRoleBinding", name)["subjects"]
    assert f"system:serviceaccount:{subject['namespace']}:{subject['name']}" == HPA_USER


@pytest.mark.parametrize(
    ("name", "command"), [("keda-scaler.yaml", keda), ("external-metrics.yaml", external_metrics)]
)
def test_the_command_lines_are_such_as_we_take(name: str, command: click.Command) -> None:
    pod = one("Deployment", name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    known = {option for parameter in command.params for option in parameter.opts}
    given = {word.split("=")[0] for word in container["args"] if word.startswith("--")}
    assert given <= known
    assert container["command"] == ["textnlp-fast", "gpu", command.name]
    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in pod.get("volumes", [])}


def rules_of(behaviour: dict[str, Any]) -> Rules:
    policies = [(one["type"], one["value"], float(one["periodSeconds"])) for one in behaviour["policies"]]
    return Rules(float(behaviour["stabilizationWindowSeconds"]), policies)


def test_an_hpa_that_is_set_so_goes_where_it_is_told_in_one_round() -> None:
    (scaled,) = documents("keda-scaledobject.yaml")
    for behaviour in (
        scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        one("HorizontalPodAutoscaler", "external-metrics.yaml")["spec"]["behavior"],
    ):
        up, down = behaviour["scaleUp"], behaviour["scaleDown"]
        hpa = Hpa(
            1,
            most=20,
            tolerance_up=float(up["tolerance"]),
            tolerance_down=float(down["tolerance"]),
            up=rules_of(up),
            down=rules_of(down),
        )
        targets = [3, 20, 19, 1, 11, 12, 11, 2]
        seen = [
            hpa.step(15.0 * at, shown(to, among=[hpa.replicas], tolerance=0.0))
            for at, to in enumerate(targets)
        ]
        assert seen == targets
