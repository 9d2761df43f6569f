"""EC2, by the contract's cases and some of its own."""

from __future__ import annotations

import pytest

from gpu.providers.aws_harness import AwsHarness
from gpu.providers.contract_cases import ProviderContract
from gpu.providers.harness import request_for
from textnlp_fast import errors
from textnlp_fast.gpu.providers.aws import AwsProvider
from textnlp_fast.gpu.types import Market


@pytest.fixture
def harness(aws: AwsHarness) -> AwsHarness:
    return aws


class TestContract(ProviderContract):
    pass


# What the documentation of EC2 says of each code; the hint is for people.
_MEANINGS = {
    "InsufficientInstanceCapacity": (500, errors.CapacityError),
    "UnfulfillableCapacity": (400, errors.CapacityError),
    "Unsupported": (400, errors.CapacityError),
    "MaxSpotInstanceCountExceeded": (400, errors.QuotaError),
    "VcpuLimitExceeded": (400, errors.QuotaError),
    "InstanceLimitExceeded": (400, errors.QuotaError),
    "PendingVerification": (400, errors.QuotaError),
    "SpotMaxPriceTooLow": (400, errors.PriceTooHighError),
    "AuthFailure": (401, errors.AuthenticationError),
    "ExpiredToken": (400, errors.AuthenticationError),
    "UnauthorizedOperation": (403, errors.AuthenticationError),
    "OptInRequired": (403, errors.UnknownRegionError),
    "InvalidParameterValue": (400, errors.InvalidInputError),
    "InvalidSubnetID.NotFound": (400, errors.InvalidInputError),
    "RequestLimitExceeded": (503, errors.ProviderUnavailableError),
    "InternalError": (500, errors.ProviderUnavailableError),
    "Unavailable": (503, errors.ProviderUnavailableError),
    "NobodyHasSeenThisYet": (400, errors.InvalidInputError),
    "NorThisOne": (500, errors.ProviderUnavailableError),
}


@pytest.mark.parametrize("code", _MEANINGS)
def test_what_a_code_means(harness: AwsHarness, code: str) -> None:
    status, kind = _MEANINGS[code]
    harness.proxy.refuse("RunInstances", code, status, times=100, message="in so many words")
    with pytest.raises(kind) as raised:
        harness.provider(retries=1).launch(request_for(harness))
    assert type(raised.value) is kind
    assert code in str(raised.value)
    assert "in so many words" in str(raised.value)
    assert harness.truth() == {}


def test_a_zone_that_lacks_the_type_is_no_capacity_and_one_that_is_none_is_no_zone(
    harness: AwsHarness,
) -> None:
    said = "Your requested instance type (p5.48xlarge) is not supported in your requested Availability Zone"
    harness.proxy.refuse("RunInstances", "Unsupported", message=said)
    with pytest.raises(errors.CapacityError):
        harness.provider().launch(request_for(harness))


def test_other_options_do_not_launch_again(harness: AwsHarness) -> None:
    """After a restart with another image: EC2 refuses the token, and the launch is found by its tag."""
    request = request_for(harness)
    (first,) = harness.provider(key_name="one").launch(request).instances
    (second,) = harness.provider(key_name="two").launch(request).instances
    assert first.instance_id == second.instance_id
    assert len(harness.truth()) == 1


def test_other_options_while_the_launch_is_not_shown_yet(harness: AwsHarness) -> None:
    harness.hide_new(5)
    request = request_for(harness)
    (first,) = harness.provider(key_name="one").launch(request).instances
    (second,) = harness.provider(key_name="two").launch(request).instances
    assert first.instance_id == second.instance_id


def test_subnets_say_which_zones_there_are(harness: AwsHarness) -> None:
    subnets = {one["AvailabilityZone"]: one["SubnetId"] for one in harness.ec2.describe_subnets()["Subnets"]}
    chosen = {zone: subnets[zone] for zone in ("us-east-1a", "us-east-1b")}
    provider = harness.provider(subnets=chosen)
    assert provider.zones(harness.instance_type) == sorted(chosen)
    (instance,) = provider.launch(request_for(harness, zone="us-east-1b")).instances
    assert instance.zone == "us-east-1b"
    with pytest.raises(errors.UnknownRegionError):
        provider.launch(request_for(harness, zone="us-east-1c"))


def test_spot_in_a_named_zone_goes_through_with_its_cap_in_dollars(harness: AwsHarness) -> None:
    asked = {"market": Market.SPOT, "zone": harness.zone}
    with pytest.raises(errors.PriceTooHighError):
        harness.provider().launch(request_for(harness, max_usd_per_hour=0.1, **asked))
    (instance,) = harness.provider().launch(request_for(harness, max_usd_per_hour=1.25, **asked)).instances
    assert (instance.market, instance.zone) == (Market.SPOT, harness.zone)
    assert harness.proxy.calls.count("RunInstances") == 2
    assert "CreateFleet" not in harness.proxy.calls


def test_boto3_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys  # noqa: PLC0415

    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(errors.MissingPackageError, match=r"textnlp-fast\[aws\]"):
        AwsProvider("us-east-1")


def test_no_credentials(harness: AwsHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(errors.AuthenticationError, match="credentials"):
        harness.provider().list_instances()
    with pytest.raises(errors.AuthenticationError, match="no-such-profile"):
        harness.provider(profile="no-such-profile")
