"""The settings of the GPU fleet are obeyed: the tests that `ACTS` in test_settings_act.py names for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.ec2 import Ec2Proxy
from gpu.providers.aws_harness import AwsHarness
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
