"""The pod that serves a plan, as Kubernetes and KServe take it, and what it leans on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from textnlp_fast.adapter.description import Deployment
from textnlp_fast.adapter.engine_settings import SecretRef
from textnlp_fast.adapter.planning import DeploymentPlan
from textnlp_fast.adapter.targets import File
from textnlp_fast.adapter.targets.commands import (
    DRAIN,
    FETCH,
    NOTICE_S,
    drain_environment,
    engine_words,
    environment_of,
    fetch_environment,
    model_dir,
    peers_of,
)
from textnlp_fast.adapter.targets.yaml_text import yaml_text
from textnlp_fast.errors import InvalidInputError

__all__ = [
    "annotations_of",
    "cache_claim",
    "file_of",
    "labels_of",
    "metadata",
    "pod_spec",
    "scripts_map",
    "service_account",
]

MODELS: Final = "/models"
SCRIPTS: Final = "/textnlp-fast"
_GIB: Final = 1 << 30
_SPOT_TAINTS: Final = (
    ("cloud.google.com/gke-spot", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
#: How each node pool says that its nodes are spot.
_SPOT_LABELS: Final = (
    *_SPOT_TAINTS,
    ("karpenter.sh/capacity-type", "spot"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
)
_SANDBOX: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_USER: Final = 10001
_NODE: Final = "DEPLOY_NODE"


def file_of(plan: DeploymentPlan, objects: Iterable[Mapping[str, Any]]) -> File:
    """All objects in one file for `kubectl apply -f`."""
    head = [f"{plan.name}: {plan.version}, by textnlp-fast deploy. Made anew rather than edited."]
    return File(f"{plan.name}.yaml", yaml_text(*objects, head=head))


def labels_of(deployment: Deployment) -> dict[str, str]:
    """Those of all that is made: the description's, and ours."""
    return {
        **dict(sorted(deployment.labels.items())),
        "app.kubernetes.io/name": deployment.name,
        "app.kubernetes.io/managed-by": "textnlp-fast",
    }


def metadata(deployment: Deployment, name: str) -> dict[str, Any]:
    """The head of an object."""
    return {"name": name, "namespace": deployment.placement.namespace, "labels": labels_of(deployment)}


def annotations_of(plan: DeploymentPlan) -> dict[str, str]:
    """Of pods: the version, a digest of the scripts, which pods would not otherwise notice, and where metrics are."""
    return {
        "prometheus.io/path": "/metrics",
        "prometheus.io/port": str(plan.deployment.engine.port),
        "prometheus.io/scrape": "true",
        "textnlp-fast/scripts": hashlib.sha256((FETCH + DRAIN).encode()).hexdigest()[:16],
        "textnlp-fast/version": str(plan.version),
    }


def scripts_map(plan: DeploymentPlan) -> dict[str, Any]:
    """The ConfigMap with the scripts, which hold nothing of the description."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(plan.deployment, f"{plan.name}-scripts"),
        "data": {"drain.sh": DRAIN, "fetch.sh": FETCH},
    }


def service_account(deployment: Deployment) -> list[dict[str, Any]]:
    """One without rights, unless the description names one."""
    if deployment.placement.service_account is not None:
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(deployment, deployment.name),
            "automountServiceAccountToken": False,
        }
    ]


def cache_claim(plan: DeploymentPlan) -> list[dict[str, Any]]:
    """The claim that all replicas share, where the cache is one."""
    cache = plan.deployment.cache
    if cache.kind != "claim":
        return []
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": f"{_cache_gib(plan)}Gi"}},
    }
    if cache.storage_class is not None:
        spec["storageClassName"] = cache.storage_class
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata(plan.deployment, f"{plan.name}-models"),
            "spec": spec,
        }
    ]


def pod_spec(plan: DeploymentPlan, *, container: str = "engine") -> dict[str, Any]:
    """The pod: the version is fetched before the engine starts, and requests end before it stops.

    Raises InvalidInputError where the description names no image.
    """
    deployment = plan.deployment
    spec: dict[str, Any] = {
        "serviceAccountName": deployment.placement.service_account or deployment.name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": NOTICE_S + math.ceil(deployment.engine.drain_s) + 30,
    }
    if deployment.cache.kind != "host-path":
        spec["securityContext"] = {"fsGroup": _USER}
    spec.update(_scheduling(plan))
    spec["initContainers"] = [_fetching(plan)]
    spec["containers"] = [_engine(plan, container)]
    spec["volumes"] = _volumes(plan)
    return spec


def _fetching(plan: DeploymentPlan) -> dict[str, Any]:
    deployment = plan.deployment
    image = deployment.cache.image
    if image is None:
        raise InvalidInputError(
            "cache.image: is missing: no image is named that has textnlp-fast, and pulls the version",
            hint="Build one from the Dockerfile in the guide, deploy.md, and name it.",
        )
    # The kubelet makes a host's folder as root's.
    user = (
        {"runAsUser": 0}
        if deployment.cache.kind == "host-path"
        else {"runAsNonRoot": True, "runAsUser": _USER}
    )
    return {
        "name": "fetch",
        "image": image,
        "command": ["/bin/sh", f"{SCRIPTS}/fetch.sh"],
        "env": [
            *_environment(
                {"HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/cache", **fetch_environment(plan, MODELS)}
            ),
            *_peers(deployment),
            *_secrets(deployment.cache.secrets),
        ],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "4Gi"}},
        "securityContext": {**user, "readOnlyRootFilesystem": True, **_SANDBOX},
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS},
            {"name": "scripts", "mountPath": SCRIPTS, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
    }


def _engine(plan: DeploymentPlan, name: str) -> dict[str, Any]:
    deployment = plan.deployment
    engine, health = deployment.engine, deployment.rollout.health
    if engine.image is None:
        raise InvalidInputError(
            "engine.image: is missing: in a cluster the engine runs in a container",
            hint="Write, for example: image: vllm/vllm-openai:v0.11.0",
        )
    probe = {
        "httpGet": {"path": health.path, "port": "http"},
        "periodSeconds": max(1, round(health.interval_s)),
        "timeoutSeconds": max(1, math.ceil(health.timeout_s)),
    }
    patience = max(1, math.ceil(engine.start_s / probe["periodSeconds"]))  # type: ignore[operator]
    mounts = [
        {"name": "models", "mountPath": MODELS, "readOnly": True},
        {"name": "scripts", "mountPath": SCRIPTS, "readOnly": True},
    ]
    mounts += [{"name": "shared-memory", "mountPath": "/dev/shm"}] if plan.hardware.gpus > 1 else []
    return {
        "name": name,
        "image": engine.image,
        "command": [literal(word) for word in engine_words(plan, model_dir(plan, MODELS))],
        "env": [
            *_environment({**environment_of(deployment), **drain_environment(deployment)}),
            *_secrets(engine.secrets),
        ],
        "ports": [{"name": "http", "containerPort": engine.port}],
        "resources": _resources(plan),
        "startupProbe": {**probe, "failureThreshold": patience},
        "readinessProbe": {
            **probe,
            "failureThreshold": health.failures,
            "successThreshold": health.success_after,
        },
        # Out of the load balancer first, and started again only if that lasts.
        "livenessProbe": {**probe, "failureThreshold": 3 * health.failures},
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", f"{SCRIPTS}/drain.sh"]}}},
        "securityContext": dict(_SANDBOX),
        "volumeMounts": mounts,
    }


def literal(text: str) -> str:
    """The text as Kubernetes takes it where it would put `$(VARIABLE)` in."""
    return text.replace("$", "$$")


def _environment(variables: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": literal(value)} for name, value in variables.items()]


def _peers(deployment: Deployment) -> list[dict[str, Any]]:
    found = peers_of(deployment, f"$({_NODE})")
    if not found:
        return []
    # The kubelet puts the node's address in: this value is not doubled, and is made of addresses alone.
    return [
        {"name": _NODE, "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        *({"name": name, "value": value} for name, value in found.items()),
    ]


def _secrets(secrets: Mapping[str, SecretRef]) -> list[dict[str, Any]]:
    return [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}}
        for variable, ref in sorted(secrets.items())
    ]


def _resources(plan: DeploymentPlan) -> dict[str, Any]:
    machines, gpus = plan.deployment.machines, plan.hardware.gpus
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if machines.cpus is not None:
        requests["cpu"] = f"{math.ceil(machines.cpus * 1000)}m"
    if machines.memory_gib is not None:
        requests["memory"] = limits["memory"] = f"{math.ceil(machines.memory_gib * 1024)}Mi"
    if gpus:
        limits["nvidia.com/gpu"] = str(gpus)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _scheduling(plan: DeploymentPlan) -> dict[str, Any]:
    """Where pods may run: labels that are the same in every cluster, and those that the description names."""
    deployment, hardware = plan.deployment, plan.hardware
    found: dict[str, Any] = {}
    selector = dict(sorted(deployment.placement.node_labels.items()))
    if hardware.offers and (deployment.machines.instance_type or deployment.placement.clouds):
        selector.setdefault("node.kubernetes.io/instance-type", hardware.offers[0].instance_type.name)
    if selector:
        found["nodeSelector"] = selector
    affinity: dict[str, Any] = {}
    wanted: list[dict[str, Any]] = []
    if deployment.placement.regions:
        wanted = [
            {
                "key": "topology.kubernetes.io/region",
                "operator": "In",
                "values": list(deployment.placement.regions),
            }
        ]
    spot = deployment.spot
    if spot.share >= 1 and not spot.fall_back:
        terms = [{"matchExpressions": [*wanted, _has(*label)]} for label in _SPOT_LABELS]
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    elif wanted:
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {
            "nodeSelectorTerms": [{"matchExpressions": wanted}]
        }
    if spot.share > 0 and spot.fall_back:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {
                "weight": max(1, round(100 * spot.share)),
                "preference": {"matchExpressions": [_has(*label)]},
            }
            for label in _SPOT_LABELS
        ]
    if affinity:
        found["affinity"] = {"nodeAffinity": affinity}
    tolerations: list[dict[str, Any]] = []
    if hardware.gpus:
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    if spot.share > 0:
        tolerations += [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for key, value in _SPOT_TAINTS
        ]
    if tolerations:
        found["tolerations"] = tolerations
    return found


def _has(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": [value]}


def _volumes(plan: DeploymentPlan) -> list[dict[str, Any]]:
    cache = plan.deployment.cache
    models: dict[str, Any] = {"emptyDir": {"sizeLimit": f"{_cache_gib(plan)}Gi"}}
    if cache.kind == "claim":
        models = {"persistentVolumeClaim": {"claimName": f"{plan.name}-models"}}
    elif cache.kind == "host-path":
        models = {"hostPath": {"path": cache.path, "type": "DirectoryOrCreate"}}
    volumes: list[dict[str, Any]] = [
        {"name": "models", **models},
        {"name": "scripts", "configMap": {"name": f"{plan.name}-scripts"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    if plan.hardware.gpus > 1:
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
    return volumes


def _cache_gib(plan: DeploymentPlan) -> int:
    """Twice the version, for the next one beside it."""
    return plan.deployment.cache.size_gib or max(1, math.ceil(2 * plan.version.raw_bytes * 1.05 / _GIB))
