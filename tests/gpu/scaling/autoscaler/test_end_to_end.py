"""Whole: a loopback engine whose queue follows its load, a policy, and moto's machines that follow it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.ec2 import Ec2Proxy
from gpu.providers.aws_harness import AwsHarness
from gpu.scaling.actuators.aws_harness import AsgHarness, AsgProxy
from gpu.scaling.autoscaler.fleets import RatePolicy
from gpu.scaling.signals.metrics_server import MetricsServer, vllm_text
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.scaling.autoscaler.manager import GPUAutoscalerManager
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity, ScalingPolicy
from textnlp_fast.gpu.scaling.signals.replicas import ReplicaScraper
from textnlp_fast.gpu.types import Market

NOON = 1_767_268_800.0


class Engine:
    """A queue in front of replicas of 10 requests a second each, and the metrics of all of them together."""

    def __init__(self) -> None:
        self.now_s = NOON
        self.finished = self.waiting = self.running = 0.0

    def clock(self) -> float:
        return self.now_s

    def pass_time(self, seconds: float, *, rate: float, replicas: int) -> None:
        self.now_s += seconds
        self.waiting += rate * seconds
        served = min(self.waiting, 10.0 * replicas * seconds)
        self.waiting -= served
        self.finished += served
        self.running = min(10.0 * replicas, rate)

    def text(self) -> str:
        return vllm_text(
            running=self.running,
            waiting=self.waiting,
            finished=self.finished,
            prompt_tokens=self.finished * 500,
            output_tokens=self.finished * 100,
            ttft={"0.1": self.finished, "1.0": self.finished, "+Inf": self.finished},
        )


@pytest.fixture
def group(ec2_server: str) -> Iterator[AsgHarness]:
    with AsgProxy(ec2_server) as proxy:
        yield AsgHarness(ec2_server, proxy)


@pytest.mark.parametrize("ours", [True, False])
async def test_a_group_follows_load_up_and_down_over_a_restart(
    group: AsgHarness, tmp_path: Path, ours: bool
) -> None:
    engine = Engine()
    policy = ScalingPolicy(
        max_instances=12, capacity=ReplicaCapacity(requests_per_s=10.0), scale_down_delay_s=30.0
    )
    with MetricsServer(engine.text) as server:

        def runner() -> Any:
            # A new process: nothing is shared with the one before but the store and the group.
            manager = GPUAutoscalerManager(
                policy=policy,
                actuator=group.actuator(drain=lambda replica, left_s: True),
                observer=ReplicaScraper([server.url], slo=policy, clock=engine.clock),
                store=tmp_path,
                make_policy=None if ours else RatePolicy,
                clock=engine.clock,
            )
            return manager.runner(manager.prepared("aws-asg:llm?region=us-east-1"))

        current, sizes = runner(), []
        for number, rate in enumerate([20.0] * 4 + [75.0] * 7 + [15.0] * 7):
            if number == 6:
                current = runner()  # in the middle of the way up
            record = await current.once()
            assert record is not None
            assert record.outcome == "told"
            assert group.told() >= record.target  # less, once what goes is empty
            sizes.append(record.target)
            engine.pass_time(10.0, rate=rate, replicas=group.told())
        assert max(sizes[5:12]) >= 8  # 75 requests a second are more than seven replicas carry
        assert min(sizes[6:11]) >= 8  # the restart gave nothing up
        assert sizes[0] == 3  # a fleet that is taken over is not made smaller at first sight
        assert group.told() == sizes[-1] <= 4
        assert engine.waiting == 0.0
        log = [one async for one in _log(tmp_path)]
        assert [one.number for one in log] == list(range(len(sizes), 0, -1))


async def _log(folder: Path) -> Any:
    for one in await GPUAutoscalerManager(store=folder).decisions(limit=1000):
        yield one


async def test_the_specifications_example(
    ec2_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain machines of AWS, spot first, on moto; everything else comes from the environment."""
    with Ec2Proxy(ec2_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", proxy.endpoint_url)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("DEFAULT_GPU_TYPE", "t4")
        monkeypatch.setenv("TEXTNLP_FAST_FLEET_STATE", str(tmp_path))
        monkeypatch.setenv("GPU_AUTOSCALING", "true")
        monkeypatch.setenv("ENABLE_SPOT_INSTANCES", "true")

        from textnlp_fast.gpu import GPUAutoscalerManager, ScalingPolicy  # noqa: PLC0415

        policy = ScalingPolicy(min_instances=1, max_instances=10)
        autoscaler_manager = GPUAutoscalerManager()
        await autoscaler_manager.start_autoscaling("aws")
        try:
            (status,) = autoscaler_manager.status()
            assert (status.role, status.target) == ("active", policy.min_instances)
            truth = AwsHarness(ec2_server, proxy).truth()
            assert len(truth) == 1
            (record,) = Journal.open(tmp_path).records()
            assert record.market is Market.SPOT
        finally:
            await autoscaler_manager.stop_autoscaling()
        told = await autoscaler_manager.explain(name="aws")
        assert told.record.target == 1
        assert told.record.outcome == "told"
