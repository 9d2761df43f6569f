"""Engines that are changed by a restart, under agents that are killed: what serves afterwards, what an agent says."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapter.rollout.fleet import Fleet, publish, until
from adapter.rollout.processes import MODEL


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("restarts")
    repository = str(folder / "repository")
    known = {
        "1.0.0": publish(repository, "1.0.0", 1),
        "2.0.0": publish(repository, "2.0.0", 2),
        "3.0.0": publish(repository, "3.0.0", 3, health=2.0),  # cannot be loaded at all
    }
    fleet = Fleet(folder, known, count=2, kind="restart")
    yield fleet
    fleet.close()


def check(fleet: Fleet, version: str) -> None:
    assert fleet.versions() == {version}
    assert not fleet.load.wrong, fleet.load.wrong[:3]
    fleet.load.reset()
    fleet.settle()
    assert set(fleet.load.answers) == {version}


def served(fleet: Fleet) -> str:
    """What all serve now: tests come in any order, and share a fleet."""
    (version,) = fleet.versions()
    return str(version)


def engine_of(fleet: Fleet, name: str) -> str:
    return fleet.agents.look([name])[name][0].run


def test_engines_restart_one_by_one_and_no_request_fails(fleet: Fleet) -> None:
    version = {"1.0.0": "2.0.0", "2.0.0": "1.0.0"}[served(fleet)]
    fleet.load.reset()
    record = fleet.controller(version, hot_swap=False).apply(version)
    assert record.state.phase == "succeeded", record.state.reason
    assert fleet.balancer.least == 1
    check(fleet, version)
    kept = {each.name for each in (fleet.folder / f"replica-{fleet.ports[0][0]}" / "versions").iterdir()}
    assert kept == {"1.0.0", "2.0.0"}


def test_weights_that_do_not_load_take_nobody_down(fleet: Fleet) -> None:
    now = served(fleet)
    fleet.load.reset()
    record = fleet.controller("3.0.0").apply("3.0.0")
    assert record.state.phase == "rolled-back"
    assert "the engine ended while it loaded 3.0.0" in record.state.reason
    check(fleet, now)


def test_an_agent_killed_at_any_moment_leaves_the_engine_and_finds_it(fleet: Fleet) -> None:
    name, now = fleet.names[0], served(fleet)
    before = engine_of(fleet, name)
    fleet.load.reset()
    fleet.kill(name)
    fleet.settle()
    assert not fleet.load.wrong
    fleet.start(name)
    fleet.wait_ready()
    assert engine_of(fleet, name) == before
    check(fleet, now)


@pytest.mark.parametrize("moment", ["prepared", "switching"])
def test_an_agent_killed_in_a_rollout_is_followed_and_all_is_of_one_version(
    fleet: Fleet, moment: str
) -> None:
    """Whichever way it goes, it goes all the way; and what agents say is what engines answer."""
    now = fleet.registry.deployments(MODEL)[MODEL][fleet.target].version
    version = {"1.0.0": "2.0.0", "2.0.0": "1.0.0"}[now]
    fleet.load.reset()
    ended: list[Any] = []
    worker = threading.Thread(target=lambda: ended.append(fleet.controller(version).apply(version)))
    worker.start()
    victim = fleet.names[0]
    memory = fleet.folder / f"replica-{fleet.ports[0][0]}" / "engine.json"
    until(lambda: f'"{moment}"' in memory.read_text())
    fleet.kill(victim)
    fleet.start(victim)
    worker.join()
    assert ended[0].state.phase in ("succeeded", "rolled-back"), ended[0].state.reason
    check(fleet, version if ended[0].state.phase == "succeeded" else now)


def test_an_engine_that_ends_is_started_again(fleet: Fleet) -> None:
    name = fleet.names[1]
    run = engine_of(fleet, name)
    boot, pid, _ = run.split(":")
    assert boot
    os.kill(int(pid), 9)
    until(lambda: engine_of(fleet, name) not in ("", run))
    fleet.wait_ready()
    fleet.settle()  # who asked while it was away has heard so
    fleet.load.wrong.clear()
    check(fleet, fleet.versions().pop() or "")


def test_no_engine_is_left_when_agents_end(tmp_path: Path) -> None:
    repository = str(tmp_path / "repository")
    known = {"1.0.0": publish(repository, "1.0.0", 1)}
    fleet = Fleet(tmp_path, known, count=1, kind="restart")
    pid = int(engine_of(fleet, fleet.names[0]).split(":")[1])
    fleet.close()
    until(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())
