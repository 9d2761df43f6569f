"""Plans of made-up repositories and catalogues: what the tests compile."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import yaml
from hypothesis import strategies as st

from textnlp_fast.adapter import Deployment, Engine, parse_deployment
from textnlp_fast.adapter.hardware import Hardware
from textnlp_fast.adapter.planning import DeploymentPlan, Version
from textnlp_fast.adapter.targets import compile_plan
from textnlp_fast.gpu.recommender import Layout
from textnlp_fast.gpu.types import GPUType, InstanceType, Market, Offer

__all__ = [
    "HOSTILE",
    "SMALL",
    "documents",
    "hostile_texts",
    "kubernetes_expands",
    "offer",
    "plan_of",
    "with_engine",
]

SMALL = """
name: chat
model: {reference: org/llama@1.2.0, repository: "s3://bucket/models"}
engine: {image: "vllm/vllm-openai:v0.11.0"}
cache: {image: "registry.example.com/textnlp-fast:0.1.0"}
machines: {gpu: nvidia-l4}
"""

#: Texts that mean something to a shell, systemd, YAML, cloud-init, Kubernetes, or a template.
HOSTILE = (
    "$(touch /tmp/owned)",
    "`touch /tmp/owned`",
    "'; touch /tmp/owned; '",
    '"; touch /tmp/owned; "',
    "a\nExecStartPre=/bin/false\n[Install]",
    "%i %h %% %n",
    "$HOME ${HOME} $$ $(VAR) $(TEXTNLP_FAST_REPO)",
    "{{ template }} {% for %}",
    "key: value\n- item\n---\nmore: documents",
    "#cloud-config",
    "*alias &anchor !!python/object:os.system |",
    "\\x41\\n\\",
    "-rf",
    "",
    "yes",
    "1e3",
    "0x10",
    "1_000",
    "12:30:45",
    "2026-01-01",
    "~",
    "null",
    " leading and trailing ",
    "tab\tand\nlines\n\n",
    "é ü 漢字 😀",
    "<<",
    "=",
    "@file",
    "| cat",
    "a" * 300,
    ".inf",
    "NaN",
    "y",
    "0o17",
    "1.",
    "+1",
    "08",
)


def hostile_texts() -> st.SearchStrategy[str]:
    """Those, parts of them joined, and any others that a description takes."""
    plain = st.text(
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"),
        max_size=20,
    )
    return st.one_of(st.sampled_from(HOSTILE), plain, st.tuples(st.sampled_from(HOSTILE), plain).map("".join))


def offer(
    name: str = "g6.xlarge",
    *,
    gpu: GPUType = GPUType.NVIDIA_L4,
    gpus: int = 1,
    market: Market = Market.ON_DEMAND,
    usd: float = 0.8,
    provider: str = "aws",
    region: str = "us-east-1",
) -> Offer:
    """A machine at a price."""
    machine = InstanceType(
        provider=provider,
        name=name,
        gpu_type=gpu,
        gpu_count=gpus,
        gpu_memory_gib=22.5,
        vcpus=4,
        memory_gib=16,
        network_gbps=10,
        local_nvme_gib=250,
    )
    day = datetime.date(2026, 7, 20)
    return Offer(
        instance_type=machine,
        region=region,
        zone=None,
        market=market,
        usd_per_hour=usd,
        as_of=day,
        source="a test",
    )


def plan_of(description: str | Deployment = SMALL, **hardware: Any) -> DeploymentPlan:
    """A plan as `make_plan` would make it, with these figures of the hardware."""
    deployment = parse_deployment(description) if isinstance(description, str) else description
    known: dict[str, Any] = {
        "gpu": GPUType.NVIDIA_L4,
        "layout": Layout(),
        "replicas": 2,
        "offers": (offer(),),
        "requests_per_s": 4.0,
        "sequences": 48,
        "usd_per_hour": 1.6,
    }
    return DeploymentPlan(
        deployment=deployment,
        version=Version(
            name=deployment.model.name, version="1.2.0", raw_bytes=16 << 30, fetch_bytes=11 << 30
        ),
        hardware=Hardware(**{**known, **hardware}),
    )


def with_engine(deployment: Deployment, engine: Engine) -> Deployment:
    return replace(deployment, engine=engine)


def kubernetes_expands(text: str, known: dict[str, str]) -> str:
    """`$(NAME)` and `$$` as the kubelet reads them (third_party/forked/golang/expansion)."""
    out, position = [], 0
    while position < len(text):
        if text[position] != "$" or position + 1 >= len(text):
            out.append(text[position])
            position += 1
            continue
        following = text[position + 1]
        end = text.find(")", position + 2) if following == "(" else -1
        if following == "$":
            out.append("$")
            position += 2
        elif end >= 0:
            name = text[position + 2 : end]
            out.append(known.get(name, text[position : end + 1]))
            position = end + 1
        else:
            out.append(text[position : position + 2])
            position += 2
    return "".join(out)


def documents(plan: Any, target: str) -> list[dict[str, Any]]:
    return [
        one
        for file in compile_plan(plan, target)
        if file.name.endswith(".yaml")
        for one in yaml.safe_load_all(file.text)
    ]
