"""The cases that every provider must pass: inherit `ProviderContract`, and give a fixture `harness`."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gpu.providers.contract_faults import FaultCases
from gpu.providers.contract_life import LifeCases
from gpu.providers.harness import Harness, request_for
from textnlp_fast.errors import InvalidInputError, PriceTooHighError, TextnlpFastError, UnknownRegionError
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, OWNER_TAG, LaunchRequest
from textnlp_fast.gpu.types import Market

__all__ = ["LaunchCases", "ProviderContract"]

_BAD_REQUESTS = {
    "no instances": {"count": 0, "min_count": 0},
    "negative count": {"count": -1},
    "least above most": {"count": 2, "min_count": 3},
    "least of nothing": {"min_count": 0},
    "absurdly many": {"count": 100_000},
    "no disk": {"disk_gib": 0},
    "a disk of petabytes": {"disk_gib": 10**7},
    "empty launch id": {"launch_id": ""},
    "long launch id": {"launch_id": "a" * 37},
    "launch id that begins with a digit": {"launch_id": "1abc"},
    "launch id with capitals": {"launch_id": "Abc"},
    "launch id with a line break": {"launch_id": "abc\n"},
    "cap of nothing": {"max_usd_per_hour": 0.0},
    "negative cap": {"max_usd_per_hour": -1.0},
    "a cap that is no number": {"max_usd_per_hour": float("nan")},
    "endless cap": {"max_usd_per_hour": float("inf")},
}


class LaunchCases:
    """What a launch gives, and that it gives it once."""

    def test_says_who_it_is(self, harness: Harness) -> None:
        provider = harness.provider()
        assert (provider.name, provider.region) == (harness.name, harness.region)

    def test_launches_one(self, harness: Harness) -> None:
        request = request_for(harness)
        outcome = harness.provider().launch(request)
        assert len(outcome.instances) == 1
        assert outcome.missing == 0
        assert harness.truth() == {outcome.instances[0].instance_id: request.launch_id}

    @pytest.mark.parametrize("count", [2, 3])
    def test_launches_several(self, harness: Harness, count: int) -> None:
        outcome = harness.provider().launch(request_for(harness, count=count, min_count=count))
        assert len({one.instance_id for one in outcome.instances}) == count
        assert set(harness.truth()) == {one.instance_id for one in outcome.instances}

    def test_says_what_it_launched(self, harness: Harness) -> None:
        request = request_for(harness)
        (instance,) = harness.provider().launch(request).instances
        assert instance.provider == harness.name
        assert instance.region == harness.region
        assert instance.instance_type == harness.instance_type
        assert instance.market is harness.market
        assert instance.state.alive
        assert instance.launch_id == request.launch_id

    def test_says_when_in_utc(self, harness: Harness) -> None:
        (instance,) = harness.provider().launch(request_for(harness)).instances
        assert instance.launched_at.utcoffset() == datetime.timedelta(0)
        age = datetime.datetime.now(datetime.timezone.utc) - instance.launched_at
        assert abs(age) < datetime.timedelta(minutes=10)

    def test_tags_of_the_request_and_of_the_launch(self, harness: Harness) -> None:
        tags = {OWNER_TAG: "fleet-a", "team": "nlp", "purpose": "test"}
        request = request_for(harness, tags=tags)
        (launched,) = harness.provider().launch(request).instances
        (described,) = harness.provider().describe([launched.instance_id])
        for instance in (launched, described):
            assert tags.items() <= instance.tags.items()
            assert instance.tags[LAUNCH_TAG] == request.launch_id

    def test_takes_the_zone_that_is_asked_for(self, harness: Harness) -> None:
        harness.needs("zones")
        for zone in harness.provider().zones(harness.instance_type)[:2]:
            (instance,) = harness.provider().launch(request_for(harness, zone=zone)).instances
            assert instance.zone == zone

    def test_spot_is_marked_as_spot(self, harness: Harness) -> None:
        harness.needs("spot")
        (launched,) = harness.provider().launch(request_for(harness, market=Market.SPOT)).instances
        (described,) = harness.provider().describe([launched.instance_id])
        assert described.market is Market.SPOT

    def test_user_data_reaches_the_machine(self, harness: Harness) -> None:
        harness.needs("user data")
        script = "#!/bin/sh\necho 'ünïcode & <tags>' > /tmp/started\n"
        (instance,) = harness.provider().launch(request_for(harness, user_data=script)).instances
        assert harness.user_data_of(instance.instance_id) == script

    def test_the_disk_is_as_large_as_asked(self, harness: Harness) -> None:
        harness.needs("disks")
        (instance,) = harness.provider().launch(request_for(harness, disk_gib=321)).instances
        assert harness.disk_gib_of(instance.instance_id) == 321

    def test_the_providers_image_serves_where_none_is_named(self, harness: Harness) -> None:
        harness.needs("images")
        outcome = harness.provider(image=harness.image).launch(request_for(harness, image=None))
        assert len(outcome.instances) == 1

    # --- once -------------------------------------------------------------------------------------------------

    def test_the_same_launch_twice_is_one(self, harness: Harness) -> None:
        provider, request = harness.provider(), request_for(harness, count=2)
        first, second = provider.launch(request), provider.launch(request)
        assert {one.instance_id for one in first.instances} == {one.instance_id for one in second.instances}
        assert len(harness.truth()) == 2

    def test_the_same_launch_by_another_process_is_one(self, harness: Harness) -> None:
        request = request_for(harness)
        (first,) = harness.provider().launch(request).instances
        (second,) = harness.provider().launch(request).instances
        assert first.instance_id == second.instance_id
        assert len(harness.truth()) == 1

    def test_the_same_launch_at_once_is_one(self, harness: Harness) -> None:
        request = request_for(harness)
        providers = [harness.provider() for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda one: one.launch(request), providers))
        assert len({one.instance_id for outcome in outcomes for one in outcome.instances}) == 1
        assert len(harness.truth()) == 1

    def test_a_launch_that_has_ended_is_not_begun_again(self, harness: Harness) -> None:
        provider, request = harness.provider(), request_for(harness)
        (instance,) = provider.launch(request).instances
        provider.terminate([instance.instance_id])
        again = harness.provider().launch(request)
        assert not any(one.state.alive for one in again.instances)
        assert harness.truth() == {}

    def test_another_launch_is_another(self, harness: Harness) -> None:
        provider = harness.provider()
        ids = {provider.launch(request_for(harness)).instances[0].instance_id for _ in range(2)}
        assert set(harness.truth()) == ids
        assert len(ids) == 2

    def test_a_launch_id_is_not_taken_for_another_request(self, harness: Harness) -> None:
        provider, request = harness.provider(), request_for(harness)
        provider.launch(request)
        with pytest.raises(TextnlpFastError, match=request.launch_id):
            provider.launch(replace(request, instance_type=harness.other_type))
        assert len(harness.truth()) == 1

    def test_threads_may_share_a_provider(self, harness: Harness) -> None:
        provider = harness.provider()
        requests = [request_for(harness) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(provider.launch, requests))
        launched = {o.instances[0].instance_id: r.launch_id for o, r in zip(outcomes, requests, strict=True)}
        assert harness.truth() == launched

    # --- refusals ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("what", _BAD_REQUESTS)
    def test_refuses_before_launching(self, harness: Harness, what: str) -> None:
        with pytest.raises(InvalidInputError):
            harness.provider().launch(request_for(harness, **_BAD_REQUESTS[what]))
        assert harness.truth() == {}

    def test_refuses_a_type_that_does_not_exist(self, harness: Harness) -> None:
        with pytest.raises(InvalidInputError, match=harness.bad_type):
            harness.provider().launch(request_for(harness, instance_type=harness.bad_type))
        assert harness.truth() == {}

    def test_refuses_an_image_that_does_not_exist(self, harness: Harness) -> None:
        harness.needs("images")
        with pytest.raises(InvalidInputError, match=harness.bad_image):
            harness.provider().launch(request_for(harness, image=harness.bad_image))
        assert harness.truth() == {}

    def test_refuses_a_zone_that_does_not_exist(self, harness: Harness) -> None:
        harness.needs("zones")
        with pytest.raises(UnknownRegionError):
            harness.provider().launch(request_for(harness, zone=harness.bad_zone))
        assert harness.truth() == {}

    def test_refuses_a_region_that_does_not_exist(self, harness: Harness) -> None:
        harness.needs("regions")
        with pytest.raises(UnknownRegionError):
            harness.provider(region=harness.bad_region).launch(request_for(harness))
        assert harness.truth() == {}

    # --- caps -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("price", "cap", "launches"), [(1.0, 0.99, 0), (1.0, 1.0, 1), (1.0, 1.5, 1)])
    def test_a_cap_on_demand(self, harness: Harness, price: float, cap: float, launches: int) -> None:
        provider = harness.provider(price_of=lambda _type, _market: price)
        request = request_for(harness, market=Market.ON_DEMAND, max_usd_per_hour=cap)
        if launches:
            provider.launch(request)
        else:
            with pytest.raises(PriceTooHighError):
                provider.launch(request)
        assert len(harness.truth()) == launches

    @pytest.mark.parametrize("options", [{}, {"price_of": lambda _type, _market: None}])
    def test_a_cap_on_an_unknown_price_launches_nothing(
        self, harness: Harness, options: dict[str, object]
    ) -> None:
        harness.needs("unknown prices")
        request = request_for(harness, market=Market.ON_DEMAND, max_usd_per_hour=1e6)
        with pytest.raises(PriceTooHighError, match="not known"):
            harness.provider(**options).launch(request)
        assert harness.truth() == {}

    @pytest.mark.parametrize(("of_price", "launches"), [(0.9, 0), (1.1, 1)])
    def test_a_cap_on_spot(self, harness: Harness, of_price: float, launches: int) -> None:
        harness.needs("spot")
        price = harness.spot_price_usd
        request = self._spot_under(harness, of_price * price)
        provider = harness.provider(price_of=lambda _type, _market: price)
        if launches:
            provider.launch(request)
        else:
            with pytest.raises(PriceTooHighError):
                provider.launch(request)
        assert len(harness.truth()) == launches

    def test_a_cap_on_spot_is_the_clouds_to_keep(self, harness: Harness) -> None:
        harness.needs("spot", "price cap")
        with pytest.raises(PriceTooHighError):
            harness.provider().launch(self._spot_under(harness, 0.5 * harness.spot_price_usd))
        harness.provider().launch(self._spot_under(harness, 2 * harness.spot_price_usd))
        assert len(harness.truth()) == 1

    def _spot_under(self, harness: Harness, cap: float) -> LaunchRequest:
        return request_for(harness, market=Market.SPOT, max_usd_per_hour=cap)


class ProviderContract(LaunchCases, FaultCases, LifeCases):
    """All of it."""
