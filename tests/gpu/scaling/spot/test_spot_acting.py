"""A mix on EC2 as moto serves it: counts and tags, restarts in the middle, drains, losses, refusals."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gpu.providers.aws_harness import AwsHarness
from textnlp_fast.config import load_settings
from textnlp_fast.errors import CapacityError, InvalidInputError
from textnlp_fast.gpu import GPUResourceManager
from textnlp_fast.gpu.scaling.spot.acting import SPOT_FLEET_TAG, SpotFleet, spot_settings
from textnlp_fast.gpu.scaling.spot.market import ON_DEMAND, Mix
from textnlp_fast.gpu.scaling.spot.mix import SpotMix

_ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")


def _fleet(**more: Any) -> SpotFleet:
    manager = GPUResourceManager(owner="fleet-a")
    provider = manager.register_provider("aws", "us-east-1", first_pause_s=0.01)
    wish = {"gpu_types": "nvidia-t4", "instance_types": ["g4dn.xlarge"]}
    return SpotFleet(manager=manager, provider=provider, zones=_ZONES, wish=wish, **more)


def _mix(on_demand: int, drain: tuple[str, ...] = (), **spot: int) -> Mix:
    return Mix(0.0, tuple((f"us-east-1{letter}", count) for letter, count in spot.items()), on_demand, drain)


def _there(aws: AwsHarness) -> Counter[str]:
    """What EC2 has, by place."""
    found: Counter[str] = Counter()
    for page in aws.ec2.get_paginator("describe_instances").paginate():
        for group in page["Reservations"]:
            for one in group["Instances"]:
                if one["State"]["Name"] in ("pending", "running"):
                    tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
                    assert tags[SPOT_FLEET_TAG] == "llm"
                    spot = one.get("InstanceLifecycle") == "spot"
                    found[one["Placement"]["AvailabilityZone"] if spot else ON_DEMAND] += 1
    return found


def test_a_mix_is_there_and_said_again_it_launches_nothing(aws: AwsHarness) -> None:
    fleet = _fleet()
    done = fleet.act(_mix(2, a=1, b=2), decision_id="d1", now_s=0.0)
    assert len(done.launched) == 5 and done.problems == ()
    assert _there(aws) == {"us-east-1a": 1, "us-east-1b": 2, ON_DEMAND: 2}
    seen = fleet.observe(time_s=10.0, target=4)
    assert [(one.ready, one.launched, one.refused) for one in seen.zones] == [(1, 1, 0), (2, 2, 0), (0, 0, 0)]
    assert seen.on_demand_ready == 2
    prices = [one.usd_per_hour for one in seen.zones]
    assert seen.on_demand_usd_per_hour is not None and all(
        0 < one < seen.on_demand_usd_per_hour for one in prices if one
    )
    assert fleet.act(_mix(2, a=1, b=2), decision_id="d1", now_s=20.0).launched == ()
    assert _fleet().act(_mix(2, a=1, b=2), decision_id="d1", now_s=20.0).launched == ()
    assert sum(_there(aws).values()) == 5


@pytest.mark.parametrize("after", range(4))
def test_a_process_that_dies_in_the_middle_is_finished_by_the_next(
    aws: AwsHarness, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    mix, first = _mix(2, a=1, b=2), _fleet()
    acquire, calls = first.manager.acquire, Counter[str]()

    def dies(request: Any) -> Any:
        calls["acquire"] += 1
        if calls["acquire"] > after:
            raise KeyboardInterrupt
        return acquire(request)

    monkeypatch.setattr(first.manager, "acquire", dies)
    if after < 3:
        with pytest.raises(KeyboardInterrupt):
            first.act(mix, decision_id="d1", now_s=0.0)
    else:
        first.act(mix, decision_id="d1", now_s=0.0)
    _fleet().act(mix, decision_id="d1", now_s=5.0)
    assert _there(aws) == {"us-east-1a": 1, "us-east-1b": 2, ON_DEMAND: 2}


def test_what_streams_is_drained_before_it_ends(aws: AwsHarness) -> None:
    asked: list[tuple[str, float]] = []
    busy = True

    def drain(replica: Any, left_s: float) -> bool:
        asked.append((replica.replica_id, left_s))
        return not busy

    fleet = _fleet(drain=drain, drain_s=100.0)
    fleet.act(_mix(1, a=2), decision_id="d1", now_s=0.0)
    done = fleet.act(_mix(0, (ON_DEMAND,), a=2), decision_id="d2", now_s=10.0)
    assert len(done.drained) == 1 and done.ended == () and _there(aws)[ON_DEMAND] == 1
    # What drains is no part of the fleet any more, in another process neither.
    again = _fleet(drain=drain, drain_s=100.0)
    assert again.observe(time_s=20.0, target=2).on_demand_ready == 0
    done = again.act(_mix(0, a=2), decision_id="d3", now_s=50.0)
    assert (done.drained, done.ended) == ((), ()) and asked[-1][1] == pytest.approx(60.0)
    busy = False
    assert len(again.act(_mix(0, a=2), decision_id="d4", now_s=60.0).ended) == 1
    assert _there(aws) == {"us-east-1a": 2}
    busy = True
    fleet.act(_mix(0, a=1), decision_id="d5", now_s=70.0)
    assert len(fleet.act(_mix(0, a=1), decision_id="d6", now_s=170.0).ended) == 1  # its time is over
    assert _there(aws) == {"us-east-1a": 1}


def test_a_notice_is_answered_at_once_and_its_machine_is_not_ended_by_us(aws: AwsHarness) -> None:
    noticed: set[str] = set()
    fleet = _fleet(notices=lambda: noticed)
    (one,) = fleet.act(_mix(0, a=1), decision_id="d1", now_s=0.0).launched
    noticed.add(one.instance_id)
    seen = fleet.observe(time_s=10.0, target=1)
    assert seen.zones[0].noticed == 1
    done = fleet.act(_mix(0, b=1), decision_id="d2", now_s=10.0)
    assert done.drained == (one.instance_id,) and len(done.launched) == 1 and done.ended == ()
    assert _there(aws) == {"us-east-1a": 1, "us-east-1b": 1}


def test_losses_and_refusals_are_seen_and_our_own_ends_are_no_losses(aws: AwsHarness) -> None:
    fleet = _fleet()
    done = fleet.act(_mix(0, a=2, b=1), decision_id="d1", now_s=0.0)
    fleet.observe(time_s=1.0, target=3)
    taken = next(one for one in done.launched if one.instance.zone == "us-east-1a")
    aws.ec2.terminate_instances(InstanceIds=[taken.instance_id])
    fleet.act(_mix(0, a=1), decision_id="d2", now_s=2.0)
    seen = fleet.observe(time_s=3.0, target=3)
    assert [(one.ready, one.preempted) for one in seen.zones] == [(1, 1), (0, 0), (0, 0)]
    assert fleet.observe(time_s=4.0, target=3).zones[0].preempted == 0
    aws.no_capacity()
    done = fleet.act(_mix(1, a=1, c=2), decision_id="d3", now_s=5.0)
    assert {place for place, _ in done.problems} == {"us-east-1c", ON_DEMAND}
    assert all(isinstance(error, CapacityError) for _, error in done.problems)
    seen = fleet.observe(time_s=6.0, target=3)
    assert (seen.zones[2].refused, seen.on_demand_refused) == (2, 1)


def test_the_environment_decides_whether_there_is_spot(
    aws: AwsHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENABLE_SPOT_INSTANCES", "false")
    fleet = _fleet()
    assert not spot_settings(load_settings()).spot
    fleet.act(_mix(1, a=2), decision_id="d1", now_s=0.0)
    assert _there(aws) == {ON_DEMAND: 3}


def test_the_policy_and_the_fleet_together(aws: AwsHarness) -> None:
    fleet = _fleet()
    policy = SpotMix(spot_settings(fleet.manager.settings, max_machines=12))
    for step in range(12):
        mix = policy.decide(fleet.observe(time_s=step * 200.0, target=3))
        fleet.act(mix, decision_id=f"d{step}", now_s=step * 200.0)
        assert sum(_there(aws).values()) <= 12
    seen = fleet.observe(time_s=2400.0, target=3)
    assert sum(one.ready for one in seen.zones) + seen.on_demand_ready >= 3


def test_names_and_zones_are_checked(aws: AwsHarness) -> None:
    with pytest.raises(InvalidInputError):
        _fleet(name="Not a name")
    manager = GPUResourceManager(owner="fleet-a")
    provider = manager.register_provider("aws", "us-east-1")
    with pytest.raises(InvalidInputError):
        SpotFleet(manager=manager, provider=provider, zones=(), wish={"gpu_types": "nvidia-t4"})


def test_the_example_of_the_guide_runs(aws: AwsHarness) -> None:
    guide = Path(__file__).parents[4] / "docs" / "guide" / "gpu-spot.md"
    (example,) = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(example, "gpu-spot.md", "exec"), scope)
    there = _there(aws)
    assert sum(there.values()) == scope["mix"].total >= 2
