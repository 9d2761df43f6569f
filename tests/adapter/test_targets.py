"""What is made of a description: taken by what it is made for, the same each time, and whole whatever it says."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from adapter.plans import SMALL, documents, kubernetes_expands, offer, plan_of, with_engine
from adapter.target_schemas import (
    check_cloud_init,
    check_keda,
    check_kserve,
    check_kubernetes,
    check_skypilot,
)
from textnlp_fast.adapter import Engine, parse_deployment, read_deployment
from textnlp_fast.adapter.targets import TARGETS, compile_plan
from textnlp_fast.adapter.targets.instances import launch_requests
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.recommender import Layout
from textnlp_fast.gpu.types import Market
from textnlp_fast.integrations.fleet_settings import read_fleet

EXAMPLES = Path(__file__).parents[2] / "examples" / "deploy"
GOLDEN = Path(__file__).parent / "golden"
FULL = """
name: chat
model: {reference: org/llama@champion, repository: "s3://bucket/models", require_signature: true}
engine:
  kind: sglang
  image: lmsysorg/sglang:v0.5.3
  arguments: [--mem-fraction-static, "0.9"]
  environment: {LEVEL: INFO, NOTE: "a $(HOME) of % signs"}
  secrets: {HF_TOKEN: {name: hugging-face, key: token}}
workload: {requests_per_s: 20}
machines: {cpus: 6, memory_gib: 24, setup: ["pip install textnlp-fast"]}
placement: {clouds: [aws], regions: [us-east-1, us-west-2], namespace: prod, node_labels: {pool: gpu}}
policy:
  min_instances: 0
  max_instances: 6
  capacity: {concurrency: 16}
  cold_start: {weights_s: 45}
  schedule: [{instances: 2, begin_hour: 8, end_hour: 20}]
autoscaling: {by: external, metrics_url: "http://prometheus.monitoring:9090", waiting_query: "sum(waiting)"}
spot: {share: 0.5}
budget: {usd_per_hour: 20}
cache:
  kind: claim
  storage_class: fast
  image: registry.example.com/textnlp-fast:0.1.0
  environment: {AWS_REGION: us-east-1}
  peers: [node, "dns+http://node-cache.serving.svc:9410"]
  secrets: {AWS_SECRET_ACCESS_KEY: {name: bucket, key: secret}}
labels: {team: nlp}
"""


def check(target: str, made: list[dict[str, Any]]) -> None:
    """By the schema of whoever takes it."""
    if target == "skypilot":
        (task,) = made
        check_skypilot(task)
    elif target == "instances":
        for one in made:
            check_cloud_init(one)
    elif target == "ray":
        (config,) = made
        check_ray(config)
    else:
        scaled = [one for one in made if one["kind"] == "ScaledObject"]
        if scaled:
            check_keda(*scaled)
        for one in made:
            if one["kind"] == "InferenceService":
                check_kserve(one)
            elif one["kind"] != "ScaledObject":
                check_kubernetes(one)


def check_ray(config: dict[str, Any]) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="needs ray[serve]")
    read = schema.ServeDeploySchema.model_validate(config)
    assert {one.name for one in read.applications} == {one["name"] for one in config["applications"]}
    # Extra names would be taken silently.
    assert set(config) <= set(schema.ServeDeploySchema.model_fields)
    assert set(config["http_options"]) <= set(schema.HTTPOptionsSchema.model_fields)
    (application,) = config["applications"]
    assert set(application) <= set(schema.ServeApplicationSchema.model_fields)
    (llm,) = application["args"]["llm_configs"]
    check_llm_config(llm)
    from ray.serve.config import AutoscalingConfig  # noqa: PLC0415

    deployment = llm["deployment_config"]
    assert set(deployment) <= set(schema.DeploymentSchema.model_fields)
    schema.DeploymentSchema.model_validate({"name": "engine", **deployment})
    if "autoscaling_config" in deployment:
        AutoscalingConfig.model_validate(deployment["autoscaling_config"])
        assert set(deployment["autoscaling_config"]) <= set(AutoscalingConfig.model_fields)


def check_llm_config(llm: dict[str, Any]) -> None:
    """By Ray's own class where it can be imported (it needs pyarrow), else by the fields that its source declares."""
    if find_spec("pyarrow") is not None:
        from ray.llm._internal.serve.core.configs.llm_config import LLMConfig  # noqa: PLC0415

        LLMConfig.model_validate(llm)
        return
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent / "llm/_internal/serve/core/configs/llm_config.py"
    (found,) = [
        node
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "LLMConfig"
    ]
    fields = {
        part.target.id
        for part in found.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }
    assert "model_loading_config" in fields and set(llm) <= fields


# --- examples and golden files ---------------------------------------------------------------------------------------

_TARGET_OF = {
    "kubernetes.yaml": "k8s",
    "kserve.yaml": "kserve",
    "ray.yaml": "ray",
    "skypilot.yaml": "skypilot",
    "instances.yaml": "instances",
}


def test_every_example_has_its_target() -> None:
    assert {one.name for one in EXAMPLES.glob("*.yaml")} == set(_TARGET_OF)


@pytest.mark.parametrize("name", sorted(_TARGET_OF))
def test_examples_are_taken_and_are_golden(name: str) -> None:
    deployment = read_deployment(EXAMPLES / name)
    target = _TARGET_OF[name]
    shape: dict[str, Any] = {"layout": Layout(deployment.machines.gpus or 1)}
    if deployment.spot.share:
        shape["offers"] = (offer(market=Market.SPOT, usd=0.3), offer())
        shape["replicas"] = 4
    plan = plan_of(deployment, **shape)
    files = compile_plan(plan, target)
    check(target, documents(plan, target))
    missing = [file for file in files if not (GOLDEN / file.name).exists()]
    for file in missing:
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / file.name).write_text(file.text)
    assert not missing, "they were missing, and are made now: look at them, and commit them"
    for file in files:
        golden = GOLDEN / file.name
        assert file.text == golden.read_text(), f"remove {golden} to have it made anew"
    assert compile_plan(plan, target) == files


@pytest.mark.parametrize("target", [one for one in TARGETS if one != "ray"])
@pytest.mark.parametrize("kind", ["claim", "host-path", "empty-dir"])
def test_a_full_description_is_taken(target: str, kind: str) -> None:
    text = FULL.replace("kind: claim", f"kind: {kind}")
    plan = plan_of(text, offers=(offer(market=Market.SPOT, usd=0.3), offer()), layout=Layout(2), replicas=3)
    check(target, documents(plan, target))


def test_nodes_are_asked_before_the_bucket() -> None:
    (workload,) = [one for one in documents(plan_of(FULL), "k8s") if one["kind"] == "Deployment"]
    (fetch,) = workload["spec"]["template"]["spec"]["initContainers"]
    held = {one["name"]: one.get("value") for one in fetch["env"]}
    known = {"DEPLOY_NODE": "10.1.2.3"}
    wanted = "http://10.1.2.3:9410,dns+http://node-cache.serving.svc:9410"
    assert kubernetes_expands(held["TEXTNLP_FAST_PEERS"], known) == wanted
    # A variable is put in only where it stands before.
    names = [one["name"] for one in fetch["env"]]
    assert names.index("DEPLOY_NODE") < names.index("TEXTNLP_FAST_PEERS")
    (machine,) = documents(plan_of(FULL), "instances")
    (script,) = [one["content"] for one in machine["write_files"] if one["path"].endswith("/fetch")]
    assert (
        "export TEXTNLP_FAST_PEERS=http://127.0.0.1:9410,dns+http://node-cache.serving.svc:9410\n" in script
    )


def test_the_scaler_reads_the_scaled_object() -> None:
    (scaled,) = [one for one in documents(plan_of(FULL), "k8s") if one["kind"] == "ScaledObject"]
    (trigger,) = scaled["spec"]["triggers"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    read = read_fleet(trigger["metadata"])
    deployment = parse_deployment(FULL)
    assert read.policy.min_instances == scaled["spec"]["minReplicaCount"] == 0
    assert read.policy.max_instances == scaled["spec"]["maxReplicaCount"] == 6
    assert read.policy.capacity.concurrency == 16
    assert read.policy.capacity.requests_per_s == 4.0
    assert read.policy.cold_start == deployment.policy.cold_start
    assert read.policy.schedule == deployment.policy.schedule
    assert read.policy.budget_usd_per_hour == 20
    assert read.waiting_query == "sum(waiting)"
    assert read.metrics_labels == {"namespace": "prod", "service": "chat"}


def test_ray_takes_options_and_our_policy_takes_the_settings() -> None:
    text = SMALL.replace("engine: {", "engine: {arguments: [--max-model-len, '8192', --no-enable-x, --a=b], ")
    floor = "{instances: 1, begin_hour: 1, end_hour: 2}"
    text += f"policy: {{max_instances: 4, capacity: {{concurrency: 8}}, schedule: [{floor}]}}"
    plan = plan_of(text)
    (config,) = documents(plan, "ray")
    check_ray(config)
    (llm,) = config["applications"][0]["args"]["llm_configs"]
    assert llm["engine_kwargs"] == {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "max_model_len": 8192,
        "enable_x": False,
        "a": "b",
    }
    pytest.importorskip("ray.serve")
    from textnlp_fast.integrations.ray_serve import LLMAutoscalingPolicy  # noqa: PLC0415

    policy = llm["deployment_config"]["autoscaling_config"]["policy"]
    LLMAutoscalingPolicy(**policy["policy_kwargs"])


def test_what_a_target_lacks_is_said() -> None:
    without = SMALL.replace("cache: {image:", "labels: {x:").replace(
        '"registry.example.com/textnlp-fast:0.1.0"', "y"
    )
    with pytest.raises(InvalidInputError, match=r"cache\.image"):
        compile_plan(plan_of(without), "k8s")
    bare = SMALL.replace('{image: "vllm/vllm-openai:v0.11.0"}', "{kind: vllm}")
    with pytest.raises(InvalidInputError, match=r"engine\.image"):
        compile_plan(plan_of(bare), "kserve")
    with pytest.raises(InvalidInputError, match="vLLM by itself"):
        compile_plan(plan_of(SMALL.replace("engine: {", "engine: {kind: sglang, ")), "ray")
    with pytest.raises(InvalidInputError, match="there is no target"):
        compile_plan(plan_of(), "nomad")
    long = parse_deployment(SMALL)
    large = Engine(image="x", arguments=("y" * 20_000,))
    with pytest.raises(InvalidInputError, match="machines take 16384"):
        compile_plan(plan_of(with_engine(long, large)), "instances")


def test_launches_are_split_by_market() -> None:
    text = SMALL + "spot: {share: 0.5}\nplacement: {clouds: [aws], regions: [us-east-1]}\n"
    plan = plan_of(text, offers=(offer(market=Market.SPOT, usd=0.3), offer()), replicas=5)
    spot, listed = launch_requests(plan)
    assert (spot.market, spot.instances) == ("spot-first", 2)
    assert (listed.market, listed.instances) == ("on-demand", 3)
    assert spot.key != listed.key and "1.2.0" in str(spot.key)
    assert spot.user_data is not None and spot.user_data.startswith("#cloud-config\n")


def test_json_of_launches_is_json() -> None:
    (launch,) = [one for one in compile_plan(plan_of(), "instances") if one.name.endswith(".json")]
    (request,) = json.loads(launch.text)
    assert request["instance_types"] == ["g6.xlarge"] and "user_data" not in request
