"""EC2 for the contract's cases: moto, behind a proxy that does what EC2 does and moto does not."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, ClassVar

from fakes.ec2 import UBUNTU, Ec2Proxy
from faults.proxy import Fault
from gpu.providers.harness import Harness
from servers.ec2 import forget_all
from textnlp_fast.gpu.providers.aws import AwsProvider
from textnlp_fast.gpu.providers.contract import LAUNCH_TAG, Provider
from textnlp_fast.gpu.types import Market

__all__ = ["AwsFleetHarness", "AwsHarness"]

_ACTIONS = {
    "terminate": "TerminateInstances",
    "tag": "CreateTags",
    "stop": "StopInstances",
    "start": "StartInstances",
    "describe": "DescribeInstances",
}
_ALWAYS = 10**9


class AwsHarness(Harness):
    name = "aws"
    region = "us-east-1"
    bad_region = "us-east-9"
    instance_type = "g4dn.xlarge"
    other_type = "g5.xlarge"
    bad_type = "g99.superlarge"
    zone = "us-east-1a"
    bad_zone = "us-east-1q"
    image = UBUNTU
    bad_image = "ami-0123456789abcdef0"
    launch_action: ClassVar[str] = "RunInstances"
    sdk: ClassVar[str | None] = "boto3"

    def __init__(self, moto_url: str, proxy: Ec2Proxy) -> None:
        import boto3  # noqa: PLC0415

        self.proxy = proxy
        self._moto_url = moto_url
        self.spot_price_usd = proxy.spot_price_usd
        self.ec2 = boto3.client("ec2", endpoint_url=moto_url, region_name=self.region)

    def _action(self, verb: str) -> str:
        return _ACTIONS.get(verb, self.launch_action)

    def provider(self, *, region: str | None = None, **options: Any) -> Provider:
        quick: dict[str, Any] = {"first_pause_s": 0.01, "settle_s": 20.0, "timeout_s": 20.0}
        return AwsProvider(
            region or self.region, endpoint_url=self.proxy.endpoint_url, **{**quick, **options}
        )

    def truth(self) -> dict[str, str | None]:
        pages = self.ec2.get_paginator("describe_instances").paginate()
        return {
            one["InstanceId"]: {tag["Key"]: tag["Value"] for tag in one.get("Tags", [])}.get(LAUNCH_TAG)
            for page in pages
            for group in page["Reservations"]
            for one in group["Instances"]
            if one["State"]["Name"] not in ("shutting-down", "terminated")
        }

    def forget(self) -> None:
        forget_all(self._moto_url)

    def heal(self) -> None:
        self.proxy.heal()
        self.proxy.capacity = None
        self.proxy.pools.clear()
        self.proxy.fleet_errors.clear()
        self.proxy.hide_for = 0

    def no_capacity(self) -> None:
        self.proxy.capacity = 0

    def capacity(self, count: int) -> None:
        self.proxy.capacity = count

    def no_quota(self) -> None:
        self.proxy.refuse("RunInstances", "VcpuLimitExceeded", times=_ALWAYS)

    def throttle(self, times: int) -> None:
        self.proxy.refuse(r"\w+", "RequestLimitExceeded", 503, times=times)

    def lose_answer(self, verb: str, times: int = 1) -> None:
        self.proxy.inject(Fault("lose_answer", path=rf"Action={self._action(verb)}\b", times=times))

    def lose_request(self, verb: str, times: int = 1) -> None:
        self.proxy.inject(Fault("lose_request", path=rf"Action={self._action(verb)}\b", times=times))

    def hide_new(self, looks: int) -> None:
        self.proxy.hide_for = looks

    def expire_credentials(self) -> None:
        self.proxy.refuse(r"\w+", "RequestExpired", times=_ALWAYS)

    def deny(self) -> None:
        self.proxy.refuse(self.launch_action, "UnauthorizedOperation", 403, times=_ALWAYS)

    def launches_asked(self) -> int:
        return self.proxy.calls.count(self.launch_action)

    def user_data_of(self, instance_id: str) -> str:
        answer = self.ec2.describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
        return base64.b64decode(answer["UserData"]["Value"]).decode()

    def disk_gib_of(self, instance_id: str) -> int:
        filters = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
        (volume,) = self.ec2.describe_volumes(Filters=filters)["Volumes"]
        return int(volume["Size"])


class AwsFleetHarness(AwsHarness):
    """Spot that names no zone: the other road."""

    market = Market.SPOT
    launch_action = "CreateFleet"
    cannot: ClassVar[Mapping[str, str]] = {"stop": "EC2 does not stop a spot machine of one launch"}

    def no_quota(self) -> None:
        said = ("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        self.proxy.fleet_errors = [said] * 100

    def template_of(self, instance_id: str) -> Mapping[str, Any]:
        """The content of the template that the only fleet used: moto gives its instances no disk after it."""
        templates = self.ec2.describe_launch_templates(MaxResults=200)["LaunchTemplates"]
        (name,) = {one["LaunchTemplateName"] for one in templates} & self.proxy.templates_of(instance_id)
        answer = self.ec2.describe_launch_template_versions(LaunchTemplateName=name)
        (version,) = answer["LaunchTemplateVersions"]
        content: Mapping[str, Any] = version["LaunchTemplateData"]
        return content

    def disk_gib_of(self, instance_id: str) -> int:
        (disk,) = self.template_of(instance_id)["BlockDeviceMappings"]
        return int(disk["Ebs"]["VolumeSize"])
