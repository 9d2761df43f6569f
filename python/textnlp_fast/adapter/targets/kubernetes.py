"""Kubernetes: a Deployment with its Service, budget of disruptions, cache, account and scaler."""

from __future__ import annotations

from typing import Any

from textnlp_fast.adapter.planning import DeploymentPlan
from textnlp_fast.adapter.targets import File
from textnlp_fast.adapter.targets.keda import scaled_object
from textnlp_fast.adapter.targets.pods import (
    annotations_of,
    cache_claim,
    file_of,
    labels_of,
    metadata,
    pod_spec,
    scripts_map,
    service_account,
)

__all__ = ["compile_files", "manifests"]


def compile_files(plan: DeploymentPlan) -> tuple[File, ...]:
    """One file for `kubectl apply -f`. Raises InvalidInputError where the description lacks an image."""
    return (file_of(plan, manifests(plan)),)


def manifests(plan: DeploymentPlan) -> list[dict[str, Any]]:
    """All objects, those first that others lean on."""
    deployment = plan.deployment
    select = {"app.kubernetes.io/name": plan.name}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(deployment, plan.name),
        "spec": {
            "selector": select,
            "ports": [{"name": "http", "port": deployment.engine.port, "targetPort": "http"}],
        },
    }
    disruptions = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(deployment, plan.name),
        "spec": {
            "maxUnavailable": max(1, deployment.rollout.unavailable_of(plan.replicas)),
            "selector": {"matchLabels": select},
        },
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name}
    return [
        *service_account(deployment),
        scripts_map(plan),
        *cache_claim(plan),
        _workload(plan, select),
        service,
        disruptions,
        *scaled_object(plan, target),
    ]


def _workload(plan: DeploymentPlan, select: dict[str, str]) -> dict[str, Any]:
    deployment = plan.deployment
    rollout = deployment.rollout
    # A replica that has served for so long counts; blue-green bakes behind the switch instead.
    settled = round(rollout.bake_s) if rollout.strategy == "rolling" else 0
    spec: dict[str, Any] = {}
    if deployment.autoscaling.by == "none":
        spec["replicas"] = plan.replicas
    spec |= {
        "minReadySeconds": settled,
        "progressDeadlineSeconds": settled + round(deployment.engine.start_s) + 1800,
        "revisionHistoryLimit": 5,
        "selector": {"matchLabels": select},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": rollout.max_unavailable, "maxSurge": rollout.max_surge},
        },
        "template": {
            "metadata": {
                "labels": labels_of(deployment),
                "annotations": annotations_of(plan),
            },
            "spec": pod_spec(plan),
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, plan.name),
        "spec": spec,
    }
