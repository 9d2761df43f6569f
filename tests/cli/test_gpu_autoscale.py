"""`gpu autoscale` and `gpu why`, on moto's Auto Scaling group and a loopback replica."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpu.scaling.actuators.aws_harness import AsgHarness, AsgProxy
from gpu.scaling.autoscaler.fleets import RatePolicy
from gpu.scaling.signals.metrics_server import MetricsServer, vllm_text
from textnlp_fast.gpu.scaling.autoscaler import manager

TARGET = "aws-asg:llm?region=us-east-1"


def test_one_decision_dry_and_then_told(
    run: Any, ec2_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Held(RatePolicy):
        """Wants seven whatever it sees."""

        def decide(self, observation: Any) -> Any:
            return super().decide(observation._replace(request_rate=70.0))

    monkeypatch.setattr(manager, "our_policy", Held)
    with AsgProxy(ec2_server) as proxy, MetricsServer(vllm_text(waiting=3, running=2)) as replica:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
        harness = AsgHarness(ec2_server, proxy)
        words = ("gpu", "autoscale", TARGET, "--observe", replica.url, "--store", tmp_path, "--once")
        dry = run(*words, "--dry-run", "--json")
        assert dry.code == 0, dry.err
        assert (dry.document["target"], dry.document["outcome"]) == (7, "dry run")
        assert dry.document["observed"]["waiting_requests"] == 3
        assert harness.told() == 3
        assert not any(tmp_path.rglob("*.json"))
        told = run(*words)
        assert told.code == 0, told.err
        assert "7 replicas (decision 1, told)." in told.out
        assert harness.told() == 7
        why = run("gpu", "why", "--store", tmp_path)
        assert "70.0 requests/s need 7.00 replicas" in why.out
        assert run("gpu", "why", "--store", tmp_path, "--json").document["target"] == 7
        assert run("gpu", "why", "--store", tmp_path, "--at", "2020-01-01").code == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dry-run",), "--once"),
        (("--once", "--observe", "http://a", "--prometheus", "http://b"), "Leave one out"),
        (("--once", "--match", "a=b"), "--prometheus"),
        (("--once", "--min", "3", "--max", "2"), "max_instances"),
    ],
)
def test_calls_that_are_wrong(run: Any, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    refused = run("gpu", "autoscale", TARGET, "--store", tmp_path, *words)
    assert refused.code == 2
    assert said in refused.err


def test_it_is_refused_where_it_is_turned_off(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU_AUTOSCALING", "false")
    refused = run("gpu", "autoscale", TARGET, "--store", tmp_path, "--once")
    assert refused.code == 9
    assert "GPU_AUTOSCALING=true" in refused.err
