"""Rollouts over real replicas under a load that never stops: which bytes serve at the end, what failed on the way."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapter.rollout.fleet import Fleet, publish, until
from adapter.rollout.processes import LOST, MODEL
from textnlp_fast.adapter.rollout.controller import ask_back
from textnlp_fast.adapter.rollout.records import read_record
from textnlp_fast.errors import ConflictError, InvalidInputError

KILLS = int(os.environ.get("TEXTNLP_FAST_KILLS", "12"))
SEED = 43 if "TEXTNLP_FAST_KILLS" not in os.environ else random.SystemRandom().randrange(1 << 30)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("rollouts")
    repository = str(folder / "repository")
    answers = {
        "1.0.0": publish(repository, "1.0.0", 1),
        "2.0.0": publish(repository, "2.0.0", 2),
        "3.0.0": publish(repository, "3.0.0", 3),
        "4.0.0-bad": publish(repository, "4.0.0-bad", 4, health=1.0),
    }
    return folder, answers


@pytest.fixture(scope="module")
def fleet(known: tuple[Path, dict[str, Any]]) -> Iterator[Fleet]:
    fleet = Fleet(*known, count=4, spares=4)
    yield fleet
    fleet.close()


def serving(fleet: Fleet) -> set[str]:
    return {name for name in fleet.names if name not in fleet.balancer.drained}


def check(fleet: Fleet, version: str) -> None:
    """Every replica that is routed to has the version, by its own word and by its answers; nothing failed."""
    names = sorted(serving(fleet))
    assert len(names) == 4
    assert fleet.versions(names) == {version}
    assert {fleet.balancer.weights[name] for name in names} == {100}
    assert not fleet.load.wrong, fleet.load.wrong[:3]
    fleet.load.reset()
    fleet.settle()
    assert set(fleet.load.answers) == {version}
    assert fleet.registry.deployments(MODEL)[MODEL][fleet.target].version == version


def next_version(fleet: Fleet) -> str:
    now = fleet.registry.deployments(MODEL)[MODEL][fleet.target].version
    return {"1.0.0": "2.0.0", "2.0.0": "3.0.0", "3.0.0": "1.0.0"}[now]


@pytest.mark.parametrize("strategy", ["rolling", "canary", "blue-green"])
def test_every_replica_gets_the_new_bytes_and_no_request_fails(fleet: Fleet, strategy: str) -> None:
    version, told = next_version(fleet), []
    before = serving(fleet)
    fleet.load.reset()
    record = fleet.controller(version, told, strategy=strategy).apply(version, note="by hand")
    assert (record.state.phase, record.closed) == ("succeeded", True), told
    assert fleet.balancer.least >= (4 if strategy == "blue-green" else 3)
    assert (serving(fleet) == before) == (strategy != "blue-green")
    check(fleet, version)
    assert fleet.registry.deployments(MODEL)[MODEL][fleet.target].state == "healthy"


@pytest.mark.parametrize("strategy", ["rolling", "canary", "blue-green"])
def test_a_version_that_is_unwell_goes_back_by_itself(fleet: Fleet, strategy: str) -> None:
    old = fleet.registry.deployments(MODEL)[MODEL][fleet.target].version
    fleet.load.reset()
    record = fleet.controller("4.0.0-bad", strategy=strategy).apply("4.0.0-bad")
    assert record.state.phase == "rolled-back"
    assert "/health answers 503" in record.state.reason
    check(fleet, old)
    assert fleet.load.answers["4.0.0-bad"] == 0
    assert any("deploy.rollback" in note and "/health answers 503" in note for note in fleet.notes()[:3])


def begun_canary(fleet: Fleet) -> tuple[str, str, threading.Thread, list[Any]]:
    """Old version, new one that has begun to answer and would bake for long, who rolls it out, how that will end."""
    old, version = fleet.registry.deployments(MODEL)[MODEL][fleet.target].version, next_version(fleet)
    fleet.load.reset()
    ended: list[Any] = []
    controller = fleet.controller(version, strategy="canary", bake_s=600.0)
    worker = threading.Thread(target=lambda: ended.append(controller.apply(version)))
    worker.start()
    until(lambda: fleet.load.answers[version] > 0)
    return old, version, worker, ended


def test_both_versions_are_kept_while_it_lasts_and_one_can_ask_for_the_way_back(fleet: Fleet) -> None:
    old, version, worker, ended = begun_canary(fleet)
    kept = fleet.registry.references(MODEL).kept_versions()
    assert {old, version} <= set(kept)
    with pytest.raises(ConflictError, match="is at work"):
        fleet.controller(version).apply(version)
    share = fleet.load.answers[version] / sum(fleet.load.answers.values())
    assert share < 0.6
    assert ask_back(fleet.registry, MODEL, fleet.target, note="error rate") is not None
    worker.join()
    assert ended[0].state.phase == "rolled-back"
    check(fleet, old)
    assert any("asked for by tests: error rate" in note for note in fleet.notes()[:3])
    assert ask_back(fleet.registry, MODEL, fleet.target) is None


def test_the_version_before_is_one_command_away(fleet: Fleet) -> None:
    if not fleet.registry.deployments(MODEL)[MODEL][fleet.target].previous:  # tests come in any order
        version = next_version(fleet)
        assert fleet.controller(version).apply(version).state.phase == "succeeded"
    deployed = fleet.registry.deployments(MODEL)[MODEL][fleet.target]
    fleet.load.reset()
    record = fleet.controller("").rollback(note="it was better")
    assert (record.kind, record.state.phase) == ("rollback", "succeeded")
    assert any("deploy.rollback" in note and note.endswith(": it was better") for note in fleet.notes()[:3])
    check(fleet, deployed.previous[0])
    after = fleet.registry.deployments(MODEL)[MODEL][fleet.target]
    assert after.previous == deployed.previous[1:]


def test_swaps_that_nobody_allowed_are_refused(fleet: Fleet) -> None:
    with pytest.raises(InvalidInputError, match="hot_swap is off"):
        fleet.controller("2.0.0", hot_swap=False).apply(next_version(fleet))


def test_a_controller_killed_at_any_write_is_followed_by_another(fleet: Fleet) -> None:
    chance = random.Random(SEED)
    kills = 0
    while kills < KILLS:
        version = next_version(fleet)
        strategy = chance.choice(["rolling", "canary", "blue-green"])
        fleet.load.reset()
        while True:
            last = kills >= KILLS
            die_at = 0 if last else chance.randrange(1, 14)
            process = fleet.control(
                version, die_at, after=chance.random() < 0.5, strategy=strategy, lease_s=1.0
            )
            process.join()
            if process.exitcode == 0:
                break
            # On a busy machine one may lose its lease, which is short here: it is followed like one that died.
            assert process.exitcode in (-9, LOST), f"seed {SEED}: exit {process.exitcode}"
            kills += process.exitcode == -9
            # Whatever was going on, those who ask notice nothing.
            assert not fleet.load.wrong, f"seed {SEED}: {fleet.load.wrong[:3]}"
        record, _ = read_record(fleet.registry.repository.store, MODEL, fleet.target)
        assert record is not None
        assert record.state.phase == "succeeded", f"seed {SEED}: {record.state.reason}"
        check(fleet, version)


def test_a_replica_killed_in_the_middle_takes_all_back(fleet: Fleet) -> None:
    old, version, worker, ended = begun_canary(fleet)
    (victim,) = [name for name in serving(fleet) if fleet.versions([name]) == {version}]
    fleet.kill(victim)
    fleet.start(victim)  # a supervisor
    worker.join()
    assert ended[0].state.phase == "rolled-back"
    assert "its process died" in ended[0].state.reason
    assert {name for name, _ in fleet.load.wrong} <= {victim}
    fleet.load.wrong.clear()
    check(fleet, old)
    assert any("deploy.rollback" in note and "its process died" in note for note in fleet.notes()[:3])


def test_a_replica_that_never_comes_back_is_named_and_the_others_go_back(fleet: Fleet) -> None:
    old, version = fleet.registry.deployments(MODEL)[MODEL][fleet.target].version, next_version(fleet)
    fleet.load.reset()
    ended: list[Any] = []
    controller = fleet.controller(version, strategy="canary", bake_s=600.0, lost_s=2.0)
    worker = threading.Thread(target=lambda: ended.append(controller.apply(version)))
    worker.start()
    until(lambda: fleet.load.answers[version] > 0)
    (victim,) = [name for name in serving(fleet) if fleet.versions([name]) == {version}]
    fleet.kill(victim)
    worker.join()
    assert ended[0].state.phase == "stuck"
    assert victim in ended[0].state.reason
    assert fleet.versions(sorted(serving(fleet) - {victim})) == {old}
    deployed = fleet.registry.deployments(MODEL)[MODEL][fleet.target]
    assert (deployed.version, deployed.state) == (old, "failed")
    assert victim in deployed.note
    # Come back to life, with whatever version, it gets no requests until it has the right one.
    assert ended[0].state.held(victim).place == "out"
    assert victim in fleet.balancer.drained
    fleet.start(victim)
    fleet.wait_ready()
    fleet.load.reset()
    fleet.settle()
    assert set(fleet.load.answers) == {old} and not fleet.load.wrong
    again = fleet.controller(old, strategy="rolling").apply(old)
    assert again.state.phase == "succeeded", [each.what for each in again.events]
    check(fleet, old)


def test_a_controller_that_slept_through_its_lease_does_nothing_more(fleet: Fleet) -> None:
    """Stopped, followed by another that took all back, and woken up: agents are deaf to it, and it ends."""
    for name in fleet.names:
        if not fleet.processes[name].is_alive():
            fleet.start(name)
    fleet.wait_ready()
    old = fleet.registry.deployments(MODEL)[MODEL][fleet.target].version
    assert fleet.controller(old, strategy="rolling").apply(old).state.phase == "succeeded"
    version = next_version(fleet)
    fleet.load.reset()
    process = fleet.control(version, strategy="canary", bake_s=600.0, lease_s=3.0)
    until(lambda: fleet.load.answers[version] > 0)
    os.kill(process.pid, signal.SIGSTOP)
    ask_back(fleet.registry, MODEL, fleet.target, note="the first one sleeps")
    record = fleet.controller(version).go_on()
    assert record is not None
    assert (record.state.phase, "the first one sleeps" in record.state.reason) == ("rolled-back", True)
    os.kill(process.pid, signal.SIGCONT)
    process.join()
    assert process.exitcode == LOST
    check(fleet, old)
    again, _ = read_record(fleet.registry.repository.store, MODEL, fleet.target)
    assert again is not None
    assert (again.fence, again.holder, again.events) == (record.fence, record.holder, record.events)
