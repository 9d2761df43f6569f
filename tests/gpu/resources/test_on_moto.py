"""The manager on EC2 as moto serves it: the specification's example, failover, and processes that are killed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from faults.proxy import Fault
from gpu.providers.aws_harness import AwsHarness
from textnlp_fast.errors import AuthenticationError, CapacityError, QuotaError
from textnlp_fast.gpu import Budget, GPUResourceManager, GPUType, Market

_CHILD = Path(__file__).with_name("killed_launch.py")


def test_the_specifications_example(aws: AwsHarness) -> None:
    manager = GPUResourceManager()
    manager.register_provider("aws", "us-east-1")
    instance = manager.get_gpu_instance("aws", GPUType.NVIDIA_T4, count=2)
    assert set(aws.truth()) == {instance.instance_id}
    assert instance.instance.instance_type == "g4dn.12xlarge"  # EC2 has no machine with two
    assert instance.gpu_count == 4
    assert instance.usd_per_hour == pytest.approx(3.912)
    manager.release([instance])
    assert aws.truth() == {}


def test_the_environment_of_the_specification(aws: AwsHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_GPU_TYPE", "nvidia-t4")
    monkeypatch.setenv("ENABLE_SPOT_INSTANCES", "true")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    manager = GPUResourceManager()
    manager.register_provider("aws")
    instance = manager.get_gpu_instance("aws")
    assert (instance.region, instance.instance.market) == ("us-west-2", Market.SPOT)
    assert instance.on_demand_usd_per_hour is not None
    assert instance.usd_per_hour < instance.on_demand_usd_per_hour


def test_goes_on_through_zones_types_and_regions(aws: AwsHarness) -> None:
    manager = GPUResourceManager(owner="fleet-a")
    for region in ("us-east-1", "us-west-2"):
        manager.register_provider("aws", region, first_pause_s=0.01)
    request = manager.request(gpu_types=[GPUType.NVIDIA_T4, GPUType.NVIDIA_L4], max_usd_per_hour=0.9)
    places = [one.place for one in manager.plan(request).candidates]
    assert len({one.region for one in places}) == 2
    assert len({one.instance_type for one in places}) >= 3
    aws.proxy.refuse("RunInstances", "InsufficientInstanceCapacity", 500, times=len(places) - 1)
    (found,) = manager.acquire(request)
    assert (found.region, found.instance.zone, found.instance.instance_type) == (
        places[-1].region,
        places[-1].zone,
        places[-1].instance_type,
    )
    # And what failed is remembered: the one that did not is now the first.
    assert GPUResourceManager(owner="fleet-a").journal.records()
    assert manager.plan(request).candidates[0].place == places[-1]


def test_quota_and_credentials_are_what_is_said(aws: AwsHarness) -> None:
    manager = GPUResourceManager(owner="fleet-a")
    manager.register_provider("aws", "us-east-1", first_pause_s=0.01)
    aws.proxy.refuse("RunInstances", "VcpuLimitExceeded", times=100)
    with pytest.raises(QuotaError):
        manager.get_gpu_instance("aws", GPUType.NVIDIA_T4, instance_types=["g4dn.xlarge"])
    aws.heal()
    aws.proxy.refuse(r"\w+", "ExpiredToken", times=1000)
    with pytest.raises(AuthenticationError):
        manager.get_gpu_instance("aws", GPUType.NVIDIA_T4)
    aws.heal()
    assert aws.truth() == {}


def test_spot_is_one_request_over_all_zones(aws: AwsHarness) -> None:
    """The zone with room that costs least gets it; one zone after another is on-demand's way."""
    manager = GPUResourceManager(owner="fleet-a")
    manager.register_provider("aws", "us-east-1", first_pause_s=0.01)
    request = manager.request(
        gpu_types=GPUType.NVIDIA_T4, market="spot-first", instance_types=["g4dn.xlarge"], instances=2
    )
    plan = [one.place for one in manager.plan(request).candidates]
    assert [one.zone for one in plan if one.market is Market.SPOT] == [None]
    assert None not in [one.zone for one in plan if one.market is Market.ON_DEMAND]
    zones = manager._provider_at("aws", "us-east-1").zones("g4dn.xlarge")
    assert len(zones) >= 4
    aws.proxy.pools = {("g4dn.xlarge", zone): (0, 0.1) for zone in zones}
    aws.proxy.pools |= {
        ("g4dn.xlarge", zones[1]): (1, 0.1),  # cheap, and not enough
        ("g4dn.xlarge", zones[2]): (5, 0.3),
        ("g4dn.xlarge", zones[3]): (5, 0.2),
    }
    found = manager.acquire(request)
    assert {(one.instance.zone, one.instance.market) for one in found} == {(zones[3], Market.SPOT)}
    assert (aws.proxy.calls.count("CreateFleet"), aws.proxy.calls.count("RunInstances")) == (1, 0)
    (record,) = manager.journal.records()
    assert set(aws.truth()) == {one.instance_id for one in record.instances}
    manager.release(found)
    # No spot anywhere: what is asked for next is on demand, and the one place of spot is tried last from then on.
    aws.proxy.pools = {("g4dn.xlarge", zone): (0, 0.1) for zone in zones}
    again = manager.acquire(request)
    assert {one.instance.market for one in again} == {Market.ON_DEMAND}
    assert aws.proxy.calls.count("CreateFleet") == 2
    assert manager.plan(request).candidates[-1].place.market is Market.SPOT
    manager.release(again)
    assert aws.truth() == {}


def test_spot_is_of_any_type_that_will_do(aws: AwsHarness) -> None:
    """The types with the same GPUs at nearly the price go into one request; the journal pays for what came."""
    manager = GPUResourceManager(owner="fleet-a")
    manager.register_provider("aws", "us-east-1", first_pause_s=0.01)
    request = manager.request(gpu_types=GPUType.NVIDIA_A10G, market="spot", gpu_count=1)
    plan = manager.plan(request).candidates
    first = plan[0]
    assert first.alternatives
    dearest = first.most_usd_per_hour
    assert first.usd_per_hour < dearest <= first.usd_per_hour * Decimal("1.25")
    kinds = [one.instance_type for one in (first, *first.alternatives)]
    assert len({(one.gpu_type, one.gpu_count) for one in kinds}) == 1
    zones = manager._provider_at("aws", "us-east-1").zones(first.place.instance_type)
    aws.proxy.pools = {(first.place.instance_type, zone): (0, 0.1) for zone in zones}
    (found,) = manager.acquire(request)
    assert found.instance.instance_type in {one.place.instance_type for one in first.alternatives}
    assert aws.proxy.calls.count("CreateFleet") == 1
    (record,) = manager.journal.records()
    (taken,) = (one for one in first.alternatives if one.place.instance_type == found.instance.instance_type)
    assert (record.instance_type, record.usd_per_hour) == (taken.place.instance_type, taken.usd_per_hour)
    assert record.on_demand_usd_per_hour == taken.on_demand_usd_per_hour
    assert found.usd_per_hour == float(taken.usd_per_hour)
    manager.release([found])
    # None of them anywhere: they are asked for once, together, and all of them are tried last from then on.
    for one in kinds:
        aws.proxy.pools |= {(one.name, zone): (0, 0.1) for zone in zones}
    with pytest.raises(CapacityError):
        manager.acquire(
            manager.request(gpu_types="nvidia-a10g", market="spot", instance_types=[k.name for k in kinds])
        )
    assert aws.proxy.calls.count("CreateFleet") == 2
    failed = [one.place.instance_type for one in manager.plan(request).candidates if one.failure is not None]
    assert set(failed) == {one.name for one in kinds}


def test_a_budget_counts_on_the_dearest_that_may_come(aws: AwsHarness) -> None:
    manager = GPUResourceManager(owner="fleet-a")
    manager.register_provider("aws", "us-east-1", first_pause_s=0.01)
    request = manager.request(gpu_types=GPUType.NVIDIA_A10G, market="spot")
    first = manager.plan(request).candidates[0]
    between = float(first.usd_per_hour + first.most_usd_per_hour) / 2
    tight = GPUResourceManager(owner="fleet-a", budget=Budget(usd_per_hour=between))
    tight.register_provider("aws", "us-east-1", first_pause_s=0.01)
    (found,) = tight.acquire(request)
    assert found.usd_per_hour <= between
    assert tight.costs().total.usd_per_hour <= Decimal(str(between))


def test_spot_goes_by_zones_where_they_are_named_or_machines_are_spread(aws: AwsHarness) -> None:
    manager = GPUResourceManager(owner="fleet-a")
    manager.register_provider("aws", "us-east-1", first_pause_s=0.01)
    for more in ({"zones": ["us-east-1b"]}, {"spread": True}):
        request = manager.request(gpu_types=GPUType.NVIDIA_T4, market="spot", **more)
        assert None not in [one.place.zone for one in manager.plan(request).candidates]
    manager.release(
        manager.acquire(manager.request(gpu_types=GPUType.NVIDIA_T4, market="spot", zones=["us-east-1b"]))
    )
    assert "CreateFleet" not in aws.proxy.calls


# --- killed -------------------------------------------------------------------------------------------------------


class _Child:
    def __init__(self, key: str, market: str = "on-demand") -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(_CHILD), key, market],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.process.stderr and self.process.stderr.read()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)

    def end(self) -> int:
        code = self.process.wait(timeout=120)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


def _found_again(aws: AwsHarness, key: str, market: Any = "on-demand") -> None:
    """The next process with the same key has one machine, and there is no other."""
    aws.heal()
    manager = GPUResourceManager(owner="fleet-a")
    manager.register_provider("aws", "us-east-1", first_pause_s=0.01)
    if key == "none":
        found = manager.list()
        assert len(found) <= 1
    else:
        found = manager.acquire(manager.request(gpu_types=GPUType.NVIDIA_T4, market=market, key=key))
        assert len(found) == 1
    assert set(aws.truth()) == {one.instance_id for one in found}
    assert manager.orphans().strays == ()
    manager.release(found)
    assert aws.truth() == {}


@pytest.mark.parametrize("key", ["train", "none"])
@pytest.mark.parametrize(
    ("action", "kind", "after"),
    [
        ("DescribeInstances", "lose_answer", 0),
        ("DescribeInstanceTypeOfferings", "lose_answer", 0),
        ("DescribeInstances", "lose_answer", 1),
        ("RunInstances", "lose_request", 0),
        ("RunInstances", "lose_answer", 0),
        ("CreateLaunchTemplate", "lose_request", 0),
        ("CreateLaunchTemplate", "lose_answer", 0),
        ("CreateFleet", "lose_request", 0),
        ("CreateFleet", "lose_answer", 0),
    ],
)
def test_killed_at_a_request(aws: AwsHarness, key: str, action: str, kind: str, after: int) -> None:
    market = "spot" if action in ("CreateLaunchTemplate", "CreateFleet") else "on-demand"
    child = _Child(key, market)
    aws.proxy.inject(
        Fault(kind, path=rf"Action={action}\b", after=after, meanwhile=child.kill)  # type: ignore[arg-type]
    )
    child.go()
    assert child.end() == -signal.SIGKILL
    assert len(aws.truth()) == (action in ("RunInstances", "CreateFleet") and kind == "lose_answer")
    _found_again(aws, key, market)


@pytest.mark.parametrize("market", ["on-demand", "spot"])
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_time(aws: AwsHarness, seed: int, market: str) -> None:
    child = _Child("train", market)
    timer = threading.Timer(random.Random(seed).uniform(0.0, 0.6), child.kill)
    child.go()
    timer.start()
    assert child.end() in (0, -signal.SIGKILL)
    timer.cancel()
    _found_again(aws, "train", market)


def test_the_examples_of_the_guide_run(aws: AwsHarness) -> None:
    guide = Path(__file__).parents[3] / "docs" / "guide" / "gpu-fleet.md"
    examples = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 3
    scope: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "gpu-fleet.md", "exec"), scope)
    assert aws.truth() == {}
    assert len(GPUResourceManager().costs().launches) == 2
