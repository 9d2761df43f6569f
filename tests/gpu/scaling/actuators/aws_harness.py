"""Auto Scaling groups for the contract's cases: moto, behind a proxy that holds instances back and loses answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from fakes.ec2 import RUNNING, UBUNTU
from faults.proxy import Answer, Fault, FaultProxy
from gpu.scaling.actuators.harness import GroupHarness, Streams
from servers.ec2 import forget_all
from textnlp_fast.gpu.scaling.actuators.aws_asg import AwsAutoScalingGroup
from textnlp_fast.gpu.scaling.actuators.contract import Actuator

__all__ = ["AsgHarness", "AsgProxy", "asg_error"]

_ALWAYS = 10**9
_ACTIONS = {
    "tell": "SetDesiredCapacity",
    "mark": "CreateTags",
    "end": "TerminateInstanceInAutoScalingGroup",
}


def asg_error(code: str, message: str) -> bytes:
    """An error in the words of Auto Scaling's query protocol."""
    return (
        f'<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>0</RequestId></ErrorResponse>"
    ).encode()


class AsgProxy(FaultProxy):
    """In front of moto, whose instances serve as soon as they are ordered."""

    def __init__(self, upstream_url: str) -> None:
        super().__init__(upstream_url)
        self.lifecycles: dict[str, str] = {}
        """Instance -> the state that the group shows of it instead."""
        self.calls: list[dict[str, str]] = []
        self.hide_tags = 0
        """So many more looks at machines do not show their tags yet."""

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        self.calls.append(form)
        if form.get("Action") == "SetInstanceProtection":
            asked = [value for name, value in form.items() if name.startswith("InstanceIds.member.")]
            for one in asked:  # moto protects whatever it is told to
                if self.lifecycles.get(one, "InService") != "InService":
                    words = f"The instance {one} is not in InService or EnteringStandby or Standby."
                    return 400, [("Content-Type", "text/xml")], asg_error("ValidationError", words)
        status, answered, document = super().ask(method, path, headers, body)
        if (
            form.get("Action") == "DescribeInstances"
            and self.hide_tags
            and b"textnlp-fast-draining" in document
        ):
            self.hide_tags -= 1
            document = document.replace(b"textnlp-fast-draining", b"not-to-be-seen-yet")
            answered = [one for one in answered if one[0].lower() != "content-length"]
        if form.get("Action") == "DescribeAutoScalingGroups":
            for instance, state in self.lifecycles.items():
                document = _in_state(document, instance, state)
            answered = [one for one in answered if one[0].lower() != "content-length"]
        return status, answered, document


def _in_state(document: bytes, instance: str, state: str) -> bytes:
    def changed(item: re.Match[bytes]) -> bytes:
        if f"<InstanceId>{instance}</InstanceId>".encode() not in item[0]:
            return item[0]
        return re.sub(rb"<LifecycleState>\w+</", b"<LifecycleState>" + state.encode() + b"</", item[0])

    return re.sub(
        rb"<member>(?:(?!<member>).)*?<LifecycleState>.*?</member>", changed, document, flags=re.DOTALL
    )


class AsgHarness(GroupHarness):
    kind = "aws-asg"
    sdk = "boto3"
    region = "us-east-1"
    group: ClassVar[str] = "llm"

    def __init__(self, moto_url: str, proxy: AsgProxy) -> None:
        import boto3  # noqa: PLC0415

        self.proxy = proxy
        self.ec2 = boto3.client("ec2", endpoint_url=moto_url, region_name=self.region)
        self.asg = boto3.client("autoscaling", endpoint_url=moto_url, region_name=self.region)
        self._moto_url = moto_url
        self._begin()

    def begin_anew(self, actuator: Actuator) -> Actuator:
        forget_all(self._moto_url)
        self._begin()
        return self.actuator(drain=Streams())

    def _begin(self) -> None:
        self.ec2.create_launch_template(
            LaunchTemplateName="llm", LaunchTemplateData={"ImageId": UBUNTU, "InstanceType": "g5.xlarge"}
        )
        self.asg.create_auto_scaling_group(
            AutoScalingGroupName=self.group,
            LaunchTemplate={"LaunchTemplateName": "llm"},
            MinSize=0,
            MaxSize=20,
            DesiredCapacity=3,
            AvailabilityZones=["us-east-1a", "us-east-1b"],
        )

    def actuator(self, **options: Any) -> AwsAutoScalingGroup:
        quick: dict[str, Any] = {
            "name": self.group,
            "first_pause_s": 0.01,
            "timeout_s": 20.0,
            "region": self.region,
        }
        return AwsAutoScalingGroup(endpoint_url=self.proxy.endpoint_url, **{**quick, **options})

    def actuator_of_nothing(self) -> AwsAutoScalingGroup:
        return self.actuator(name="nobody")

    def described(self) -> dict[str, Any]:
        (group,) = self.asg.describe_auto_scaling_groups(AutoScalingGroupNames=[self.group])[
            "AutoScalingGroups"
        ]
        return dict(group)

    def told(self) -> int:
        return int(self.described()["DesiredCapacity"])

    def alive(self) -> set[str]:
        listed = {one["InstanceId"] for one in self.described()["Instances"]}
        pages = self.ec2.get_paginator("describe_instances").paginate(Filters=RUNNING)
        running = {
            one["InstanceId"]
            for page in pages
            for reservation in page["Reservations"]
            for one in reservation["Instances"]
        }
        assert running >= listed or self.vanished
        return running

    vanished = False

    def pass_time(self) -> None:
        """moto does what it is told at once; what has vanished, the group finds when it looks at its instances."""
        gone = {one["InstanceId"] for one in self.described()["Instances"]} - self.alive()
        for one in gone:
            self.asg.terminate_instance_in_auto_scaling_group(
                InstanceId=one, ShouldDecrementDesiredCapacity=False
            )

    def set_bounds(self, least: int, most: int) -> None:
        self.asg.update_auto_scaling_group(AutoScalingGroupName=self.group, MinSize=least, MaxSize=most)

    def hold_back(self, replica_id: str) -> None:
        self.proxy.lifecycles[replica_id] = "Pending"

    def vanish(self, replica_id: str) -> None:
        self.vanished = True
        self.ec2.terminate_instances(InstanceIds=[replica_id])

    def heal(self) -> None:
        self.proxy.heal()

    def throttle(self, times: int) -> None:
        body = asg_error("Throttling", "Rate exceeded")
        self.proxy.inject(Fault("status", path="Version=2011-01-01", times=times, code=400, body=body))

    def lose_answer(self, verb: str) -> None:
        self.proxy.inject(Fault("lose_answer", path=rf"Action={_ACTIONS[verb]}\b"))

    def crash_after(self, requests: int, *, heard: bool) -> None:
        if heard:
            self.proxy.inject(Fault("lose_answer", after=requests))
        self.proxy.inject(Fault("lose_request", after=requests, times=_ALWAYS))

    def expire_credentials(self) -> None:
        body = asg_error("ExpiredToken", "The security token included in the request is expired")
        self.proxy.inject(Fault("status", path="Version=2011-01-01", times=_ALWAYS, code=403, body=body))

    def requests(self) -> int:
        return len(self.proxy.requests)
