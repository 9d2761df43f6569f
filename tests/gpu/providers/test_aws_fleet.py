"""Spot on EC2 that names no zone: the contract's cases over CreateFleet, and what only a fleet has."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from gpu.providers.aws_harness import AwsFleetHarness
from gpu.providers.contract_cases import ProviderContract
from gpu.providers.harness import Harness, eventually, request_for
from textnlp_fast import errors
from textnlp_fast.errors import CapacityError, InvalidInputError, PriceTooHighError
from textnlp_fast.gpu.providers import aws_fleet as fleets
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, OWNER_TAG, LaunchRequest
from textnlp_fast.gpu.types import Market


@pytest.fixture
def harness(aws_fleet: AwsFleetHarness) -> AwsFleetHarness:
    return aws_fleet


class TestContract(ProviderContract):
    def test_capacity_that_comes_back_serves_the_same_launch(self, harness: Harness) -> None:
        """Not here: a fleet without machines is a fleet, and its token gives it again. The next launch is served."""
        provider, request = harness.provider(), request_for(harness)
        harness.no_capacity()
        for _ in range(2):
            with pytest.raises(CapacityError):
                provider.launch(request)
            harness.heal()
        assert harness.truth() == {}
        (instance,) = provider.launch(request_for(harness)).instances
        assert set(harness.truth()) == {instance.instance_id}


# --- which road ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({}, "CreateFleet"),
        ({"alternatives": ("g5.xlarge",)}, "CreateFleet"),
        ({"zone": "us-east-1a"}, "RunInstances"),
        ({"market": Market.ON_DEMAND}, "RunInstances"),
        # Nowhere to look: EC2 says what is wrong with it.
        ({"instance_type": "g99.superlarge"}, "RunInstances"),
    ],
)
def test_which_launches_are_fleets(harness: AwsFleetHarness, changes: dict[str, Any], action: str) -> None:
    with contextlib.suppress(InvalidInputError):
        harness.provider().launch(request_for(harness, **changes))
    asked = [one for one in harness.proxy.calls if one in ("CreateFleet", "RunInstances")]
    assert asked == [action]


def test_a_boto3_that_gives_fleets_no_user_data_makes_none(
    harness: AwsFleetHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "known_to", lambda _client: False)
    provider = harness.provider()
    assert provider.chooses_zone == frozenset()
    (instance,) = provider.launch(request_for(harness, user_data="#!/bin/sh")).instances
    assert instance.market is Market.SPOT
    assert "CreateFleet" not in harness.proxy.calls


# --- where it goes ------------------------------------------------------------------------------------------------


def test_goes_where_there_is_room_for_all_and_it_is_cheap(harness: AwsFleetHarness) -> None:
    kind = harness.instance_type
    harness.proxy.pools = {(kind, f"us-east-1{letter}"): (0, 0.1) for letter in "abcdef"}
    harness.proxy.pools |= {
        (kind, "us-east-1b"): (2, 0.1),
        (kind, "us-east-1c"): (3, 0.3),
        (kind, "us-east-1d"): (3, 0.2),
    }
    outcome = harness.provider().launch(request_for(harness, count=3, min_count=1))
    assert {one.zone for one in outcome.instances} == {"us-east-1d"}
    described = harness.provider().describe([one.instance_id for one in outcome.instances])
    assert {one.zone for one in described} == {"us-east-1d"}
    assert outcome.missing == 0


def test_a_cap_rules_out_zones_not_the_launch(harness: AwsFleetHarness) -> None:
    kind = harness.instance_type
    harness.proxy.pools = {(kind, f"us-east-1{letter}"): (9, 2.0) for letter in "abcdef"}
    harness.proxy.pools[kind, "us-east-1d"] = (9, 0.9)
    provider = harness.provider()
    with pytest.raises(PriceTooHighError):
        provider.launch(request_for(harness, max_usd_per_hour=0.5))
    (instance,) = provider.launch(request_for(harness, max_usd_per_hour=1.0)).instances
    assert instance.zone == "us-east-1d"


def test_alternatives_are_taken_and_are_the_launch_ever_after(harness: AwsFleetHarness) -> None:
    harness.proxy.pools = {(harness.instance_type, f"us-east-1{letter}"): (0, 0.1) for letter in "abcdef"}
    request = request_for(harness, alternatives=(harness.other_type,), count=2)
    first = harness.provider().launch(request)
    assert {one.instance_type for one in first.instances} == {harness.other_type}
    harness.heal()
    again = harness.provider(key_name="another").launch(request)  # refused by its token, and found by its tag
    assert {one.instance_id for one in again.instances} == {one.instance_id for one in first.instances}
    assert len(harness.truth()) == 2


def test_subnets_are_the_zones_there_are(harness: AwsFleetHarness) -> None:
    subnets = {one["AvailabilityZone"]: one["SubnetId"] for one in harness.ec2.describe_subnets()["Subnets"]}
    chosen = {zone: subnets[zone] for zone in ("us-east-1a", "us-east-1b")}
    harness.proxy.zone_of = {subnet: zone for zone, subnet in subnets.items()}
    harness.proxy.pools[harness.instance_type, "us-east-1a"] = (0, 0.1)
    (instance,) = harness.provider(subnets=chosen).launch(request_for(harness)).instances
    assert instance.zone == "us-east-1b"
    (described,) = harness.provider().describe([instance.instance_id])
    assert described.zone == "us-east-1b"


# --- errors in a good answer --------------------------------------------------------------------------------------

_MEANINGS = {
    "InsufficientInstanceCapacity": errors.CapacityError,
    "UnfulfillableCapacity": errors.CapacityError,
    "Unsupported": errors.CapacityError,
    "MaxSpotInstanceCountExceeded": errors.QuotaError,
    "SpotMaxPriceTooLow": errors.PriceTooHighError,
    "UnauthorizedOperation": errors.AuthenticationError,
    "InvalidAMIID.NotFound": errors.InvalidInputError,
    "NobodyHasSeenThisYet": errors.InvalidInputError,
    # What passes by itself was asked for again. Nothing is there, and that is known: another place may be tried.
    "RequestLimitExceeded": errors.CapacityError,
    "InternalError": errors.CapacityError,
    "InvalidLaunchTemplateName.NotFoundException": errors.CapacityError,
}


@pytest.mark.parametrize("code", _MEANINGS)
def test_what_a_code_in_a_good_answer_means(harness: AwsFleetHarness, code: str) -> None:
    harness.proxy.fleet_errors = [(code, "in so many <words>")] * 100
    with pytest.raises(errors.TextnlpFastError) as raised:
        harness.provider().launch(request_for(harness))
    assert type(raised.value) is _MEANINGS[code]
    assert "in so many <words>" in str(raised.value)
    assert "us-east-1" in str(raised.value)
    assert harness.truth() == {}
    assert harness.launches_asked() <= 4


@pytest.mark.parametrize(
    "code", ["RequestLimitExceeded", "InternalError", "InvalidLaunchTemplateName.NotFoundException"]
)
def test_what_passes_by_itself_is_asked_for_by_the_next_token_and_launched_once(
    harness: AwsFleetHarness, code: str
) -> None:
    harness.proxy.fleet_errors = [(code, "later")] * 2
    harness.hide_new(10**6)  # no tag tells the second process
    request = request_for(harness)
    (first,) = harness.provider().launch(request).instances
    (second,) = harness.provider().launch(request).instances
    assert first.instance_id == second.instance_id
    assert len(harness.truth()) == 1


@pytest.mark.parametrize("first", [0, 1])
def test_of_several_reasons_the_one_that_says_where_to_go_next(first: int) -> None:
    codes = ["SpotMaxPriceTooLow", "InsufficientInstanceCapacity"]
    answer = {
        "Errors": [{"ErrorCode": code, "ErrorMessage": "no"} for code in (codes[first], codes[1 - first])]
    }
    assert type(fleets.refusal(answer, region="r")) is errors.CapacityError
    answer["Errors"].append({"ErrorCode": "MaxSpotInstanceCountExceeded", "ErrorMessage": "no"})
    assert type(fleets.refusal(answer, region="r")) is errors.QuotaError
    assert type(fleets.refusal({}, region="r")) is errors.CapacityError


# --- the request ------------------------------------------------------------------------------------------------


def test_fleet_instance_and_disk_carry_the_tags_from_the_first_moment() -> None:
    request = LaunchRequest(launch_id="a", instance_type="t", market=Market.SPOT, count=3, min_count=2)
    tags = {OWNER_TAG: "me", LAUNCH_TAG: "a"}
    pools = [fleets.Pool("t", "za", None), fleets.Pool("t", "zb", "subnet-b")]
    asked = fleets.create_fleet(request, pools, template_name="textnlp-fast-x", tags=tags)
    kinds = {
        one["ResourceType"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        for one in asked["TagSpecifications"]
    }
    assert kinds == {"fleet": tags, "instance": tags, "volume": tags}
    assert asked["SpotOptions"]["AllocationStrategy"] == "price-capacity-optimized"
    assert (asked["SpotOptions"]["SingleInstanceType"], asked["SpotOptions"]["MinTargetCapacity"]) == (
        True,
        2,
    )
    assert asked["TargetCapacitySpecification"]["OnDemandTargetCapacity"] == 0
    (config,) = asked["LaunchTemplateConfigs"]
    assert config["Overrides"] == [
        {"InstanceType": "t", "AvailabilityZone": "za"},
        {"InstanceType": "t", "SubnetId": "subnet-b"},
    ]
    assert fleets.create_fleet(request, pools, template_name="textnlp-fast-x", tags=tags) == asked


def test_ec2_that_gives_fewer_than_the_least_gets_them_back(
    harness: AwsFleetHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It promises not to. Should it, nothing is kept that was not asked for."""
    real = fleets.create_fleet

    def careless(*arguments: Any, **options: Any) -> dict[str, Any]:
        asked = real(*arguments, **options)
        asked["SpotOptions"]["MinTargetCapacity"] = 1
        return asked

    monkeypatch.setattr(fleets, "create_fleet", careless)
    harness.capacity(1)
    with pytest.raises(CapacityError, match="only 1"):
        harness.provider().launch(request_for(harness, count=3, min_count=2))
    assert eventually(harness.truth, lambda found: not found) == {}
