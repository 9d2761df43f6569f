"""Killed at every step, the next process goes on with the right count; of two at once, exactly one acts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpu.scaling.autoscaler.fleets import FileFleet, RatePolicy, Traffic
from textnlp_fast.errors import ConflictError
from textnlp_fast.gpu.scaling.autoscaler import GPUAutoscalerManager
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.objectstore import open_store

_SCRIPT = Path(__file__).with_name("killed_scaler.py")


def manager_of(folder: Path, rate: float, **more: Any) -> GPUAutoscalerManager:
    options: dict[str, Any] = {
        "policy": ScalingPolicy(max_instances=20, period_s=0.05),
        "actuator": FileFleet(folder / "fleet.json"),
        "observer": Traffic(rate),
        "store": open_store(folder / "store"),
        "make_policy": RatePolicy,
        "lease_s": 0.4,
    }
    return GPUAutoscalerManager(**{**options, **more})


def test_killed_at_each_step(tmp_path: Path) -> None:
    """After each kill a whole period follows: the fleet is as large as decided, and no decision is lost or twice."""
    ended = subprocess.run(
        [sys.executable, _SCRIPT, tmp_path, "35"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    killed = int(ended.stdout)
    assert killed > 10
    for at in range(1, killed + 1):
        folder = tmp_path / str(at)
        manager = manager_of(folder, 72.0)
        loop = manager.prepared("test:fleet")
        before = manager.book("test-fleet").peek()
        record = asyncio.run(manager.runner(loop).once())
        assert record is not None
        fleet = FileFleet(folder / "fleet.json")
        assert (record.target, record.outcome, fleet.count) == (8, "told", 8)
        if before.pending is not None:
            # What was written down is said again, under its own id, before anything new is.
            assert [before.pending.decision_id, 4] in fleet.content["told"]
        log = list(manager.book("test-fleet").decisions())
        assert [one.number for one in log] == list(range(len(log), 0, -1))
        assert record.number == before.number + 1
        assert all(one.outcome == "told" for one in log)
        # The policy goes on from where the killed one had written.
        assert manager.book("test-fleet").peek().policy == {"asked": before.number + 1, "last": 8}


async def test_of_two_exactly_one_acts(tmp_path: Path) -> None:
    first, second = manager_of(tmp_path, 35.0), manager_of(tmp_path, 35.0)
    await asyncio.gather(first.start_autoscaling("test:fleet"), second.start_autoscaling("test:fleet"))
    roles = sorted(one.status()[0].role for one in (first, second))
    assert roles == ["active", "standby"]
    active, other = (first, second) if first.status()[0].role == "active" else (second, first)
    await active.stop_autoscaling()
    for _ in range(400):
        if other.status()[0].role == "active":
            break
        await asyncio.sleep(0.02)
    assert other.status()[0].role == "active"
    await other.stop_autoscaling()
    told = [one for one, _ in FileFleet(tmp_path / "fleet.json").content["told"]]
    numbers = [int(one.rpartition("-")[2]) for one in told]
    assert numbers == sorted(numbers)  # no one spoke with an older voice
    log = await first.decisions("test-fleet", limit=1000)
    assert [one.number for one in log] == list(range(len(log), 0, -1))


async def test_a_lease_lost_in_the_middle_of_a_period_stops_the_hand(tmp_path: Path) -> None:
    """The other takes over while this one looks at the fleet: nothing is told, and nothing is written."""
    manager = manager_of(tmp_path, 35.0)
    loop = manager.prepared("test:fleet")
    await loop.take_over(1)

    class Slow(Traffic):
        async def observe(self, fleet: Any, *, time_s: float) -> Any:
            other = manager_of(tmp_path, 99.0)
            await other.runner(other.prepared("test:fleet")).once()
            return await super().observe(fleet, time_s=time_s)

    loop._observer = Slow(35.0)
    with pytest.raises(ConflictError):
        await loop.period(lambda: True)
    assert FileFleet(tmp_path / "fleet.json").content["told"] == [["test-fleet-1", 10]]


async def test_a_lease_that_ends_after_the_write_stops_the_hand_too(tmp_path: Path) -> None:
    manager = manager_of(tmp_path, 35.0)
    loop = manager.prepared("test:fleet")
    await loop.take_over(1)
    with pytest.raises(ConflictError):
        await loop.period(lambda: False)
    assert FileFleet(tmp_path / "fleet.json").content["told"] == []
    pending = manager.book("test-fleet").peek().pending
    assert pending is not None
    assert pending.target == 4


async def test_once_refuses_where_another_is_at_work(tmp_path: Path) -> None:
    first, second = manager_of(tmp_path, 35.0), manager_of(tmp_path, 35.0)
    async with first:
        await first.start_autoscaling("test:fleet")
        with pytest.raises(ConflictError):
            await second.runner(second.prepared("test:fleet")).once()
