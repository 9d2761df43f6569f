"""The launch templates of fleets: one for each content, made again where they are gone, removed when they are old."""

from __future__ import annotations

import datetime
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from faults.proxy import Fault
from gpu.providers.aws_harness import AwsFleetHarness
from gpu.providers.harness import request_for
from textnlp_fast import errors
from textnlp_fast.gpu.providers.aws_templates import PURPOSE_TAG, TEMPLATE_PREFIX, Templates
from textnlp_fast.gpu.providers.contract import OWNER_TAG


@pytest.fixture
def harness(aws_fleet: AwsFleetHarness) -> AwsFleetHarness:
    return aws_fleet


def _templates(harness: AwsFleetHarness) -> list[dict[str, Any]]:
    found = harness.ec2.describe_launch_templates(MaxResults=200)["LaunchTemplates"]
    return [one for one in found if one["LaunchTemplateName"].startswith(TEMPLATE_PREFIX)]


def _owned(owner: str, harness: AwsFleetHarness) -> list[dict[str, Any]]:
    return [one for one in _templates(harness) if {"Key": OWNER_TAG, "Value": owner} in one["Tags"]]


def test_one_template_for_all_launches_of_its_content(harness: AwsFleetHarness) -> None:
    owner = f"fleet-{uuid.uuid4().hex[:8]}"
    tags = {OWNER_TAG: owner}
    for data in (None, "one secret", "another"):
        harness.provider().launch(request_for(harness, tags=tags, user_data=data))
    provider = harness.provider()
    for _ in range(2):
        provider.launch(request_for(harness, tags=tags, count=2))
    assert len(_owned(owner, harness)) == 1
    assert harness.proxy.calls.count("CreateLaunchTemplate") == 4  # one for each object
    provider.launch(request_for(harness, tags=tags, disk_gib=50))
    harness.provider(key_name="mine").launch(request_for(harness, tags=tags))
    assert len(_owned(owner, harness)) == 3


def test_a_template_holds_no_user_data_and_asks_for_the_metadata_token(harness: AwsFleetHarness) -> None:
    (instance,) = harness.provider().launch(request_for(harness, user_data="password=hunter2")).instances
    content = harness.template_of(instance.instance_id)
    assert not content.get("UserData")
    assert content["MetadataOptions"]["HttpTokens"] == "required"
    assert harness.user_data_of(instance.instance_id) == "password=hunter2"


def test_a_template_that_was_removed_is_made_again(harness: AwsFleetHarness) -> None:
    """At any time, by anybody: before a launch, and between its making and the launch."""
    owner = f"fleet-{uuid.uuid4().hex[:8]}"
    provider, tags = harness.provider(), {OWNER_TAG: owner}
    provider.launch(request_for(harness, tags=tags))
    (template,) = _owned(owner, harness)
    harness.ec2.delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])
    assert len(provider.launch(request_for(harness, tags=tags)).instances) == 1
    (template,) = _owned(owner, harness)

    def remove() -> None:
        harness.ec2.delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])

    harness.proxy.inject(Fault("lose_request", path=r"Action=CreateFleet\b", meanwhile=remove))
    assert len(harness.provider().launch(request_for(harness, tags=tags)).instances) == 1
    assert len(harness.truth()) == 3


def test_a_template_that_is_shown_late_is_waited_for(harness: AwsFleetHarness) -> None:
    code = "InvalidLaunchTemplateName.NotFoundException"
    harness.proxy.refuse("CreateFleet", code, times=3)
    assert len(harness.provider().launch(request_for(harness)).instances) == 1
    harness.proxy.refuse("CreateFleet", code, times=1000)
    with pytest.raises(errors.ProviderUnavailableError, match="LaunchTemplate"):
        harness.provider(retries=2).launch(request_for(harness))


# --- old ones -----------------------------------------------------------------------------------------------------

_AT_ONCE = -datetime.timedelta(minutes=1)


def _templates_of(provider: Any, kept: datetime.timedelta = _AT_ONCE) -> Templates:
    return Templates(provider._call, provider._pages, kept=kept)


@pytest.fixture
def owner() -> str:
    return f"fleet-{uuid.uuid4().hex[:8]}"


def test_what_is_old_and_unused_is_removed_and_nothing_else(harness: AwsFleetHarness, owner: str) -> None:
    provider, tags = harness.provider(), {OWNER_TAG: owner}
    (used,) = provider.launch(request_for(harness, tags=tags)).instances
    (ended,) = provider.launch(request_for(harness, tags=tags, disk_gib=50)).instances
    provider.launch(request_for(harness, tags={OWNER_TAG: f"{owner}-2"}))
    provider.terminate([ended.instance_id])
    # Of the owner and called like ours, but a scaling group's: it is not for us to say whether that is used.
    other = {"ResourceType": "launch-template", "Tags": [{"Key": OWNER_TAG, "Value": owner}]}
    name = f"{TEMPLATE_PREFIX}group-{owner}"
    harness.ec2.create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData={"ImageId": harness.image}, TagSpecifications=[other]
    )
    assert _templates_of(provider, datetime.timedelta(days=1)).prune(owner) == []
    assert len(_owned(owner, harness)) == 3
    assert len(_templates_of(provider).prune(owner)) == 1
    assert name in {one["LaunchTemplateName"] for one in _owned(owner, harness)}
    assert len(_owned(owner, harness)) == 2
    assert len(_owned(f"{owner}-2", harness)) == 1
    provider.terminate([used.instance_id])
    assert len(_templates_of(provider).prune(owner)) == 1
    # And whoever believes that they are there finds out, and makes them again.
    assert len(provider.launch(request_for(harness, tags=tags)).instances) == 1


def test_a_new_one_is_the_occasion(
    harness: AwsFleetHarness, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {OWNER_TAG: owner}
    provider: Any = harness.provider()
    monkeypatch.setattr(provider._fleets, "_templates", _templates_of(provider))
    for disk_gib in (50, 60, 70):
        (instance,) = provider.launch(request_for(harness, tags=tags, disk_gib=disk_gib)).instances
        provider.terminate([instance.instance_id])
    assert len(_owned(owner, harness)) == 1
    assert harness.proxy.calls.count("CreateLaunchTemplate") == 3
    assert harness.proxy.calls.count("DescribeLaunchTemplates") == 3


def test_a_launch_does_not_fail_for_what_cannot_be_removed(harness: AwsFleetHarness, owner: str) -> None:
    harness.proxy.refuse("DescribeLaunchTemplates", "UnauthorizedOperation", 403, times=10**6)
    assert len(harness.provider().launch(request_for(harness, tags={OWNER_TAG: owner})).instances) == 1


def test_many_that_prune_and_launch_at_once_launch_all(harness: AwsFleetHarness, owner: str) -> None:
    """Each launch comes off once, however often its template goes away below it."""
    tags, over = {OWNER_TAG: owner}, threading.Event()

    def prune() -> int:
        provider, removed = harness.provider(), 0
        while not over.is_set():
            removed += len(_templates_of(provider).prune(owner))
        return removed

    def launch(number: int) -> int:
        request = request_for(harness, tags=tags, disk_gib=50 + number % 2)
        return len(harness.provider(retries=20).launch(request).instances)

    with ThreadPoolExecutor(6) as pool:
        pruners = [pool.submit(prune) for _ in range(2)]
        try:
            launched = list(pool.map(launch, range(8)))
        finally:
            over.set()
        assert [one.result() >= 0 for one in pruners] == [True, True]
    assert launched == [1] * 8
    assert len(harness.truth()) == 8
    assert all(
        {"Key": PURPOSE_TAG, "Value": "instant-fleet"} in one["Tags"] for one in _owned(owner, harness)
    )
