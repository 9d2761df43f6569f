"""SkyPilot: a service whose replicas fetch the version and run the engine."""

from __future__ import annotations

import math
import shlex
from typing import Any, Final

from textnlp_fast.adapter.planning import DeploymentPlan, policy_of
from textnlp_fast.adapter.targets import File
from textnlp_fast.adapter.targets.commands import (
    FETCH,
    engine_words,
    environment_of,
    fetch_environment,
    model_dir,
    peers_of,
)
from textnlp_fast.adapter.targets.yaml_text import yaml_text
from textnlp_fast.gpu.types import GPUType, Market

__all__ = ["compile_files", "service"]

#: Where SkyPilot's user may write, on a machine and in a container.
_ROOT: Final = "/tmp/textnlp-fast/models"
#: As SkyPilot's catalogues call them, where that is not our name in capitals.
_NAMES: Final = {
    GPUType.NVIDIA_V100: "V100",
    GPUType.NVIDIA_V100_32GB: "V100-32GB",
    GPUType.NVIDIA_A100_40GB: "A100",
    GPUType.NVIDIA_A100_80GB: "A100-80GB",
    GPUType.NVIDIA_A100_80GB_PCIE: "A100-80GB",
    GPUType.NVIDIA_RTX_PRO_6000: "RTXPRO6000",
}


def compile_files(plan: DeploymentPlan) -> tuple[File, ...]:
    """One file for `sky serve up`."""
    head = [
        f"{plan.name}: {plan.version}, by textnlp-fast deploy. Made anew rather than edited.",
        *(f"Give {name} by: sky serve up --secret {name} ..." for name in _secrets(plan)),
    ]
    return (File(f"{plan.name}.sky.yaml", yaml_text(service(plan), head=head)),)


def service(plan: DeploymentPlan) -> dict[str, Any]:
    """The task, with its service."""
    deployment = plan.deployment
    document: dict[str, Any] = {
        "name": plan.name,
        "service": _service(plan),
        "resources": _resources(plan),
    }
    variables = {
        **peers_of(deployment, "127.0.0.1"),
        **fetch_environment(plan, _ROOT),
        **environment_of(deployment),
    }
    document["envs"] = variables
    if _secrets(plan):
        # Without values: they are given where the service is started.
        document["secrets"] = dict.fromkeys(_secrets(plan))
    if deployment.machines.setup:
        document["setup"] = "set -eu\n" + "".join(f"{line}\n" for line in deployment.machines.setup)
    words = engine_words(plan, model_dir(plan, _ROOT))
    document["run"] = f"sh -c {shlex.quote(FETCH)}\nexec {' '.join(shlex.quote(word) for word in words)}\n"
    # SkyPilot's shell goes on after a command that failed.
    document["run"] = "set -e\n" + document["run"]
    return document


def _secrets(plan: DeploymentPlan) -> list[str]:
    return sorted({*plan.deployment.engine.secrets, *plan.deployment.cache.secrets})


def _service(plan: DeploymentPlan) -> dict[str, Any]:
    deployment = plan.deployment
    health, policy = deployment.rollout.health, policy_of(plan)
    found: dict[str, Any] = {
        "readiness_probe": {
            "path": health.path,
            "initial_delay_seconds": math.ceil(deployment.engine.start_s) + 600,
            "timeout_seconds": max(1, math.ceil(health.timeout_s)),
            "endpoint_probe_interval_seconds": max(1, math.ceil(health.interval_s)),
        },
        "ports": deployment.engine.port,
        "load_balancing_policy": "least_load",
        "load_balancer": {"stream_timeout_seconds": max(1, math.ceil(deployment.gateway.request_s))},
    }
    replicas: dict[str, Any] = {"min_replicas": plan.replicas}
    rate = policy.capacity.requests_per_s
    if rate is not None and policy.max_instances > policy.min_instances:
        replicas = {
            "min_replicas": policy.min_instances,
            "max_replicas": policy.max_instances,
            "target_qps_per_replica": round(rate, 4),
        }
        if policy.scale_down_delay_s is not None:
            replicas["downscale_delay_seconds"] = policy.scale_down_delay_s
    if _on_spot(plan):
        replicas["dynamic_ondemand_fallback"] = deployment.spot.fall_back
        base = plan.replicas - int(plan.replicas * deployment.spot.share + 1e-9)
        if base:
            replicas["base_ondemand_fallback_replicas"] = base
    return {**found, "replica_policy": replicas}


def _resources(plan: DeploymentPlan) -> dict[str, Any]:
    deployment, hardware = plan.deployment, plan.hardware
    found: dict[str, Any] = {}
    if hardware.gpu is not None:
        name = _NAMES.get(hardware.gpu, hardware.gpu.value.removeprefix("nvidia-").upper())
        found["accelerators"] = {name: hardware.gpus}
    if deployment.machines.instance_type is not None:
        found["instance_type"] = deployment.machines.instance_type
    if deployment.machines.cpus is not None:
        found["cpus"] = f"{deployment.machines.cpus:g}+"
    if deployment.machines.memory_gib is not None:
        found["memory"] = f"{deployment.machines.memory_gib:g}+"
    found["use_spot"] = _on_spot(plan)
    found["disk_size"] = deployment.machines.disk_gib
    found["ports"] = deployment.engine.port
    if deployment.engine.image is not None:
        found["image_id"] = f"docker:{deployment.engine.image}"
    elif deployment.machines.image is not None:
        found["image_id"] = deployment.machines.image
    found["labels"] = dict(sorted(deployment.labels.items()))
    clouds, regions = deployment.placement.clouds or ("*",), deployment.placement.regions
    places = [f"{cloud}/{region}" for cloud in clouds for region in regions] or list(clouds)
    if places != ["*"]:
        found["any_of"] = [{"infra": place} for place in places]
    return {key: value for key, value in found.items() if value != {}}


def _on_spot(plan: DeploymentPlan) -> bool:
    offers = plan.hardware.offers
    return plan.deployment.spot.share > 0 and (not offers or offers[0].market is Market.SPOT)
