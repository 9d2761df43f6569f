"""KEDA's ScaledObject: our policy by its external scaler, or a query of Prometheus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from textnlp_fast.adapter.planning import DeploymentPlan, policy_of
from textnlp_fast.adapter.targets.pods import metadata
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.policy import ScalingPolicy

__all__ = ["scaled_object"]

_RUNNING_AND_WAITING = {
    "vllm": ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    "sglang": ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
}


def scaled_object(plan: DeploymentPlan, target: Mapping[str, str]) -> list[dict[str, Any]]:
    """What scales `target` (its apiVersion, kind and name), or nothing where nobody is to."""
    deployment = plan.deployment
    scaling, policy = deployment.autoscaling, policy_of(plan)
    if scaling.by == "none":
        return []
    trigger = _external(plan, policy) if scaling.by == "external" else _prometheus(plan, policy)
    rules = {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Percent", "value": 900, "periodSeconds": 15}],
    }
    # The policy knows when to wait; a query does not, and there the HPA's own patience stays.
    behavior = {"scaleUp": dict(rules)}
    if scaling.by == "external":
        behavior["scaleDown"] = {
            **rules,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        }
    spec: dict[str, Any] = {
        "scaleTargetRef": dict(target),
        "minReplicaCount": policy.min_instances,
        "maxReplicaCount": policy.max_instances,
        "pollingInterval": max(1, round(policy.period_s)),
        "cooldownPeriod": 0 if scaling.by == "external" else round(policy.idle_to_zero_s),
        "fallback": {"failureThreshold": 3, "replicas": max(policy.min_instances, plan.replicas)},
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        "triggers": [trigger],
    }
    return [
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": metadata(deployment, plan.name),
            "spec": spec,
        }
    ]


def _external(plan: DeploymentPlan, policy: ScalingPolicy) -> dict[str, Any]:
    deployment = plan.deployment
    scaling = deployment.autoscaling
    settings: dict[str, str] = {
        "scalerAddress": scaling.scaler_address,
        "metricsUrl": str(scaling.metrics_url),
        "metricsLabels": f"namespace={deployment.placement.namespace},service={plan.name}",
    }
    if scaling.waiting_query is not None:
        settings["waitingQuery"] = scaling.waiting_query
    settings |= {_camel(name): value for name, value in _settings(policy).items()}
    return {"type": "external-push", "metricType": "AverageValue", "metadata": settings}


def _settings(policy: ScalingPolicy) -> dict[str, str]:
    """The policy as the scaler reads it, without what is as by default; the bounds always."""
    plain = ScalingPolicy()
    found = {"min_instances": str(policy.min_instances), "max_instances": str(policy.max_instances)}
    for one in fields(ScalingPolicy):
        value = getattr(policy, one.name)
        if one.name in found or value == getattr(plain, one.name):
            continue
        if one.name == "schedule":
            found[one.name] = json.dumps([asdict(floor) for floor in value], sort_keys=True)
        elif one.name in ("capacity", "cold_start"):
            default = getattr(plain, one.name)
            for inner in fields(value):
                if getattr(value, inner.name) != getattr(default, inner.name):
                    found[f"{one.name}_{inner.name}"] = _figure(getattr(value, inner.name))
        else:
            found[one.name] = _figure(value)
    return found


def _figure(value: float) -> str:
    return repr(round(value, 6)) if isinstance(value, float) else str(value)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _prometheus(plan: DeploymentPlan, policy: ScalingPolicy) -> dict[str, Any]:
    deployment = plan.deployment
    kind, query = deployment.engine.kind, deployment.autoscaling.waiting_query
    each = policy.capacity.concurrency or plan.hardware.sequences
    if each is None:
        raise InvalidInputError(
            "policy.capacity.concurrency: is missing: nothing says how many requests one replica takes",
            hint="Set it, or give workload, from which it is predicted.",
        )
    if kind not in _RUNNING_AND_WAITING and query is None:
        raise InvalidInputError(
            "autoscaling.waiting_query: is missing: the metrics of this engine are not known here",
            hint="Write a query for the requests that are under way and wait.",
        )
    where = f'{{namespace="{deployment.placement.namespace}",service="{plan.name}"}}'
    if query is None:
        query = " + ".join(f"sum({name}{where})" for name in _RUNNING_AND_WAITING[kind])
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": str(deployment.autoscaling.metrics_url),
            "query": query,
            "threshold": _figure(each),
        },
    }
