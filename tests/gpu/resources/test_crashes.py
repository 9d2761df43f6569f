"""A process dies at each step of a launch, an end, a stop; the next one finds no orphan, and makes no double."""

from __future__ import annotations

import pytest

from gpu.resources.fleets import Crash, Fleet, Steps
from textnlp_fast.errors import ConflictError, TextnlpFastError
from textnlp_fast.gpu.resources import AcquireRequest, GPUResourceManager
from textnlp_fast.gpu.types import GPUType, Market

# Far more than any of the calls has.
_NO_STEP = 500


def _request(key: str | None = "train", **more: object) -> AcquireRequest:
    return AcquireRequest(gpu_types=[GPUType.NVIDIA_T4], key=key, **more)  # type: ignore[arg-type]


def _steps_of(work: object, fleet: Fleet) -> list[str]:
    steps = Steps()
    work(fleet.manager(steps=steps))  # type: ignore[operator]
    return steps.names


def _launch(manager: GPUResourceManager) -> object:
    return manager.acquire(_request())


def _launch_elsewhere(manager: GPUResourceManager) -> object:
    """The first zone has nothing: an attempt that fails, one that does not."""
    return manager.acquire(_request())


def _without_capacity(fleet: Fleet) -> None:
    fleet.cloud.capacity["za", Market.ON_DEMAND] = 0


@pytest.mark.parametrize("later_s", [0.0, 400.0, 2000.0])
@pytest.mark.parametrize("broken", [False, True])
def test_a_launch_that_died_at_any_step_is_one_launch(broken: bool, later_s: float) -> None:
    prepare = _without_capacity if broken else lambda fleet: None
    whole = Fleet()
    prepare(whole)
    names = _steps_of(_launch, whole)
    assert "before launch" in names
    assert "after compare_and_swap" in names
    for die_at in range(len(names)):
        fleet = Fleet()
        prepare(fleet)
        with pytest.raises(Crash):
            _launch(fleet.manager(steps=Steps(die_at)))
        fleet.clock.forward(seconds=later_s)
        (found,) = fleet.manager().acquire(_request())
        where = f"died at step {die_at}, {names[die_at]}"
        assert set(fleet.cloud.alive()) == {found.instance_id}, where
        assert fleet.recorded() == {found.instance_id}, where


@pytest.mark.parametrize("later_s", [0.0, 2000.0])
@pytest.mark.parametrize("broken", [False, True])
def test_what_a_dead_process_launched_is_found_without_a_key(broken: bool, later_s: float) -> None:
    prepare = _without_capacity if broken else lambda fleet: None
    whole = Fleet()
    prepare(whole)
    names = _steps_of(lambda manager: manager.acquire(_request(None)), whole)
    recovered = 0
    for die_at in range(len(names)):
        fleet = Fleet()
        prepare(fleet)
        with pytest.raises(Crash):
            fleet.manager(steps=Steps(die_at)).acquire(_request(None))
        fleet.clock.forward(seconds=later_s)
        manager = fleet.manager()
        listed = manager.list()
        where = f"died at step {die_at}, {names[die_at]}"
        assert {one.instance_id for one in listed} == set(fleet.cloud.alive()), where
        assert manager.orphans().strays == (), where
        recovered += sum(one.recovered for one in listed)
        manager.release(listed)
        assert fleet.cloud.alive() == {}
        assert manager.costs().total.running == 0
    assert recovered >= 2  # after the launch, and before what came of it was written


@pytest.mark.parametrize("verb", ["release", "stop", "start"])
def test_a_change_that_died_at_any_step_is_done_or_can_be(verb: str) -> None:
    def prepared() -> tuple[Fleet, str]:
        fleet = Fleet()
        manager = fleet.manager()
        (found,) = manager.acquire(_request())
        if verb == "start":
            manager.stop([found.instance_id])
        return fleet, found.instance_id

    fleet, one = prepared()
    names = _steps_of(lambda manager: getattr(manager, verb)([one]), fleet)
    for die_at in range(len(names)):
        fleet, one = prepared()
        with pytest.raises(Crash):
            getattr(fleet.manager(steps=Steps(die_at)), verb)([one])
        fleet.clock.forward(minutes=1)
        manager = fleet.manager()
        manager.settle()
        where = f"died at step {die_at}, {names[die_at]}"
        assert fleet.recorded() == set(fleet.cloud.alive()), where
        if verb == "release" and die_at >= names.index("before terminate"):
            assert fleet.cloud.alive() == {}, where
        getattr(manager, verb)([one])
        assert fleet.recorded() == set(fleet.cloud.alive()), where
        states = {one.state for one in fleet.cloud.instances.values()}
        assert states == {{"release": "terminated", "stop": "stopped", "start": "running"}[verb]}


def test_dying_while_mending_is_mended() -> None:
    """Two deaths: one after the launch, one at any step of the mending."""
    fleet = Fleet()
    names = _steps_of(_launch, fleet)
    after_launch = names.index("after launch")

    def died() -> Fleet:
        fleet = Fleet()
        with pytest.raises(Crash):
            _launch(fleet.manager(steps=Steps(after_launch)))
        return fleet

    count = len(_steps_of(lambda manager: manager.settle(), died()))
    for die_at in range(count):
        fleet = died()
        with pytest.raises(Crash):
            fleet.manager(steps=Steps(die_at)).settle()
        (found,) = fleet.manager().acquire(_request())
        assert set(fleet.cloud.alive()) == {found.instance_id} == fleet.recorded()


@pytest.mark.parametrize("hidden", [1, 2, 5])
def test_dying_while_the_cloud_shows_late(hidden: int) -> None:
    names = _steps_of(_launch, Fleet())
    for die_at in range(len(names)):
        fleet = Fleet()
        fleet.cloud.hide_for = hidden
        with pytest.raises(Crash):
            _launch(fleet.manager(steps=Steps(die_at)))
        (found,) = fleet.manager().acquire(_request())
        assert set(fleet.cloud.alive()) == {found.instance_id} == fleet.recorded()


@pytest.mark.parametrize("hidden", [1, 3])
def test_what_is_shown_late_is_not_given_up(hidden: int) -> None:
    """Without a key, looked for again and again: in the end the journal has it."""
    fleet = Fleet()
    fleet.cloud.hide_for = hidden
    names = _steps_of(lambda manager: manager.acquire(_request(None)), Fleet())
    with pytest.raises(Crash):
        fleet.manager(steps=Steps(names.index("after launch"))).acquire(_request(None))
    manager = fleet.manager()
    for _ in range(hidden + 1):
        manager.settle()
        fleet.clock.forward(seconds=60)
    assert fleet.recorded() == set(fleet.cloud.alive())
    assert len(fleet.recorded()) == 1


def test_what_comes_after_it_was_given_up_is_ended() -> None:
    """A launch that was settled as failed, and whose instance shows up all the same."""
    fleet = Fleet()
    fleet.cloud.hide_for = 10**6
    names = _steps_of(lambda manager: manager.acquire(_request(None)), Fleet())
    with pytest.raises(Crash):
        fleet.manager(steps=Steps(names.index("after launch"))).acquire(_request(None))
    manager = fleet.manager()
    fleet.clock.forward(minutes=20)
    manager.settle()
    (record,) = fleet.journal().records()
    assert record.phase == "failed"
    fleet.cloud.hidden.clear()
    manager.settle()
    assert fleet.cloud.alive() == {}


def test_a_place_that_is_not_registered_any_more_is_not_gone_round() -> None:
    """What was launched there may run: going on elsewhere could make two of it."""
    fleet = Fleet()
    names = _steps_of(_launch, Fleet())
    with pytest.raises(Crash):
        _launch(fleet.manager(steps=Steps(names.index("after launch"))))
    fleet.regions = ("there",)
    with pytest.raises(ConflictError, match="no place of this call"):
        fleet.manager().acquire(_request())
    assert len(fleet.cloud.alive()) == 1
    fleet.regions = ("here", "there")
    (found,) = fleet.manager().acquire(_request())
    assert set(fleet.cloud.alive()) == {found.instance_id} == fleet.recorded()


def test_every_answer_lost_and_then_the_same_key() -> None:
    fleet = Fleet(regions=("here",))
    fleet.cloud.zones = ("za",)
    fleet.cloud.lose_answers = 5
    request = _request(instance_types=["t4.1"])  # there is no other place to go on to
    with pytest.raises(TextnlpFastError, match="no answer"):
        fleet.manager().acquire(request)
    assert len(fleet.cloud.alive()) == 1
    (found,) = fleet.manager().acquire(request)
    assert set(fleet.cloud.alive()) == {found.instance_id} == fleet.recorded()


def test_every_answer_lost_in_one_zone_and_then_another() -> None:
    """Going on elsewhere gives up what may have been launched here: it is ended when it is seen."""
    fleet = Fleet()
    fleet.cloud.lose_answers = 5
    (found,) = fleet.manager().acquire(_request())
    assert found.instance.zone == "zb"
    assert len(fleet.cloud.alive()) == 2
    fleet.manager().settle()
    assert set(fleet.cloud.alive()) == {found.instance_id} == fleet.recorded()
