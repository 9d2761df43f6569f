"""What clouds say of machines: EC2 on moto, the metadata services on fakes that are held to the vendors' documents."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest

from fakes.loopback_http import Said, loopback
from fakes.metadata import AwsMetadata, AzureMetadata, GcpMetadata
from servers.s3 import S3Server
from textnlp_fast.errors import AuthenticationError, ProviderUnavailableError
from textnlp_fast.gpu.health.engine import Fact, HealthEngine
from textnlp_fast.gpu.health.facts import Event
from textnlp_fast.gpu.health.sources.aws_metadata import AwsMetadataSource
from textnlp_fast.gpu.health.sources.azure_events import AzureEventsSource
from textnlp_fast.gpu.health.sources.ec2 import Ec2Source, ec2_client, events_of
from textnlp_fast.gpu.health.sources.gcp_metadata import GcpMetadataSource


def rules_after(engine: HealthEngine, facts: Any, now_s: float) -> list[str]:
    engine.observe(facts, now_s=now_s)
    return sorted(one.rule for one in engine.findings())


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


# --- EC2 ----------------------------------------------------------------------------------------------------


async def test_instances_on_ec2_run_stop_and_are_missing(moto: S3Server, credentials: None) -> None:
    client = ec2_client("us-east-1", endpoint_url=moto.endpoint_url)
    image = client.describe_images()["Images"][0]["ImageId"]
    launched = client.run_instances(ImageId=image, MinCount=2, MaxCount=2, InstanceType="g4dn.xlarge")
    one, two = (instance["InstanceId"] for instance in launched["Instances"])
    source = Ec2Source([one, two, "i-0123456789abcdef0"], client)
    engine = HealthEngine()
    assert rules_after(engine, await source.read(), 1.0) == ["status-check-missing"]
    client.stop_instances(InstanceIds=[two])
    engine.observe(await source.read(), now_s=2.0)
    assert sorted((f.machine, f.rule) for f in engine.findings()) == sorted(
        [("i-0123456789abcdef0", "status-check-missing"), (two, "status-check-state")]
    )
    client.start_instances(InstanceIds=[two])
    assert rules_after(engine, await source.read(), 3.0) == ["status-check-missing"]
    client.terminate_instances(InstanceIds=[one])
    engine.observe(await source.read(), now_s=4.0)
    assert one in {f.machine for f in engine.findings()}
    await source.close()


def status(**changes: Any) -> dict[str, Any]:
    """As DescribeInstanceStatus answers, with boto3's types."""
    good = {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
    return {
        "InstanceId": "i-1",
        "InstanceState": {"Code": 16, "Name": "running"},
        "SystemStatus": good,
        "InstanceStatus": good,
        "AttachedEbsStatus": good,
        "Events": [],
        **changes,
    }


def test_status_checks_fail_and_pass() -> None:
    engine = HealthEngine()
    planned: set[str] = set()
    assert rules_after(engine, events_of("i-1", status(), 1.0, planned), 1.0) == []
    since = datetime.datetime(2026, 11, 29, 8, tzinfo=datetime.timezone.utc)
    bad = {
        "Status": "impaired",
        "Details": [{"Name": "reachability", "Status": "failed", "ImpairedSince": since}],
    }
    assert rules_after(
        engine, events_of("i-1", status(SystemStatus=bad, InstanceStatus=bad), 2.0, planned), 2.0
    ) == [
        "status-check-instance",
        "status-check-system",
    ]
    assert "2026-11-29 08:00" in engine.findings()[0].evidence
    # Told again, nothing changes; "insufficient-data" neither opens nor closes.
    assert (
        engine.observe(
            events_of("i-1", status(SystemStatus=bad, InstanceStatus=bad), 3.0, planned), now_s=3.0
        )
        == []
    )
    unknown = {"Status": "insufficient-data"}
    engine.observe(
        events_of("i-1", status(SystemStatus=unknown, InstanceStatus=unknown), 4.0, planned), now_s=4.0
    )
    assert len(engine.findings()) == 2
    assert rules_after(engine, events_of("i-1", status(), 5.0, planned), 5.0) == []


def test_planned_events_come_and_go() -> None:
    engine = HealthEngine()
    planned: set[str] = set()
    when = datetime.datetime(2026, 12, 1, 3, 30, tzinfo=datetime.timezone.utc)
    events = [
        {
            "InstanceEventId": "instance-event-1",
            "Code": "system-reboot",
            "Description": "scheduled reboot",
            "NotBefore": when,
        },
        {
            "InstanceEventId": "instance-event-2",
            "Code": "instance-retirement",
            "Description": "[Completed] degraded",
        },
    ]
    assert rules_after(engine, events_of("i-1", status(Events=events), 1.0, planned), 1.0) == ["maintenance"]
    assert "system-reboot, not before 2026-12-01 03:30" in engine.findings()[0].evidence
    assert rules_after(engine, events_of("i-1", status(), 2.0, planned), 2.0) == []


async def test_refused_credentials_are_one_typed_error(credentials: None) -> None:
    body = (
        b"<Response><Errors><Error><Code>AuthFailure</Code><Message>no</Message></Error></Errors>"
        b"<RequestID>1</RequestID></Response>"
    )
    with loopback(lambda _: Said(401, body, {"Content-Type": "text/xml"})) as server:
        source = Ec2Source(["i-1"], ec2_client("us-east-1", endpoint_url=server.url))
        with pytest.raises(AuthenticationError):
            await source.read()


async def test_an_ec2_that_is_away_is_one_typed_error(credentials: None) -> None:
    source = Ec2Source(["i-1"], ec2_client("us-east-1", endpoint_url="http://127.0.0.1:9", timeout_s=1.0))
    with pytest.raises(ProviderUnavailableError):
        await source.read()


# --- EC2's metadata -----------------------------------------------------------------------------------------


@pytest.fixture
def aws() -> Any:
    fake = AwsMetadata()
    yield fake
    fake.server.close()


async def test_notices_of_spot_rebalance_and_maintenance(aws: AwsMetadata) -> None:
    engine = HealthEngine()
    source = AwsMetadataSource("i-1", endpoint=aws.url)
    assert rules_after(engine, await source.read(), 1.0) == []
    # Bodies as the user guide shows them.
    aws.documents["events/recommendations/rebalance"] = {"noticeTime": "2020-10-27T08:22:00Z"}
    assert rules_after(engine, await source.read(), 2.0) == ["rebalance"]
    aws.documents["spot/instance-action"] = {"action": "terminate", "time": "2017-09-18T08:22:00Z"}
    aws.documents["events/maintenance/scheduled"] = [
        {
            "NotBefore": "21 Jan 2019 09:00:43 GMT",
            "Code": "system-reboot",
            "Description": "scheduled reboot",
            "EventId": "instance-event-0d59937288b749b32",
            "NotAfter": "21 Jan 2019 09:17:23 GMT",
            "State": "active",
        }
    ]
    assert rules_after(engine, await source.read(), 3.0) == ["maintenance", "rebalance", "spot-interruption"]
    spot = next(one for one in engine.findings() if one.rule == "spot-interruption")
    assert "terminate at 2017-09-18T08:22:00Z" in spot.evidence
    aws.documents["events/maintenance/scheduled"] = []
    assert rules_after(engine, await source.read(), 4.0) == ["rebalance", "spot-interruption"]
    # One token serves them all.
    assert sum(one.method == "PUT" for one in aws.server.asked) == 1


async def test_a_token_that_ended_is_got_anew(aws: AwsMetadata) -> None:
    source = AwsMetadataSource("i-1", endpoint=aws.url)
    await source.read()
    aws.forget_tokens()
    aws.documents["spot/instance-action"] = {"action": "stop", "time": "2017-09-18T08:22:00Z"}
    (event,) = await source.read()
    assert isinstance(event, Event) and event.kind == "spot-interruption"
    assert sum(one.method == "PUT" for one in aws.server.asked) == 2


@pytest.mark.parametrize("answer", [Said(403), Said(500), Said(200, b"<html>")])
async def test_a_metadata_service_that_is_none(answer: Said) -> None:
    with loopback(lambda _: answer) as server, pytest.raises((AuthenticationError, ProviderUnavailableError)):
        await AwsMetadataSource("i-1", endpoint=server.url).read()


async def test_strange_documents_do_no_harm(aws: AwsMetadata) -> None:
    aws.documents["spot/instance-action"] = ["not", "a", "dict"]
    aws.documents["events/maintenance/scheduled"] = {"neither": "list"}
    aws.documents["events/recommendations/rebalance"] = "text"
    facts = await AwsMetadataSource("i-1", endpoint=aws.url).read()
    assert {one.kind for one in facts if isinstance(one, Event)} == {"spot-interruption", "rebalance"}


# --- Google's metadata --------------------------------------------------------------------------------------


@pytest.fixture
def gcp() -> Any:
    fake = GcpMetadata()
    yield fake
    fake.server.close()


async def test_preemption_and_maintenance_are_told_as_they_come(gcp: GcpMetadata) -> None:
    engine = HealthEngine()
    source = GcpMetadataSource("vm", endpoint=gcp.url, wait_s=20.0)
    assert rules_after(engine, await source.read(), 1.0) == []
    waiting = asyncio.ensure_future(source.read())
    await asyncio.sleep(0.1)
    assert not waiting.done()  # it waits at the server
    await asyncio.to_thread(gcp.set, "maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    assert rules_after(engine, await asyncio.wait_for(waiting, 15), 2.0) == ["maintenance"]
    waiting = asyncio.ensure_future(source.read())
    await asyncio.sleep(0.05)
    await asyncio.to_thread(gcp.set, "preempted", "TRUE")
    assert rules_after(engine, await asyncio.wait_for(waiting, 15), 3.0) == ["maintenance", "preempted"]
    await asyncio.to_thread(gcp.set, "maintenance-event", "NONE")
    assert rules_after(engine, await asyncio.wait_for(source.read(), 15), 4.0) == ["preempted"]


async def test_a_wait_without_a_change_ends(gcp: GcpMetadata) -> None:
    source = GcpMetadataSource("vm", endpoint=gcp.url, wait_s=0.0)
    await source.read()
    facts: list[Fact] = list(await asyncio.wait_for(source.read(), 15))
    assert [one.details.get("over") for one in facts if isinstance(one, Event)] == ["true"]


async def test_what_is_not_googles_server() -> None:
    with (
        loopback(lambda _: Said(200, b"FALSE")) as server,
        pytest.raises(ProviderUnavailableError, match="not Google"),
    ):
        await GcpMetadataSource("vm", endpoint=server.url).read()


# --- Azure's scheduled events -------------------------------------------------------------------------------


def azure_event(identity: str, kind: str, resources: list[str]) -> dict[str, Any]:
    """As the documentation shows one."""
    return {
        "EventId": identity,
        "EventStatus": "Scheduled",
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": resources,
        "NotBefore": "Mon, 11 Apr 2022 22:26:58 GMT",
        "Description": "Virtual machine is being paused because of a memory-preserving Live Migration operation.",
        "EventSource": "Platform",
        "DurationInSeconds": 5,
    }


@pytest.fixture
def azure() -> Any:
    fake = AzureMetadata()
    yield fake
    fake.server.close()


async def test_scheduled_events_of_this_machine_come_go_and_are_approved(azure: AzureMetadata) -> None:
    engine = HealthEngine()
    source = AzureEventsSource("m", resource="vm-1", endpoint=azure.url, timeout_s=10.0)
    azure.events = [azure_event("A", "Reboot", ["vm-2"])]
    assert rules_after(engine, await source.read(), 1.0) == []
    azure.events += [azure_event("B", "Freeze", ["vm-1", "vm-2"]), azure_event("C", "Preempt", ["vm-1"])]
    assert rules_after(engine, await source.read(), 2.0) == ["maintenance", "spot-interruption"]
    await source.approve("B")
    assert azure.approved == ["B"]
    with pytest.raises(ProviderUnavailableError, match="400"):
        await source.approve("no such event")
    azure.events = azure.events[:1]
    assert rules_after(engine, await source.read(), 3.0) == []


@pytest.mark.parametrize(
    "answer", [Said(400), Said(200, b"[]"), Said(200, b'{"Events": 5}'), Said(200, b"{")]
)
async def test_an_answer_of_azure_that_is_none(answer: Said) -> None:
    with loopback(lambda _: answer) as server, pytest.raises(ProviderUnavailableError):
        await AzureEventsSource("m", endpoint=server.url).read()
