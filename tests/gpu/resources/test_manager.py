"""What the manager promises, on a cloud in memory; on moto in `test_on_moto.py`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gpu.providers.memory import MemoryProvider
from gpu.resources.fleets import Fleet
from textnlp_fast import errors
from textnlp_fast.config import load_settings
from textnlp_fast.gpu import GPUType, Market
from textnlp_fast.gpu.resources import AcquireRequest, Budget, GPUResourceManager


def _request(**changes: Any) -> AcquireRequest:
    return AcquireRequest(**{"gpu_types": [GPUType.NVIDIA_T4], **changes})


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


# --- which machine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "kind"), [(1, "t4.1"), (2, "t4.4"), (4, "t4.4"), (0.5, "t4.1")])
def test_the_cheapest_with_enough_gpus(fleet: Fleet, count: float, kind: str) -> None:
    found = fleet.manager().get_gpu_instance("memory", GPUType.NVIDIA_T4, count)
    assert found.instance.instance_type == kind
    assert found.gpu_count >= count
    assert found.instance.market is Market.ON_DEMAND
    assert set(fleet.cloud.alive()) == {found.instance_id}


def test_no_machine_has_so_many(fleet: Fleet) -> None:
    with pytest.raises(errors.NoPlanError):
        fleet.manager().get_gpu_instance("memory", GPUType.NVIDIA_T4, 5)
    with pytest.raises(errors.NoPlanError):
        fleet.manager().get_gpu_instance("memory", GPUType.NVIDIA_H100)
    assert fleet.cloud.alive() == {}


def test_an_unknown_provider_and_an_unknown_type(fleet: Fleet) -> None:
    with pytest.raises(errors.InvalidInputError, match="not registered"):
        fleet.manager().get_gpu_instance("aws", GPUType.NVIDIA_T4)
    with pytest.raises(errors.UnknownGPUTypeError):
        fleet.manager().get_gpu_instance("memory", "nvidia-t5")
    with pytest.raises(errors.InvalidInputError, match="one machine"):
        fleet.manager().get_gpu_instance("memory", GPUType.NVIDIA_T4, instances=2)
    with pytest.raises(errors.InvalidInputError, match="no such field"):
        fleet.manager().get_gpu_instance("memory", GPUType.NVIDIA_T4, colour="red")


def test_without_a_type_the_setting_says(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.InvalidInputError, match="no GPU type"):
        fleet.manager().get_gpu_instance("memory")
    monkeypatch.setenv("DEFAULT_GPU_TYPE", "nvidia-t4")
    monkeypatch.setenv("ENABLE_SPOT_INSTANCES", "true")
    found = fleet.manager(settings=load_settings()).get_gpu_instance("memory")
    assert found.gpu_type == "nvidia-t4"
    assert found.instance.market is Market.SPOT


# --- where --------------------------------------------------------------------------------------------------------


def test_goes_on_to_the_next_zone(fleet: Fleet) -> None:
    fleet.cloud.capacity["za", Market.ON_DEMAND] = 0
    (found,) = fleet.manager().acquire(_request())
    assert found.instance.zone == "zb"


def test_remembers_what_failed_across_processes(fleet: Fleet) -> None:
    fleet.cloud.capacity["za", Market.ON_DEMAND] = 0
    fleet.manager().acquire(_request(instance_types=["t4.1"]))
    asked = fleet.cloud.asked
    (found,) = fleet.manager().acquire(_request(instance_types=["t4.1"]))
    assert (found.instance.zone, fleet.cloud.asked) == ("zb", asked + 1)
    plan = fleet.manager().plan(_request(instance_types=["t4.1"]))
    assert [one.place.zone for one in plan.candidates] == ["zb", "za"]
    assert plan.candidates[1].failure is not None
    assert plan.candidates[1].failure.kind == "CapacityError"
    fleet.clock.forward(minutes=11)
    assert [one.place.zone for one in fleet.manager().plan(_request(instance_types=["t4.1"])).candidates] == [
        "za",
        "zb",
    ]


def test_what_fails_again_and_again_is_remembered_longer(fleet: Fleet) -> None:
    fleet.cloud.zones = ("za",)
    fleet.cloud.capacity["za", Market.ON_DEMAND] = 0
    lasted = []
    for _ in range(4):
        with pytest.raises(errors.CapacityError):
            fleet.manager().acquire(_request(instance_types=["t4.1"]))
        (candidate,) = fleet.manager().plan(_request(instance_types=["t4.1"])).candidates
        assert candidate.failure is not None
        lasted.append((candidate.failure.until - fleet.clock()).total_seconds())
        fleet.clock.time = candidate.failure.until
    assert lasted == [600, 1200, 2400, 4800]
    fleet.cloud.capacity.clear()
    fleet.manager().acquire(_request(instance_types=["t4.1"]))
    assert fleet.manager().plan(_request(instance_types=["t4.1"])).candidates[0].failure is None


def test_what_failed_everywhere_is_tried_all_the_same(fleet: Fleet) -> None:
    fleet.cloud.most = 0
    with pytest.raises(errors.CapacityError):
        fleet.manager().acquire(_request())
    fleet.cloud.most = None
    assert len(fleet.manager().acquire(_request())) == 1


def test_goes_on_to_another_region(fleet: Fleet) -> None:
    fleet.regions = ()
    manager = fleet.manager()
    for region in ("east", "west"):
        manager.add_provider(MemoryProvider(region, cloud=fleet.cloud))
    fleet.cloud.capacity["za", Market.ON_DEMAND] = 2
    fleet.cloud.zones = ("za",)
    requested = [manager.acquire(_request(instance_types=["t4.1"]))[0].region for _ in range(2)]
    assert requested == ["east", "east"]
    with pytest.raises(errors.CapacityError, match="none of 2 places"):
        manager.acquire(_request(instance_types=["t4.1"]))


def test_spot_first_and_then_on_demand(fleet: Fleet) -> None:
    request = _request(market="spot-first", instance_types=["t4.1"])
    assert fleet.manager().acquire(request)[0].instance.market is Market.SPOT
    for zone in fleet.cloud.zones:
        fleet.cloud.capacity[zone, Market.SPOT] = 0
    assert fleet.manager().acquire(request)[0].instance.market is Market.ON_DEMAND
    with pytest.raises(errors.CapacityError):
        fleet.manager().acquire(_request(market="spot"))


def test_no_quota_rules_out_the_regions_other_zones(fleet: Fleet) -> None:
    fleet.cloud.error = errors.QuotaError("no more of these")
    with pytest.raises(errors.QuotaError):
        fleet.manager().acquire(_request(instance_types=["t4.1"]))
    assert fleet.cloud.asked == 1


def test_bad_credentials_rule_out_the_provider(fleet: Fleet) -> None:
    fleet.cloud.error = errors.AuthenticationError("expired")
    with pytest.raises(errors.AuthenticationError):
        fleet.manager().acquire(_request())
    assert fleet.cloud.asked == 1


def test_a_wrong_request_is_tried_once(fleet: Fleet) -> None:
    with pytest.raises(errors.InvalidInputError, match="no-such-image"):
        fleet.manager().acquire(_request(image="no-such-image"))
    (record,) = fleet.journal().records()
    assert (record.phase, record.error) == ("failed", "InvalidInputError")


def test_an_image_for_each_provider(fleet: Fleet) -> None:
    with pytest.raises(errors.InvalidInputError, match="no-such-image"):
        fleet.manager().acquire(_request(image={"memory": "no-such-image"}))
    fleet.manager().acquire(_request(image={"aws": "no-such-image"}))


# --- how many -----------------------------------------------------------------------------------------------------


def test_several_from_one_place(fleet: Fleet) -> None:
    fleet.cloud.capacity["za", Market.ON_DEMAND] = 2
    found = fleet.manager().acquire(_request(instances=3, instance_types=["t4.1"]))
    assert {one.instance.zone for one in found} == {"zb"}
    assert len(fleet.cloud.alive()) == 3


def test_several_from_where_they_are(fleet: Fleet) -> None:
    fleet.cloud.capacity.update({("za", Market.ON_DEMAND): 2, ("zb", Market.ON_DEMAND): 1})
    found = fleet.manager().acquire(_request(instances=3, spread=True, instance_types=["t4.1"]))
    assert sorted(str(one.instance.zone) for one in found) == ["za", "za", "zb"]


def test_too_few_are_given_back(fleet: Fleet) -> None:
    fleet.cloud.capacity.update({("za", Market.ON_DEMAND): 2, ("zb", Market.ON_DEMAND): 1})
    with pytest.raises(errors.CapacityError):
        fleet.manager().acquire(_request(instances=4, spread=True, instance_types=["t4.1"]))
    assert fleet.cloud.alive() == {}
    assert fleet.recorded() == set()


def test_fewer_will_do(fleet: Fleet) -> None:
    fleet.cloud.capacity.update({("za", Market.ON_DEMAND): 2, ("zb", Market.ON_DEMAND): 0})
    request = _request(instances=4, min_instances=2, instance_types=["t4.1"])
    assert len(fleet.manager().acquire(request)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"instances": 0},
        {"instances": 2, "min_instances": 3},
        {"min_instances": 0},
        {"gpu_count": 0},
        {"gpu_count": float("nan")},
        {"max_usd_per_hour": -1.0},
        {"expected_hours": 0.0},
        {"disk_gib": 0},
        {"market": "free"},
        {"gpu_types": []},
        {"key": ""},
        {"tags": {"textnlp-fast-owner": "me"}},
    ],
)
def test_requests_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidInputError):
        _request(**changes)


# --- once ---------------------------------------------------------------------------------------------------------


def test_the_same_key_is_the_same_machine(fleet: Fleet) -> None:
    (first,) = fleet.manager().acquire(_request(key="train"))
    (second,) = fleet.manager().acquire(_request(key="train"))
    (other,) = fleet.manager().acquire(_request(key="serve"))
    assert first.instance_id == second.instance_id != other.instance_id
    assert len(fleet.cloud.alive()) == 2


def test_a_key_whose_machine_has_ended_gets_another(fleet: Fleet) -> None:
    (first,) = fleet.manager().acquire(_request(key="train"))
    fleet.manager().release([first])
    (second,) = fleet.manager().acquire(_request(key="train"))
    assert first.instance_id != second.instance_id
    assert set(fleet.cloud.alive()) == {second.instance_id}


def test_a_key_whose_machine_was_taken_away_gets_another(fleet: Fleet) -> None:
    (first,) = fleet.manager().acquire(_request(key="train"))
    fleet.manager()._provider_at("memory", "here").terminate([first.instance_id])
    (second,) = fleet.manager().acquire(_request(key="train"))
    assert set(fleet.cloud.alive()) == {second.instance_id} == fleet.recorded()


def test_what_is_held_serves_where_nothing_more_is_offered(fleet: Fleet) -> None:
    request = _request(key="train", instances=3, min_instances=1, max_usd_per_hour=1.0)
    fleet.cloud.capacity.update({("za", Market.ON_DEMAND): 2, ("zb", Market.ON_DEMAND): 0})
    first = fleet.manager().acquire(request)
    assert len(first) == 2
    fleet.cloud.zones = ()
    manager = fleet.manager()
    manager.add_provider(_WithoutOffers("here", cloud=fleet.cloud))
    again = manager.acquire(request)
    assert [one.instance_id for one in again] == [one.instance_id for one in first]


class _WithoutOffers(MemoryProvider):
    def offers(self) -> Any:
        return ()


def test_a_journal_in_a_bucket(s3_bucket: str, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines that share one: the same key is the same machine, and each knows what the other spends."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    fleet = Fleet(state=f"s3://{s3_bucket}/fleet")
    budget = Budget(usd_per_hour=1.5)
    (first,) = fleet.manager(budget=budget).acquire(_request(key="train"))
    (second,) = fleet.manager(budget=budget).acquire(_request(key="train"))
    assert first.instance_id == second.instance_id
    with pytest.raises(errors.BudgetExceededError):
        fleet.manager(budget=budget).acquire(_request(key="serve"))
    fleet.manager().release([first])
    assert fleet.manager().list() == []
    assert fleet.cloud.alive() == {}


def test_a_key_is_not_taken_for_another_request(fleet: Fleet) -> None:
    fleet.manager().acquire(_request(key="train", user_data="a secret"))
    for changes in ({"user_data": "another"}, {"user_data": "a secret", "gpu_count": 4}):
        with pytest.raises(errors.ConflictError, match="train"):
            fleet.manager().acquire(_request(key="train", **changes))
    assert len(fleet.cloud.alive()) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"market": "spot"}, "on-demand, not spot"),
        ({"max_usd_per_hour": 0.9}, "over the cap of 0.9"),
        ({"zones": ["zb"]}, "in za"),
        ({"regions": ["there"]}, "in here"),
        ({"providers": ["other"]}, "of memory"),
        ({"instance_types": ["t4.4"]}, "a t4.1"),
        ({"image": "mine"}, "image"),
        ({"disk_gib": 500}, "100 GiB, not 500"),
        ({"tags": {"team": "b"}}, "tags"),
    ],
)
def test_a_key_does_not_hand_out_what_is_outside_of_the_request(
    fleet: Fleet, changes: dict[str, Any], said: str
) -> None:
    (first,) = fleet.manager().acquire(_request(key="train", zones=["za"]))
    with pytest.raises(errors.ConflictError, match=said):
        fleet.manager().acquire(_request(key="train", **changes))
    # What holds is handed out: a wider market, a cap that it is under.
    (again,) = fleet.manager().acquire(_request(key="train", market="spot-first", max_usd_per_hour=1.0))
    assert set(fleet.cloud.alive()) == {first.instance_id} == {again.instance_id}


def test_a_key_of_a_place_that_is_not_registered(fleet: Fleet) -> None:
    fleet.manager().acquire(_request(key="train"))
    fleet.regions = ("there",)
    with pytest.raises(errors.ConflictError, match="memory here, and that is no place of this call"):
        fleet.manager().acquire(_request(key="train"))
    assert len(fleet.cloud.alive()) == 1


def test_a_key_grows_and_does_not_shrink(fleet: Fleet) -> None:
    first = fleet.manager().acquire(_request(key="train"))
    more = fleet.manager().acquire(_request(key="train", instances=3))
    assert more[0].instance_id == first[0].instance_id
    assert len(more) == 3 == len(fleet.cloud.alive())
    assert len(fleet.manager().acquire(_request(key="train"))) == 3
    assert len(fleet.cloud.alive()) == 3


def test_the_same_key_at_once_is_one_machine(fleet: Fleet) -> None:
    managers = [fleet.manager() for _ in range(6)]
    barrier = threading.Barrier(6)

    def ask(manager: GPUResourceManager) -> str:
        barrier.wait()
        return manager.acquire(_request(key="train"))[0].instance_id

    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(ask, managers))
    assert len(ids) == 1
    assert set(fleet.cloud.alive()) == ids == fleet.recorded()


def test_secrets_stay_out_of_the_journal(fleet: Fleet) -> None:
    fleet.manager().acquire(_request(user_data="export TOKEN=hunter2"))
    for meta in fleet.store.list():
        assert b"hunter2" not in fleet.store.get(meta.key)


@pytest.mark.parametrize(
    "changes",
    [
        {"gpu_count": None},
        {"gpu_count": "2"},
        {"gpu_count": True},
        {"gpu_count": float("nan")},
        {"instances": 1.0},
        {"instances": True},
        {"min_instances": "1"},
        {"disk_gib": None},
        {"max_usd_per_hour": "1"},
        {"expected_hours": None},
        {"gpu_types": 5},
        {"gpu_types": [5]},
        {"gpu_types": None},
    ],
)
def test_what_is_no_number_and_no_type_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidInputError, match=next(iter(changes))):
        _request(**changes)


def test_no_request_is_made_of_what_is_none(fleet: Fleet) -> None:
    manager = fleet.manager()
    for count in (None, "2", True):
        with pytest.raises(errors.InvalidInputError, match="gpu_count"):
            manager.get_gpu_instance("memory", GPUType.NVIDIA_T4, count)  # type: ignore[arg-type]
    for gpu_type in (5, 0):
        with pytest.raises(errors.InvalidInputError, match="gpu_types"):
            manager.get_gpu_instance("memory", gpu_type)  # type: ignore[arg-type]
    for name, region in ((7, "x"), ("aws", 7), (7, None), ([], None)):
        with pytest.raises(errors.InvalidInputError):
            manager.register_provider(name, region)  # type: ignore[arg-type]
    assert fleet.cloud.alive() == {}
