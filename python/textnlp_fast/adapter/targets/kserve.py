"""KServe: an InferenceService whose predictor is our pod, as a Deployment of its own ("standard" mode)."""

from __future__ import annotations

import math
from typing import Any

from textnlp_fast.adapter.planning import DeploymentPlan
from textnlp_fast.adapter.targets import File
from textnlp_fast.adapter.targets.keda import scaled_object
from textnlp_fast.adapter.targets.pods import (
    annotations_of,
    cache_claim,
    file_of,
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
    rollout, policy = deployment.rollout, deployment.policy
    head = metadata(deployment, plan.name)
    scaler = "none" if deployment.autoscaling.by == "none" else "external"
    head["annotations"] = {
        # Without Knative, which runs neither init containers nor hooks before a stop. RawDeployment is what versions
        # before 0.16 call it, and those after still read.
        "serving.kserve.io/deploymentMode": "RawDeployment",
        "serving.kserve.io/autoscalerClass": scaler,
    }
    settled = plan.replicas if scaler == "none" else policy.min_instances
    predictor = {
        "annotations": annotations_of(plan),
        "minReplicas": settled,
        "maxReplicas": plan.replicas if scaler == "none" else policy.max_instances,
        "timeout": max(1, math.ceil(deployment.gateway.request_s)),
        "deploymentStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": rollout.max_unavailable, "maxSurge": rollout.max_surge},
        },
        **pod_spec(plan, container="kserve-container"),
    }
    served = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": head,
        "spec": {"predictor": predictor},
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{plan.name}-predictor"}
    return [
        *service_account(deployment),
        scripts_map(plan),
        *cache_claim(plan),
        served,
        *scaled_object(plan, target),
    ]
