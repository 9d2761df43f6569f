"""An EC2 fleet of the type `maintain`, of on-demand and spot machines of several types and zones.

The target capacity is always modified with `no-termination`, so that the fleet ends nobody. Each that has to go carries
a tag and drains; then the target is lowered, and the machine is ended: in this order, for in the other the fleet would
replace it. On-demand and spot are two targets: who goes is of the market that has too many.

API: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyFleet.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from textnlp_fast.errors import (
    ConflictError,
    InstanceNotFoundError,
    InvalidInputError,
    ObjectNotFoundError,
)
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.scaling.actuators.aws_calls import AwsCalls, Machine
from textnlp_fast.gpu.scaling.actuators.contract import Drain
from textnlp_fast.gpu.scaling.actuators.groups import GroupView, Member, newest_first
from textnlp_fast.gpu.scaling.actuators.reconciling import GroupActuator

__all__ = ["AwsFleet"]

_TERMINATED_AT_ONCE: Final = 100


class AwsFleet(GroupActuator):
    """The fleet `name` (`fleet-...`) of a region.

    `on_demand_base`: so many replicas are on demand, the others spot. None: a change is one of the fleet's default
    market, and the other keeps its target. Fleets whose types count with weights, vCPUs or memory are refused, and so
    are those of the types `instant` and `request`, which keep no number.
    """

    kind = "aws-fleet"

    def __init__(
        self,
        *,
        name: str,
        region: str,
        on_demand_base: int | None = None,
        drain: Drain | None = None,
        drain_s: float = 600.0,
        give_up_s: float | None = None,
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
        if on_demand_base is not None and (isinstance(on_demand_base, bool) or on_demand_base < 0):
            raise InvalidInputError(f"on_demand_base={on_demand_base!r} is no number of replicas")
        self._name = name
        self._base = on_demand_base
        self._aws = AwsCalls(region, "ec2", endpoint_url=endpoint_url, profile=profile, patience=patience)

    # --- the two targets --------------------------------------------------------------------------------------

    def _target(self, until: float) -> dict[str, Any]:
        """The target's specification as the fleet has it."""
        try:
            answer = self._aws.call("ec2", "describe_fleets", until, FleetIds=[self._name])
        except InvalidInputError as error:
            if "InvalidFleetId" not in str(error):
                raise
            answer = {}
        fleets = answer.get("Fleets") or []
        if not fleets or str(fleets[0].get("FleetState", "active")).startswith(("deleted", "failed")):
            raise ObjectNotFoundError(
                f"{self._aws.region} has no fleet {self._name!r}",
                hint="`aws ec2 describe-fleets` lists them.",
            )
        _refuse(fleets[0])
        target: dict[str, Any] = fleets[0]["TargetCapacitySpecification"]
        return target

    def _split(self, count: int, target: dict[str, Any]) -> int:
        """How many of `count` replicas are on demand."""
        if self._base is not None:
            return min(count, self._base)
        if target.get("DefaultTargetCapacityType") == "on-demand":
            return count - min(count, int(target.get("SpotTargetCapacity") or 0))
        return min(count, int(target.get("OnDemandTargetCapacity") or 0))

    def _modify(self, on_demand: int, spot: int, target: dict[str, Any], until: float) -> None:
        asked = {
            "TotalTargetCapacity": on_demand + spot,
            "OnDemandTargetCapacity": on_demand,
            "SpotTargetCapacity": spot,
            "DefaultTargetCapacityType": target.get("DefaultTargetCapacityType") or "spot",
        }
        self._aws.call(
            "ec2",
            "modify_fleet",
            until,
            FleetId=self._name,
            TargetCapacitySpecification=asked,
            ExcessCapacityTerminationPolicy="no-termination",
        )

    # --- the group --------------------------------------------------------------------------------------------

    def _look(self, until: float) -> GroupView:
        target = self._target(until)
        listed: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            page = self._aws.call("ec2", "describe_fleet_instances", until, FleetId=self._name, **token)
            listed += page.get("ActiveInstances") or []
            if not page.get("NextToken"):
                break
            token = {"NextToken": page["NextToken"]}
        machines = self._aws.machines([one["InstanceId"] for one in listed], until)
        return GroupView(
            told=int(target["TotalTargetCapacity"]),
            members=tuple(_member(one, machines.get(one["InstanceId"])) for one in listed),
        )

    def _victims(self, view: GroupView, surplus: int, count: int) -> list[Member]:
        on_demand = self._split(count, self._target(self._patience.until()))
        found: list[Member] = []
        for spot, wanted in ((True, count - on_demand), (False, on_demand)):
            of_market = newest_first([one for one in view.staying if one.spot is spot])
            found += of_market[: max(0, len(of_market) - wanted)]
        return newest_first(found)[:surplus]

    def _tell(self, view: GroupView, told: int, until: float) -> None:
        target = self._target(until)
        if int(target["TotalTargetCapacity"]) != view.told:
            raise ConflictError(f"the fleet {self._name} was modified by somebody else")
        draining_spot = sum(one.spot for one in view.draining)
        draining = len(view.draining)
        on_demand = self._split(told - draining, target)
        spot = told - draining - on_demand
        self._modify(on_demand + draining - draining_spot, spot + draining_spot, target, until)

    def _mark(self, members: Sequence[Member], at_s: float, until: float) -> None:
        for one in members:
            try:
                self._aws.mark(one.member_id, at_s, until)
            except InstanceNotFoundError:
                continue  # gone since

    def _end_all(self, gone: Sequence[Member], *, told: int, count: int, until: float) -> None:
        """All in one change: while a fleet is being modified, it takes no other."""
        if not gone:
            return
        target = self._target(until)
        if int(target["TotalTargetCapacity"]) != told:
            raise ConflictError(f"the fleet {self._name} was modified by somebody else")
        spot = int(target.get("SpotTargetCapacity") or 0) - sum(one.spot for one in gone)
        total = told - len(gone)
        spot = min(max(0, spot), total)
        self._modify(total - spot, spot, target, until)
        for begin in range(0, len(gone), _TERMINATED_AT_ONCE):
            ids = [one.member_id for one in gone[begin : begin + _TERMINATED_AT_ONCE]]
            try:
                self._aws.call("ec2", "terminate_instances", until, InstanceIds=ids)
            except InstanceNotFoundError:
                for one in ids:  # one that is gone makes the whole request an error
                    self._terminate(one, until)

    def _terminate(self, instance_id: str, until: float) -> None:
        try:
            self._aws.call("ec2", "terminate_instances", until, InstanceIds=[instance_id])
        except InstanceNotFoundError:
            return

    def _end(self, member: Member, *, told: int, shrink: bool, until: float) -> None:
        self._end_all([member], told=told, count=told - 1, until=until)


def _member(listed: dict[str, Any], machine: Machine | None) -> Member:
    state: Literal["starting", "ready", "leaving"] = "starting"
    if machine is not None and machine.ending:
        state = "leaving"
    elif machine is not None and machine.state == "running" and listed.get("InstanceHealth") != "unhealthy":
        state = "ready"
    return Member(
        member_id=listed["InstanceId"],
        state=state,
        marked_at_s=machine.marked_at_s if machine else None,
        created_at_s=machine.created_at_s if machine else 0.0,
        zone=machine.zone if machine else None,
        spot=machine.spot if machine else bool(listed.get("SpotInstanceRequestId")),
        address=machine.address if machine else None,
    )


def _refuse(fleet: dict[str, Any]) -> None:
    if fleet.get("Type") != "maintain":
        raise InvalidInputError(
            f"the fleet {fleet['FleetId']} is of the type {fleet.get('Type')}, and keeps no number",
            hint="Make one of the type `maintain`.",
        )
    overrides = [
        one for config in fleet.get("LaunchTemplateConfigs") or () for one in config.get("Overrides") or ()
    ]
    weighted = any(one.get("WeightedCapacity") not in (None, 1, 1.0) for one in overrides)
    units = fleet["TargetCapacitySpecification"].get("TargetCapacityUnitType") or "units"
    if weighted or units != "units":
        raise InvalidInputError(
            f"the fleet {fleet['FleetId']} counts weights or {units}, not instances",
            hint="Give each of its types the weight 1, and its capacity the unit `units`.",
        )
