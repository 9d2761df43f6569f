"""What a description comes to: versions, bytes, machines and money, against the pulls and the prices themselves."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from adapter.plans import offer, plan_of
from textnlp_fast.adapter import Deployment, parse_deployment
from textnlp_fast.adapter.planning import make_plan, policy_of
from textnlp_fast.cli.deploy.plan import command as plan_command
from textnlp_fast.errors import InvalidInputError, NoPlanError, VersionNotFoundError
from textnlp_fast.gpu.catalog import Catalog
from textnlp_fast.gpu.types import GPUType, Market, Offer
from textnlp_fast.storage import Registry, Repository

safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors")

SHAPE = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Versions 1.0.0 and 1.1.0 of a model whose config.json says 8B, `champion` the first."""
    opened = Repository.open(tmp_path / "repo", create=True)
    generator = np.random.default_rng(7)
    weights = {
        f"layers.{one}.w": generator.standard_normal((128, 128)).astype(np.float16) for one in range(6)
    }
    for version in ("1.0.0", "1.1.0"):
        folder = tmp_path / version
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(SHAPE))
        safetensors.save_file(weights, folder / "model.safetensors")
        opened.push(folder, "llama", version)
        weights["layers.0.w"] = weights["layers.0.w"] * np.float16(1.001)
    Registry(opened).set_alias("llama", "champion", "1.0.0")
    return opened


def described(repository: Repository, more: str = "") -> Deployment:
    return parse_deployment(f"""
name: chat
model: {{reference: llama@champion, repository: {json.dumps(repository.url)}}}
engine: {{image: "vllm/vllm-openai:v0.11.0"}}
cache: {{image: "registry.example.com/textnlp-fast:0.1.0"}}
{more}
""")


def test_bytes_are_those_that_pulls_fetch(repository: Repository, tmp_path: Path) -> None:
    deployment = described(repository, "machines: {gpu: L4}")
    model = replace(deployment.model, reference="llama@1.1.0")
    plan = make_plan(replace(deployment, model=model), repository, serving="1.0.0")
    fresh = repository.pull("llama", "1.1.0", tmp_path / "fresh")
    old = repository.pull("llama", "1.0.0", tmp_path / "node")
    update = repository.pull("llama", "1.1.0", tmp_path / "next", have=[tmp_path / "node"])
    assert old.fetched_bytes > 0
    assert plan.version.raw_bytes == fresh.raw_bytes
    assert plan.version.fetch_bytes == fresh.fetched_bytes
    assert plan.version.from_bytes == update.fetched_bytes < fresh.fetched_bytes / 3


def test_aliases_are_resolved_and_what_is_not_there_is_refused(repository: Repository) -> None:
    deployment = described(repository, "machines: {gpu: L4}")
    plan = make_plan(deployment, repository)
    assert str(plan.version) == "llama@1.0.0" and any("champion" in note for note in plan.notes)
    gone = replace(deployment, model=replace(deployment.model, reference="llama@9.0.0"))
    with pytest.raises(VersionNotFoundError):
        make_plan(gone, repository)


def test_the_cheapest_machines_that_serve_are_taken(repository: Repository) -> None:
    more = "workload: {requests_per_s: 20}\nplacement: {clouds: [aws], regions: [us-east-1]}\n"
    more += "policy: {max_instances: 40}"
    plan = make_plan(described(repository, more), repository)
    hardware = plan.hardware
    assert hardware.requests_per_s is not None and hardware.usd_per_hour is not None
    assert hardware.replicas * hardware.requests_per_s >= 20 * 1.2 * (1 - 1e-9)
    (taken,) = hardware.offers
    # By the price of the machines themselves.
    machines = -(-hardware.replicas // hardware.replicas_a_machine)
    assert hardware.usd_per_hour == pytest.approx(machines * taken.usd_per_hour)
    # No other GPU type, asked for by name, is cheaper.
    for gpu in (GPUType.NVIDIA_L4, GPUType.NVIDIA_A10G, GPUType.NVIDIA_H100):
        try:
            other = make_plan(described(repository, f"{more}\nmachines: {{gpu: {gpu}}}"), repository)
        except NoPlanError:
            continue
        assert other.hardware.gpu == gpu
        assert other.hardware.usd_per_hour is not None
        assert other.hardware.usd_per_hour >= hardware.usd_per_hour - 1e-9
    policy = policy_of(plan)
    assert policy.capacity.requests_per_s == hardware.requests_per_s
    assert policy.usd_per_hour == pytest.approx(hardware.usd_per_hour / hardware.replicas)


def test_machines_with_arm_processors_are_named_or_not_taken(repository: Repository) -> None:
    more = (
        "workload: {requests_per_s: 0.1, prompt_tokens: 50, output_tokens: 20}\nslo: {ttft_s: 60, tpot_s: 2}"
    )
    plan = make_plan(described(repository, more), repository)
    assert plan.hardware.gpu not in (GPUType.NVIDIA_T4G, GPUType.NVIDIA_GB200)
    assert any(what == "nvidia-t4g" and "ARM" in why for what, why in plan.hardware.rejected)
    named = make_plan(
        described(repository, f"{more}\nmachines: {{gpu: GB200}}\nspot: {{share: 0.0}}"), repository
    )
    assert named.hardware.gpu == GPUType.NVIDIA_GB200


def test_one_a_machine_means_it(repository: Repository) -> None:
    more = "workload: {requests_per_s: 60}\npolicy: {max_instances: 200}\nmachines: {gpu: L4}"
    plan = make_plan(described(repository, more), repository, one_a_machine=True)
    for one in plan.hardware.offers:
        assert one.instance_type.gpu_count == plan.hardware.gpus


def test_what_cannot_be_had_is_said(repository: Repository) -> None:
    with pytest.raises(InvalidInputError, match="which GPU"):
        make_plan(described(repository), repository)
    with pytest.raises(NoPlanError):
        make_plan(described(repository, "workload: {requests_per_s: 20}\nslo: {ttft_s: 0.0001}"), repository)
    with pytest.raises(NoPlanError) as few:
        make_plan(
            described(repository, "workload: {requests_per_s: 2000}\npolicy: {max_instances: 2}"), repository
        )
    assert any("max_instances" in why for _, why in few.value.rejected)
    with pytest.raises(NoPlanError) as poor:
        make_plan(
            described(repository, "workload: {requests_per_s: 20}\nbudget: {usd_per_hour: 0.01}"), repository
        )
    assert any("budget" in why for _, why in poor.value.rejected)
    with pytest.raises(InvalidInputError, match="no machine on offer"):
        make_plan(described(repository, "machines: {gpu: L4, gpus: 5}"), repository, one_a_machine=True)
    # A cluster of one's own may have what no cloud rents.
    own = make_plan(described(repository, "machines: {gpu: L4, gpus: 16}"), repository)
    assert own.hardware.gpus == 16 and own.hardware.usd_per_hour is None and own.notes


class _Prices(Catalog):
    """A catalogue of two offers."""

    def __init__(self, offers: list[Offer]) -> None:
        self._two = offers

    def offers(self, **wanted: Any) -> list[Offer]:  # type: ignore[override]
        markets = wanted["markets"]
        return [one for one in self._two if markets is None or one.market in markets]


def test_spot_is_counted_at_its_price(repository: Repository) -> None:
    prices = _Prices([offer(market=Market.SPOT, usd=0.3), offer(usd=0.8)])
    more = "machines: {gpu: L4}\npolicy: {min_instances: 5}\nspot: {share: 0.5}\nbudget: {usd_per_hour: 2}"
    plan = make_plan(described(repository, more), repository, catalog=prices)
    assert plan.hardware.usd_per_hour == pytest.approx(2 * 0.3 + 3 * 0.8)
    assert any("over the budget" in note for note in plan.notes)
    none = make_plan(described(repository, more.replace("0.5", "0")), repository, catalog=prices)
    assert none.hardware.usd_per_hour == pytest.approx(5 * 0.8)
    with pytest.raises(InvalidInputError, match="spot only"):
        make_plan(described(repository, more), repository, catalog=_Prices([offer(market=Market.SPOT)]))


def test_a_plan_holds_still() -> None:
    assert plan_of() == plan_of()
    assert offer().as_of == datetime.date(2026, 7, 20)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_shows_writes_and_compares(repository: Repository, tmp_path: Path) -> None:
    file = tmp_path / "chat.yaml"
    text = f"""
name: chat
model: {{reference: llama@champion, repository: {json.dumps(str(tmp_path / "repo"))}}}
engine: {{image: "vllm/vllm-openai:v0.11.0"}}
cache: {{image: "registry.example.com/textnlp-fast:0.1.0"}}
machines: {{gpu: L4}}
"""
    file.write_text(text)
    run = CliRunner()
    shown = run.invoke(plan_command, [str(file), "--target", "k8s"], catch_exceptions=False)
    assert (
        shown.exit_code == 0
        and "llama@1.0.0 on k8s" in shown.output
        and "would make: chat.yaml" in shown.output
    )
    out = tmp_path / "out"
    words = [str(file), "--target", "k8s", "--out", str(out)]
    assert "new: " in run.invoke(plan_command, words, catch_exceptions=False).output
    assert "same: " in run.invoke(plan_command, words, catch_exceptions=False).output
    assert [one.name for one in out.iterdir()] == ["chat.yaml"]
    # The registry knows what nodes have; the alias moves on.
    registry = Registry(repository)
    registry.deploy("llama", "1.0.0", "chat")
    registry.set_alias("llama", "champion", "1.1.0")
    changed = run.invoke(plan_command, [*words, "--json"], catch_exceptions=False)
    document = json.loads(changed.output)
    assert document["version"]["from_version"] == "1.0.0"
    assert document["version"]["from_bytes"] < document["version"]["fetch_bytes"]
    (made,) = document["files"]
    assert made["state"] == "changed"
    assert any(line.startswith("+") and "1.1.0" in line for line in made["difference"].splitlines())
    assert "llama@1.1.0" in (out / "chat.yaml").read_text()
