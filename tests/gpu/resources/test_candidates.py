"""Which places are tried, against the rule in plain words."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import NoPlanError, PriceTooHighError, UnknownInstanceTypeError
from textnlp_fast.gpu.catalog import Catalog
from textnlp_fast.gpu.resources.candidates import Plan, check_types, on_demand_prices, planned
from textnlp_fast.gpu.resources.failures import Failure, Place
from textnlp_fast.gpu.resources.requests import AcquireRequest
from textnlp_fast.gpu.types import GPUType, InstanceType, Market, Offer

_NOW = datetime.datetime(2026, 11, 29, tzinfo=datetime.timezone.utc)
_T4, _L4 = GPUType.NVIDIA_T4, GPUType.NVIDIA_L4


def _offer(
    kind: str, gpu: GPUType, count: float, region: str, zone: str | None, market: Market, usd: float
) -> Offer:
    return Offer(
        instance_type=InstanceType(
            provider="aws",
            name=kind,
            gpu_type=gpu,
            gpu_count=count,
            gpu_memory_gib=16,
            vcpus=4,
            memory_gib=16,
            network_gbps=None,
            local_nvme_gib=0,
        ),
        region=region,
        zone=zone,
        market=market,
        usd_per_hour=usd,
        as_of=_NOW.date(),
        source="made up",
    )


_offers = st.builds(
    lambda kind, region, zone, market, cents: _offer(
        kind[0], kind[1], kind[2], region, f"{region}{zone}" if zone else None, market, cents / 100
    ),
    st.sampled_from([("t1", _T4, 1.0), ("t4", _T4, 4.0), ("l1", _L4, 1.0), ("l8", _L4, 8.0)]),
    st.sampled_from(["east", "west"]),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from(list(Market)),
    st.integers(1, 500),
)


@given(
    offers=st.lists(_offers, max_size=12),
    gpus=st.sampled_from([[_T4], [_L4], [_T4, _L4]]),
    count=st.sampled_from([1.0, 2.0, 5.0]),
    market=st.sampled_from(["on-demand", "spot", "spot-first"]),
    cap=st.none() | st.floats(0.05, 5),
    data=st.data(),
)
def test_all_that_fits_and_nothing_else_in_the_right_order(
    offers: list[Offer],
    gpus: list[GPUType],
    count: float,
    market: str,
    cap: float | None,
    data: st.DataObject,
) -> None:
    request = AcquireRequest(gpu_types=gpus, gpu_count=count, market=market, max_usd_per_hour=cap)  # type: ignore[arg-type]
    wanted = {"on-demand": ["on-demand"], "spot": ["spot"], "spot-first": ["spot", "on-demand"]}[market]
    cheapest: dict[tuple[str, str, str | None, str], float] = {}
    for one in offers:
        kind = one.instance_type
        if kind.gpu_type in gpus and kind.gpu_count >= count and str(one.market) in wanted:
            place = (kind.name, one.region, one.zone, str(one.market))
            if cap is None or one.usd_per_hour <= cap:
                cheapest[place] = min(one.usd_per_hour, cheapest.get(place, 1e9))
    broken = data.draw(st.sets(st.sampled_from(sorted(cheapest, key=str)))) if cheapest else set()
    failure = Failure(kind="CapacityError", why="", at=_NOW, until=_NOW, times=1)
    failures = {Place("aws", region, zone, kind, Market(way)): failure for kind, region, zone, way in broken}
    try:
        plan = planned(request, offers, zones={}, list_prices=on_demand_prices(offers), failures=failures)
    except (NoPlanError, PriceTooHighError):
        assert not cheapest
        return
    seen = [
        ((c.place.instance_type, c.place.region, c.place.zone, str(c.place.market)), float(c.usd_per_hour))
        for c in plan.candidates
    ]
    assert dict(seen) == cheapest
    assert len(seen) == len(cheapest)
    ranks = [(place in broken, wanted.index(place[3]), price) for place, price in seen]
    assert ranks == sorted(ranks)


def test_every_zone_of_a_regions_offer_is_a_place() -> None:
    offers = [_offer("t1", _T4, 1, "east", None, Market.ON_DEMAND, 1.0)]
    request = AcquireRequest(gpu_types=[_T4])
    zones = {("aws", "east", "t1"): ["east-a", "east-b"]}
    plan = planned(request, offers, zones=zones, list_prices={}, failures={})
    assert [one.place.zone for one in plan.candidates] == ["east-a", "east-b"]
    only = AcquireRequest(gpu_types=[_T4], zones=["east-b"])
    plan = planned(only, offers, zones=zones, list_prices={}, failures={})
    assert [one.place.zone for one in plan.candidates] == ["east-b"]
    with pytest.raises(NoPlanError):
        planned(
            AcquireRequest(gpu_types=[_T4], zones=["west-a"]),
            offers,
            zones=zones,
            list_prices={},
            failures={},
        )


def test_a_price_of_a_zone_that_lacks_the_type_is_no_place() -> None:
    offers = [
        _offer("t1", _T4, 1, "east", "east-a", Market.SPOT, 0.1),
        _offer("t1", _T4, 1, "east", "east-b", Market.SPOT, 0.2),
    ]
    request = AcquireRequest(gpu_types=[_T4], market="spot")
    plan = planned(request, offers, zones={("aws", "east", "t1"): ["east-b"]}, list_prices={}, failures={})
    assert [one.place.zone for one in plan.candidates] == ["east-b"]


@given(
    prices=st.lists(st.integers(1, 500), min_size=1, max_size=6),
    cap=st.none() | st.floats(0.05, 5),
    how=st.sampled_from(["open", "zones", "spread", "on-demand"]),
)
def test_a_cloud_that_chooses_is_one_place_at_the_most_it_may_cost(
    prices: list[int], cap: float | None, how: str
) -> None:
    market = Market.ON_DEMAND if how == "on-demand" else Market.SPOT
    offers = [
        _offer("t1", _T4, 1, "east", f"east-{place}", market, cents / 100)
        for place, cents in enumerate(prices)
    ]
    names = [f"east-{place}" for place in range(len(prices))]
    request = AcquireRequest(
        gpu_types=[_T4],
        market=str(market),  # type: ignore[arg-type]
        max_usd_per_hour=cap,
        zones=names if how == "zones" else None,
        spread=how == "spread",
    )
    under = [cents / 100 for cents in prices if cap is None or cents / 100 <= cap]

    def plan() -> Plan:
        chooses = {("aws", "east", Market.SPOT)}
        zones = {("aws", "east", "t1"): names}
        return planned(request, offers, zones=zones, list_prices={}, failures={}, cloud_chooses=chooses)

    if not under:
        with pytest.raises(PriceTooHighError):
            plan()
        return
    seen = [(one.place.zone, float(one.usd_per_hour)) for one in plan().candidates]
    if how == "open":
        assert seen == [(None, max(under))]
    else:
        assert sorted(price for _, price in seen) == sorted(under)
        assert None not in [zone for zone, _ in seen]
    assert len(plan().rejected) == len(prices) - len(under)
    assert all("east-" in name for name, _ in plan().rejected)


def test_names_of_instance_types_that_are_none() -> None:
    own = [_offer("mine.large", _T4, 1, "east", None, Market.ON_DEMAND, 1.0)]
    catalog = Catalog.load("/nonexistent")

    def check(*names: str, registered: str = "aws", providers: list[str] | None = None) -> None:
        request = AcquireRequest(gpu_types=_T4, instance_types=names, providers=providers)  # type: ignore[arg-type]
        check_types(request, own, catalog, {registered, "local"})

    check("mine.large", "g4dn.xlarge")
    check("whatever", registered="skypilot:aws")  # not in the catalogue: nobody here knows its names
    check("whatever", providers=["local"])
    with pytest.raises(UnknownInstanceTypeError, match=r"Did you mean g4dn\.xlarge"):
        check("mine.large", "g4dn.xlrage")
    with pytest.raises(UnknownInstanceTypeError, match="of gcp"):
        check("g4dn.xlarge", registered="gcp")


_spot = st.lists(
    st.builds(
        lambda kind, region, market, cents: _offer(
            kind[0], kind[1], kind[2], region, None, market, cents / 100
        ),
        st.sampled_from(
            [("t1", _T4, 1.0), ("t1b", _T4, 1.0), ("t1c", _T4, 1.0), ("t4", _T4, 4.0), ("l1", _L4, 1.0)]
        ),
        st.sampled_from(["east", "west"]),
        st.sampled_from(list(Market)),
        st.integers(90, 140),
    ),
    max_size=10,
)


@given(offers=_spot, cap=st.none() | st.sampled_from([1.0, 1.2]), data=st.data())
def test_alternatives_have_the_same_gpus_nearly_the_price_and_a_cloud_that_chooses(
    offers: list[Offer], cap: float | None, data: st.DataObject
) -> None:
    request = AcquireRequest(gpu_types=[_T4, _L4], market="spot-first", max_usd_per_hour=cap)
    chooses = {("aws", "east", Market.SPOT)}
    places = sorted({(one.instance_type.name, one.region, one.market) for one in offers}, key=str)
    broken = data.draw(st.sets(st.sampled_from(places))) if places else set()
    failure = Failure(kind="CapacityError", why="", at=_NOW, until=_NOW, times=1)
    failures = {Place("aws", region, None, kind, market): failure for kind, region, market in broken}
    try:
        plan = planned(
            request, offers, zones={}, list_prices={}, failures=failures, cloud_chooses=chooses
        ).candidates
    except (NoPlanError, PriceTooHighError):
        return
    for one in plan:
        expected = {
            other.place
            for other in plan
            if (one.place.region, one.place.market)
            == (other.place.region, other.place.market)
            == ("east", Market.SPOT)
            and plan.index(other) > plan.index(one)
            and other.instance_type.gpu_type == one.instance_type.gpu_type
            and other.instance_type.gpu_count == one.instance_type.gpu_count
            and 100 * other.usd_per_hour <= 125 * one.usd_per_hour
            and (other.failure is None) == (one.failure is None)
        }
        assert {other.place for other in one.alternatives} == expected
        assert len(one.alternatives) == len(expected)
        assert one.most_usd_per_hour == max(other.usd_per_hour for other in (one, *one.alternatives))
        assert cap is None or float(one.most_usd_per_hour) <= cap


def test_places_that_are_named_or_spread_have_no_alternatives() -> None:
    offers = [_offer(kind, _T4, 1, "east", None, Market.SPOT, 1.0) for kind in ("t1", "t1b")]
    zones = {("aws", "east", kind): ["east-a", "east-b"] for kind in ("t1", "t1b")}
    for more in ({"zones": ["east-a"]}, {"spread": True}):
        request = AcquireRequest(gpu_types=[_T4], market="spot", **more)  # type: ignore[arg-type]
        plan = planned(
            request,
            offers,
            zones=zones,
            list_prices={},
            failures={},
            cloud_chooses={("aws", "east", Market.SPOT)},
        )
        assert all(one.alternatives == () for one in plan.candidates)
