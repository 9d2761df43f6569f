"""The settings of the GPU fleet are obeyed: the tests that `ACTS` in test_settings_act.py names for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.azure_arm import ArmFake
from fakes.azure_arm.server import GROUP, SUBSCRIPTION
from fakes.ec2 import Ec2Proxy
from gpu.providers.aws_harness import AwsHarness
from gpu.providers.azure_harness import StaticToken, arm_sizes
from textnlp_fast.errors import InvalidInputError, NotAllowedError
from textnlp_fast.gpu import GPUAutoscalerManager
from textnlp_fast.gpu.catalog import refreshed_path
from textnlp_fast.gpu.providers.contract import OWNER_TAG

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_the_refreshed_catalogue_is_where_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.yaml").write_text("gpu_catalog: of-a-file.json\n", encoding="utf-8")
    monkeypatch.setenv("TEXTNLP_FAST_CONFIG", str(tmp_path / "settings.yaml"))
    assert refreshed_path() == Path("of-a-file.json")
    monkeypatch.setenv("TEXTNLP_FAST_GPU_CATALOG", "of-the-environment.json")
    assert refreshed_path() == Path("of-the-environment.json")


def test_the_fleet_is_kept_named_and_bounded_as_set(
    run: Any, ec2_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1", "--yes", "--json")
    with Ec2Proxy(ec2_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", proxy.endpoint_url)
        monkeypatch.setenv("TEXTNLP_FAST_FLEET_STATE", str(tmp_path / "journal"))
        monkeypatch.setenv("TEXTNLP_FAST_FLEET_OWNER", "fleet-b")
        truth = AwsHarness(ec2_server, proxy).truth
        for name in ("MAX_USD_PER_HOUR", "BUDGET_USD_PER_HOUR", "BUDGET_USD"):
            with monkeypatch.context() as bounded:
                bounded.setenv(f"TEXTNLP_FAST_GPU_{name}", "0.01")
                refused = run(*words)
            assert refused.code == 15, name
            assert truth() == {}
        launched = run(*words)
        assert launched.code == 0, launched.err
        (one,) = launched.document["instances"]
        assert one["tags"][OWNER_TAG] == "fleet-b"
        assert list((tmp_path / "journal").rglob("*.json"))
        assert run("gpu", "terminate", one["instance_id"], "--yes").code == 0
        assert truth() == {}


def test_azures_subnet_and_key_are_those_that_are_set(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = pytest.importorskip("azure.identity")
    monkeypatch.setattr(identity, "DefaultAzureCredential", lambda **_: StaticToken("good"))
    monkeypatch.setenv("TEXTNLP_FAST_FLEET_STATE", str(tmp_path / "journal"))
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", GROUP)
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)
    monkeypatch.setenv("TEXTNLP_FAST_AZURE_SUBNET", "network/gpu")
    key = tmp_path / "key.pub"
    monkeypatch.setenv("TEXTNLP_FAST_AZURE_SSH_PUBLIC_KEY_FILE", str(key))
    with ArmFake(arm_sizes()) as fake:
        words = ("gpu", "launch", "--gpu", "t4", "--in", "azure:westeurope", "--yes", "--json")
        words = (*words, "--option", f"azure.endpoint_url={fake.endpoint_url}")
        for content, said in (
            (None, "cannot be read"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private one"),
        ):
            if content is not None:
                key.write_text(content, encoding="utf-8")
            refused = run(*words)
            assert refused.code == 2
            assert said in refused.err
            assert "BEGIN" not in refused.err + refused.out
        assert fake.machines() == []
        key.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE test\n", encoding="utf-8")
        launched = run(*words)
        assert launched.code == 0, launched.err
        (machine,) = fake.machines()
        system = machine.body["properties"]["osProfile"]["linuxConfiguration"]["ssh"]["publicKeys"][0]
        assert system["keyData"] == "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE test"
        card = str(machine.body["properties"]["networkProfile"])
        assert "/virtualNetworks/network/subnets/gpu" in card


def test_the_rules_of_health_are_those_that_are_set(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules.json").write_text("no rules", encoding="utf-8")
    monkeypatch.setenv("TEXTNLP_FAST_GPU_HEALTH_RULES", str(tmp_path / "rules.json"))
    refused = run("gpu", "health", "--agent", "http://127.0.0.1:9")
    assert refused.code == 2
    assert "rules.json" in refused.err


def test_recommendations_ask_for_the_gpu_and_market_that_are_set(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offered(*more: str) -> set[tuple[str, str]]:
        document = run("gpu", "recommend", "--params", "8e9", "--rps", "5", "--json", "--limit", "99", *more)
        bought = [one for plan in document.document["plans"] for one in plan["machines_of"]]
        return {(one["gpu_type"], one["market"]) for one in bought}

    assert len({gpu for gpu, _ in offered()}) > 3
    assert {market for _, market in offered()} == {"on-demand"}
    monkeypatch.setenv("DEFAULT_GPU_TYPE", "nvidia-l40s")
    assert offered() == {("nvidia-l40s", "on-demand")}
    monkeypatch.setenv("ENABLE_SPOT_INSTANCES", "true")
    assert offered() == {("nvidia-l40s", "spot")}
    assert offered("--gpu", "h100", "--no-spot") == {("nvidia-h100", "on-demand")}


async def test_autoscalers_start_only_where_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbidden, nothing of the target is looked at; allowed, a target that is none is what is wrong."""
    manager = GPUAutoscalerManager(store=tmp_path)
    monkeypatch.setenv("GPU_AUTOSCALING", "false")
    with pytest.raises(NotAllowedError, match="gpu_autoscaling"):
        await manager.start_autoscaling("nothing:here")
    monkeypatch.setenv("GPU_AUTOSCALING", "true")
    with pytest.raises(InvalidInputError, match="names no actuator"):
        await manager.start_autoscaling("nothing:here")
