"""An EC2 Auto Scaling group.

More replicas are the group's desired capacity. Fewer are chosen here, never by the group: each that has to go carries a
tag, drains, and is ended by TerminateInstanceInAutoScalingGroup, which takes its place out of the desired capacity in
the same step. All that serve are protected from scale-in, so that neither a lower number nor a rebalancing of zones
ends one.

API: https://docs.aws.amazon.com/autoscaling/ec2/APIReference; lifecycle states:
https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from textnlp_fast.errors import InstanceNotFoundError, InvalidInputError, ObjectNotFoundError
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.scaling.actuators.aws_calls import AwsCalls, Machine
from textnlp_fast.gpu.scaling.actuators.contract import Drain
from textnlp_fast.gpu.scaling.actuators.groups import GroupView, Member
from textnlp_fast.gpu.scaling.actuators.reconciling import GroupActuator

__all__ = ["AwsAutoScalingGroup"]

_MOST_PROTECTED: Final = 50
"""Instances that one SetInstanceProtection takes."""
_STARTING: Final = ("Pending", "Pending:Wait", "Pending:Proceed")


class AwsAutoScalingGroup(GroupActuator):
    """The group `name` of a region. Credentials come from boto3's default chain, or from `profile`.

    `protect`: protects all that serve from scale-in; without it the group may end one of its own choice. Groups whose
    types count with weights are refused. Instances in standby and in a warm pool are no replicas.
    """

    kind = "aws-asg"

    def __init__(
        self,
        *,
        name: str,
        region: str,
        drain: Drain | None = None,
        drain_s: float = 600.0,
        give_up_s: float | None = None,
        protect: bool = True,
        endpoint_url: str | None = None,
        profile: str | None = None,
        timeout_s: float = 30.0,
        deadline_s: float = 120.0,
        retries: int = 5,
        first_pause_s: float = 0.3,
        clock: Callable[[], float] = time.time,
    ) -> None:
        patience = Patience(
            timeout_s=timeout_s, deadline_s=deadline_s, retries=retries, first_pause_s=first_pause_s
        )
        super().__init__(patience=patience, drain=drain, drain_s=drain_s, give_up_s=give_up_s, clock=clock)
        self._name = name
        self._protect = protect
        self._aws = AwsCalls(
            region, "autoscaling", "ec2", endpoint_url=endpoint_url, profile=profile, patience=patience
        )

    def _look(self, until: float) -> GroupView:
        names = [self._name]
        answer = self._aws.call(
            "autoscaling", "describe_auto_scaling_groups", until, AutoScalingGroupNames=names
        )
        groups = answer.get("AutoScalingGroups") or []
        if not groups or groups[0].get("Status"):  # a status is there only while the group is being deleted
            raise ObjectNotFoundError(
                f"{self._aws.region} has no Auto Scaling group {self._name!r}",
                hint="`aws autoscaling describe-auto-scaling-groups` lists them.",
            )
        group = groups[0]
        _refuse_weights(group)
        listed = [one for one in group.get("Instances", ()) if _counts(one["LifecycleState"])]
        machines = self._aws.machines([one["InstanceId"] for one in listed], until)
        return GroupView(
            told=int(group["DesiredCapacity"]),
            members=tuple(_member(one, machines.get(one["InstanceId"])) for one in listed),
            min_size=int(group["MinSize"]),
            max_size=int(group["MaxSize"]),
        )

    def _guard(self, view: GroupView, until: float) -> None:
        if not self._protect:
            return
        bare = [one.member_id for one in view.members if one.state == "ready" and not one.protected]
        for begin in range(0, len(bare), _MOST_PROTECTED):
            some = bare[begin : begin + _MOST_PROTECTED]
            try:
                self._protection(some, until)
            except InvalidInputError:
                # One that left service in between makes the whole request an error.
                for one in some:
                    self._protect_if_there(one, until)

    def _protect_if_there(self, instance_id: str, until: float) -> None:
        try:
            self._protection([instance_id], until)
        except InvalidInputError:
            now = self._look(until)
            if any(one.member_id == instance_id and one.state == "ready" for one in now.members):
                raise

    def _protection(self, instance_ids: Sequence[str], until: float) -> None:
        self._aws.call(
            "autoscaling",
            "set_instance_protection",
            until,
            AutoScalingGroupName=self._name,
            InstanceIds=list(instance_ids),
            ProtectedFromScaleIn=True,
        )

    def _may_lower(self, view: GroupView, told: int) -> bool:
        # With protection nobody who serves is the group's to choose.
        return self._protect

    def _tell(self, view: GroupView, told: int, until: float) -> None:
        self._aws.call(
            "autoscaling",
            "set_desired_capacity",
            until,
            AutoScalingGroupName=self._name,
            DesiredCapacity=told,
            HonorCooldown=False,
        )

    def _mark(self, members: Sequence[Member], at_s: float, until: float) -> None:
        for one in members:
            try:
                self._aws.mark(one.member_id, at_s, until)
            except InstanceNotFoundError:
                continue  # gone since

    def _end(self, member: Member, *, told: int, shrink: bool, until: float) -> None:
        try:
            # Said twice, it would take two places out of the group: never repeated blindly.
            self._aws.once(
                "autoscaling",
                "terminate_instance_in_auto_scaling_group",
                InstanceId=member.member_id,
                ShouldDecrementDesiredCapacity=shrink,
            )
        except (InvalidInputError, InstanceNotFoundError):
            if self._is_there(member, until):
                raise


def _counts(lifecycle: str) -> bool:
    """Whether an instance in this state is a member: those put aside by hand, and warm ones, are not."""
    return lifecycle == "InService" or lifecycle in _STARTING or lifecycle.startswith("Terminating")


def _member(listed: dict[str, Any], machine: Machine | None) -> Member:
    lifecycle = listed["LifecycleState"]
    state: Literal["starting", "ready", "leaving"] = "starting"
    if lifecycle.startswith("Terminating") or (machine is not None and machine.ending):
        state = "leaving"
    elif listed.get("HealthStatus", "Healthy").lower() != "healthy":
        # The group ends it and puts another in its place, which is in the number already.
        state = "leaving"
    elif lifecycle == "InService":
        state = "ready"
    return Member(
        member_id=listed["InstanceId"],
        state=state,
        marked_at_s=machine.marked_at_s if machine else None,
        created_at_s=machine.created_at_s if machine else 0.0,
        zone=listed.get("AvailabilityZone"),
        spot=machine is not None and machine.spot,
        address=machine.address if machine else None,
        protected=bool(listed.get("ProtectedFromScaleIn")),
    )


def _refuse_weights(group: dict[str, Any]) -> None:
    template = (group.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
    weighted = any("WeightedCapacity" in one for one in template.get("Overrides") or ())
    if weighted or group.get("DesiredCapacityType", "units") != "units":
        raise InvalidInputError(
            f"the group {group['AutoScalingGroupName']} counts weights, not instances",
            hint="Give each of its types the weight 1, and its desired capacity the type `units`.",
        )
