"""Caps, budgets, costs; and what the manager does about machines that it has, or that nobody has."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gpu.providers.memory import MemoryProvider
from gpu.resources.fleets import Fleet
from textnlp_fast import errors
from textnlp_fast.gpu import GPUType, Market
from textnlp_fast.gpu.resources import AcquireRequest, Budget, GPUResourceManager
from textnlp_fast.telemetry import Operation, listen


def _request(**changes: Any) -> AcquireRequest:
    return AcquireRequest(**{"gpu_types": [GPUType.NVIDIA_T4], **changes})


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


# --- money --------------------------------------------------------------------------------------------------------


def test_a_cap_keeps_dearer_ones_out(fleet: Fleet) -> None:
    with pytest.raises(errors.PriceTooHighError, match="over the cap"):
        fleet.manager().acquire(_request(max_usd_per_hour=0.5))
    with pytest.raises(errors.PriceTooHighError):
        fleet.manager(max_usd_per_hour=0.5).acquire(_request())
    assert fleet.cloud.asked == 0
    plan = fleet.manager().plan(_request(max_usd_per_hour=1.0))
    assert {one.place.instance_type for one in plan.candidates} == {"t4.1"}
    assert len(plan.rejected) == 2  # the larger one, in either zone


def test_a_budget_by_the_hour(fleet: Fleet) -> None:
    manager = fleet.manager(budget=Budget(usd_per_hour=2.5))
    manager.acquire(_request())
    (second,) = manager.acquire(_request())
    asked = fleet.cloud.asked
    with pytest.raises(errors.BudgetExceededError):
        manager.acquire(_request())
    assert fleet.cloud.asked == asked
    manager.release([second])
    manager.acquire(_request())


def test_a_budget_in_all(fleet: Fleet) -> None:
    manager = fleet.manager(budget=Budget(total_usd=10.0))
    (found,) = manager.acquire(_request())
    fleet.clock.forward(hours=8)
    with pytest.raises(errors.BudgetExceededError, match=r"8\.00 spent"):
        manager.acquire(_request(expected_hours=2.5))
    manager.acquire(_request(expected_hours=2.0))
    manager.release([found])


def test_what_is_over_the_budget_gives_way_to_what_is_not(fleet: Fleet) -> None:
    """Spot failed lately and is tried after on-demand, which the budget does not allow."""
    request = _request(market="spot-first", instance_types=["t4.1"], key="train")
    for zone in fleet.cloud.zones:
        fleet.cloud.capacity[zone, Market.SPOT] = 0
    manager = fleet.manager(budget=Budget(usd_per_hour=0.5))
    with pytest.raises(errors.TextnlpFastError):
        manager.acquire(request)
    fleet.cloud.capacity.clear()
    (found,) = manager.acquire(request)
    assert found.instance.market is Market.SPOT
    numbers = sorted(record.number for record in fleet.journal().records())
    assert numbers == list(range(len(numbers)))  # none is left for another process to take


def test_a_budget_of_nothing_launches_nothing(fleet: Fleet) -> None:
    with pytest.raises(errors.BudgetExceededError):
        fleet.manager(budget=Budget(usd_per_hour=0.0)).acquire(_request())
    assert fleet.cloud.asked == 0


def test_launches_at_once_do_not_pass_a_budget_together(fleet: Fleet) -> None:
    managers = [fleet.manager(budget=Budget(usd_per_hour=2.0)) for _ in range(6)]
    barrier = threading.Barrier(6)

    def ask(manager: GPUResourceManager) -> int:
        barrier.wait()
        try:
            return len(manager.acquire(_request(instance_types=["t4.1"])))
        except errors.BudgetExceededError:
            return 0

    with ThreadPoolExecutor(6) as pool:
        launched = sum(pool.map(ask, managers))
    assert launched == len(fleet.cloud.alive()) <= 2


def test_launches_that_both_fit_alone_do_not_both_pass(fleet: Fleet) -> None:
    """Both have looked at the budget before either is in the journal."""
    barrier = threading.Barrier(2)

    def ask(_: int) -> int:
        manager = fleet.manager(budget=Budget(usd_per_hour=1.0))
        create = manager.journal.create

        def late(record: Any) -> bool:
            barrier.wait(60)
            return create(record)

        manager.journal.create = late  # type: ignore[method-assign]
        try:
            return len(manager.acquire(_request(instance_types=["t4.1"])))
        except errors.BudgetExceededError:
            return 0

    with ThreadPoolExecutor(2) as pool:
        launched = sum(pool.map(ask, range(2)))
    assert launched == len(fleet.cloud.alive()) <= 1


def test_costs_survive_and_stop_where_told(fleet: Fleet) -> None:
    (found,) = fleet.manager().acquire(_request(market="spot", instance_types=["t4.1"]))
    fleet.clock.forward(hours=1, minutes=30)
    fleet.manager().stop([found])
    fleet.clock.forward(hours=5)
    fleet.manager().start([found])
    fleet.clock.forward(minutes=30)
    report = fleet.manager().costs()
    assert float(report.total.spent_usd) == pytest.approx(2 * 0.2)
    assert float(report.total.saved_usd) == pytest.approx(2 * 0.8)
    assert float(report.total.usd_per_hour) == pytest.approx(0.2)
    fleet.manager().release([found])
    fleet.clock.forward(days=3)
    report = fleet.manager().costs()
    assert float(report.total.spent_usd) == pytest.approx(2 * 0.2)
    assert (report.total.usd_per_hour, report.total.running) == (0, 0)
    ((record, costs),) = report.launches
    assert record.launch_id == found.launch_id
    assert costs.spent_usd == report.total.spent_usd


def test_what_is_taken_away_costs_until_it_is_seen(fleet: Fleet) -> None:
    (found,) = fleet.manager().acquire(_request(market="spot", instance_types=["t4.1"]))
    fleet.clock.forward(hours=1)
    fleet.manager()._provider_at("memory", "here").terminate([found.instance_id])
    manager = fleet.manager()
    assert manager.list() == []
    fleet.clock.forward(hours=10)
    assert float(manager.costs().total.spent_usd) == pytest.approx(0.2)


# --- keeping ------------------------------------------------------------------------------------------------------


def test_releasing_is_idempotent_and_knows_its_own(fleet: Fleet) -> None:
    manager = fleet.manager()
    (found,) = manager.acquire(_request())
    assert manager.release([found]) == [found.instance_id]
    assert manager.release([found.instance_id]) == []
    assert fleet.cloud.alive() == {}
    with pytest.raises(errors.InstanceNotFoundError):
        manager.release(["i-of-nobody"])
    with pytest.raises(errors.InvalidInputError):
        manager.release(found.instance_id)


def test_strays_are_shown_and_ended_on_demand_only(fleet: Fleet) -> None:
    (known,) = fleet.manager().acquire(_request())
    elsewhere = Fleet(cloud=fleet.cloud, clock=fleet.clock)
    (stray,) = elsewhere.manager().acquire(_request())
    (foreign,) = Fleet(cloud=fleet.cloud, clock=fleet.clock).manager(owner="fleet-b").acquire(_request())
    manager = fleet.manager()
    assert [one.instance_id for one in manager.orphans().strays] == [stray.instance_id]
    assert len(fleet.cloud.alive()) == 3
    manager.orphans(terminate=True)
    assert set(fleet.cloud.alive()) == {known.instance_id, foreign.instance_id}
    assert manager.orphans().strays == ()


def test_a_launch_under_way_is_no_stray(fleet: Fleet) -> None:
    manager = fleet.manager()
    provider = manager._provider_at("memory", "here")
    seen: list[int] = []

    class Slow(MemoryProvider):
        def launch(self, request: Any) -> Any:
            outcome = provider.launch(request)
            other = fleet.manager()
            seen.append(len(other.orphans(terminate=True).strays))
            return outcome

    manager.add_provider(Slow("here", cloud=fleet.cloud))
    (found,) = manager.acquire(_request())
    assert seen == [0]
    assert set(fleet.cloud.alive()) == {found.instance_id}
    assert not found.recovered


def test_a_region_that_does_not_answer_keeps_the_others_going(fleet: Fleet) -> None:
    class Down(MemoryProvider):
        def list_instances(self, tags: object = None) -> Any:
            raise errors.ProviderUnavailableError("no answer")

    manager = fleet.manager()
    manager.add_provider(Down("there", cloud=fleet.cloud))
    manager.acquire(_request())
    (problem,) = manager.settle()
    assert problem.place == ("memory", "there")


def test_a_broken_record_is_said_and_not_skipped(fleet: Fleet) -> None:
    manager = fleet.manager()
    (found,) = manager.acquire(_request())
    (record,) = fleet.journal().records()
    fleet.store.put_object(record.key, b'{"format": 1}')
    with pytest.raises(errors.CorruptDataError):
        fleet.manager().list()
    assert set(fleet.cloud.alive()) == {found.instance_id}


@pytest.mark.parametrize("owner", ["", "Team A", "-a", "a" * 64, "ünder", "a/b"])
def test_owners_that_clouds_do_not_take(fleet: Fleet, owner: str) -> None:
    if owner:
        with pytest.raises(errors.InvalidInputError):
            fleet.manager(owner=owner)
    else:
        assert fleet.manager(owner="").owner  # user and host


async def test_the_same_without_waiting(fleet: Fleet) -> None:
    manager = fleet.manager()
    one, many = await asyncio.gather(
        manager.get_gpu_instance_async("memory", GPUType.NVIDIA_T4, count=4),
        manager.acquire_async(_request(instances=2)),
    )
    assert one.gpu_count == 4
    assert len(many) == 2
    assert len(await manager.release_async([one, *many])) == 3
    assert fleet.cloud.alive() == {}


def test_operations_are_told_of(fleet: Fleet) -> None:
    seen: list[tuple[str, str]] = []

    class Listener:
        def began(self, operation: Operation) -> None: ...

        def ended(self, operation: Operation) -> None:
            seen.append((operation.name, operation.outcome))

        def phase_ended(self, *_: object) -> None: ...

        def counted(self, counts: dict[str, int]) -> None: ...

    fleet.cloud.capacity["za", Market.ON_DEMAND] = 0
    stop = listen(Listener())
    try:
        manager = fleet.manager()
        manager.release(manager.acquire(_request(instance_types=["t4.1"])))
    finally:
        stop()
    assert seen == [
        ("gpu.settle", "ok"),
        ("gpu.launch", "CapacityError"),
        ("gpu.launch", "ok"),
        ("gpu.acquire", "ok"),
        ("gpu.terminate", "ok"),
    ]


def test_a_plan_leaves_out_what_is_over_the_budget(fleet: Fleet) -> None:
    """And an acquisition agrees with it; what the key holds is not counted against it twice."""
    budget = Budget(usd_per_hour=3.5)
    request = _request(instances=2, key="a")
    plan = fleet.manager(budget=budget).plan(request)
    assert {one.place.instance_type for one in plan.candidates} == {"t4.1"}
    assert any("t4.4" in what and "over the budget of 3.50" in why for what, why in plan.rejected)
    four = _request(instances=4, key="a")
    with pytest.raises(errors.BudgetExceededError):
        fleet.manager(budget=budget).plan(four)
    assert len(fleet.manager(budget=budget).acquire(request)) == 2
    assert fleet.manager(budget=budget).plan(request).candidates
    with pytest.raises(errors.BudgetExceededError):
        fleet.manager(budget=budget).plan(_request(instances=2, key="b"))
