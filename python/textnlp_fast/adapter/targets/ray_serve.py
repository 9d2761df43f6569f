"""Ray Serve: an application of ray.serve.llm whose replicas fetch the version before vLLM starts."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any, Final

from textnlp_fast.adapter.planning import DeploymentPlan, policy_of
from textnlp_fast.adapter.targets import File
from textnlp_fast.adapter.targets.commands import SWAP_EXTENSION, environment_of, model_dir, peers_of
from textnlp_fast.adapter.targets.yaml_text import yaml_text
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.gpu.types import GPUType

__all__ = ["compile_files", "serve_config"]

#: As `ray.util.accelerators` calls them. Others are told apart by the nodes that there are.
_ACCELERATORS: Final = {
    GPUType.NVIDIA_V100: "V100",
    GPUType.NVIDIA_V100_32GB: "V100",
    GPUType.NVIDIA_P100: "P100",
    GPUType.NVIDIA_T4: "T4",
    GPUType.NVIDIA_P4: "P4",
    GPUType.NVIDIA_A10G: "A10G",
    GPUType.NVIDIA_L4: "L4",
    GPUType.NVIDIA_L40S: "L40S",
    GPUType.NVIDIA_A100_40GB: "A100-40G",
    GPUType.NVIDIA_A100_80GB: "A100-80G",
    GPUType.NVIDIA_A100_80GB_PCIE: "A100-80G",
    GPUType.NVIDIA_H100: "H100",
    GPUType.NVIDIA_H100_PCIE: "H100",
    GPUType.NVIDIA_H100_NVL: "H100",
    GPUType.NVIDIA_H200: "H200",
    GPUType.NVIDIA_B200: "B200",
    GPUType.NVIDIA_B300: "B300",
    GPUType.NVIDIA_GB200: "GB200",
    GPUType.NVIDIA_RTX_PRO_6000: "RTX-PRO-6000",
}
_CALLBACK: Final = "textnlp_fast.integrations.ray_fetch.FetchVersion"
_POLICY: Final = "textnlp_fast.integrations.ray_serve:LLMAutoscalingPolicy"


def compile_files(plan: DeploymentPlan) -> tuple[File, ...]:
    """One file for `serve deploy`, or a RayService. Raises InvalidInputError for engines that Ray does not start."""
    head = [f"{plan.name}: {plan.version}, by textnlp-fast deploy. Made anew rather than edited."]
    return (File(f"{plan.name}.serve.yaml", yaml_text(serve_config(plan), head=head)),)


def serve_config(plan: DeploymentPlan) -> dict[str, Any]:
    """A ServeDeploySchema with one application."""
    deployment = plan.deployment
    if deployment.engine.kind != "vllm" or deployment.engine.command:
        raise InvalidInputError(
            f"engine.kind: ray.serve.llm starts vLLM by itself, and neither {deployment.engine.kind} nor a command",
            hint="Use another target, or engine.kind: vllm without a command.",
        )
    if deployment.engine.secrets or deployment.cache.secrets:
        raise InvalidInputError(
            "secrets: a configuration of Ray Serve has no place for secrets",
            hint="Set the variables on the cluster's nodes, and leave them out here.",
        )
    application = {
        "name": plan.name,
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [_llm_config(plan)]},
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": "0.0.0.0",
            "port": deployment.engine.port,
            "request_timeout_s": deployment.gateway.request_s,
        },
        "applications": [application],
    }


def _llm_config(plan: DeploymentPlan) -> dict[str, Any]:
    deployment, layout = plan.deployment, plan.hardware.layout
    root = deployment.cache.path
    folder = model_dir(plan, root)
    engine: dict[str, Any] = {
        "tensor_parallel_size": layout.tensor,
        "pipeline_parallel_size": layout.pipeline,
        **_keywords(deployment.engine.arguments),
    }
    if layout.data > 1:
        engine["data_parallel_size"] = layout.data
    if deployment.engine.kv_cache == "fp8":
        engine["kv_cache_dtype"] = "fp8"
    if deployment.rollout.hot_swap:
        engine["worker_extension_cls"] = SWAP_EXTENSION
    found: dict[str, Any] = {
        "model_loading_config": {"model_id": deployment.served_name, "model_source": folder},
        "engine_kwargs": engine,
        "deployment_config": _scaling(plan),
        "callback_config": {
            "callback_class": _CALLBACK,
            "callback_kwargs": {
                "repository": deployment.model.repository,
                "reference": str(plan.version),
                "destination": folder,
                "require_signature": deployment.model.require_signature,
            },
        },
    }
    accelerator = None if plan.hardware.gpu is None else _ACCELERATORS.get(plan.hardware.gpu)
    if accelerator is not None:
        found["accelerator_type"] = accelerator
    variables = {
        **peers_of(deployment, "127.0.0.1"),
        **dict(sorted(deployment.cache.environment.items())),
        **environment_of(deployment),
    }
    if variables:
        found["runtime_env"] = {"env_vars": variables}
    return found


def _keywords(arguments: tuple[str, ...]) -> dict[str, Any]:
    """vLLM's command line as keyword arguments: `--max-model-len 8192` is `max_model_len: 8192`."""
    found: dict[str, Any] = {}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--") or len(word) < 3:
            raise InvalidInputError(
                f"engine.arguments: {word[:80]!r} is no option, and Ray takes vLLM's options only",
                hint="Write --option, --option=value or --option value.",
            )
        name, equals, value = word[2:].partition("=")
        if not equals and waiting and not waiting[0].startswith("--"):
            value, equals = waiting.pop(0), "="
        flag = name.replace("-", "_")
        if not equals:
            found[flag.removeprefix("no_")] = not flag.startswith("no_")
        else:
            found[flag] = _value(value)
    return found


def _value(text: str) -> Any:
    """A number, a flag or an object as JSON has it; else the text."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(text: str) -> Any:
    raise ValueError(text)  # NaN and the infinities, which JSON does not have


def _scaling(plan: DeploymentPlan) -> dict[str, Any]:
    deployment, policy = plan.deployment, policy_of(plan)
    health = deployment.rollout.health
    at_once = policy.capacity.concurrency or plan.hardware.sequences or 64
    found: dict[str, Any] = {
        "max_ongoing_requests": max(1, int(at_once)),
        "health_check_period_s": health.interval_s,
        "health_check_timeout_s": health.timeout_s * health.failures,
        "graceful_shutdown_timeout_s": deployment.engine.drain_s + 30,
    }
    if policy.max_instances == policy.min_instances:
        return {**found, "num_replicas": plan.replicas}
    found["autoscaling_config"] = {
        "min_replicas": policy.min_instances,
        "initial_replicas": max(policy.min_instances, min(plan.replicas, policy.max_instances)),
        "max_replicas": policy.max_instances,
        # The policy knows when to wait.
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "policy": {"policy_function": _POLICY, "policy_kwargs": _settings(policy)},
    }
    return found


def _settings(policy: ScalingPolicy) -> dict[str, Any]:
    """What differs from the defaults, under the names that the policy's function takes; the bounds are Ray's."""
    plain = ScalingPolicy()
    found: dict[str, Any] = {}
    for one in fields(ScalingPolicy):
        value, default = getattr(policy, one.name), getattr(plain, one.name)
        if value == default or one.name in ("min_instances", "max_instances"):
            continue
        if one.name == "schedule":
            found[one.name] = [{**asdict(floor), "weekdays": list(floor.weekdays)} for floor in value]
        elif one.name in ("capacity", "cold_start"):
            for inner in fields(value):
                if getattr(value, inner.name) != getattr(default, inner.name):
                    found[f"{one.name}_{inner.name}"] = getattr(value, inner.name)
        else:
            found[one.name] = value
    return found
