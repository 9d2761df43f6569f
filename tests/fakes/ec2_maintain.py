"""Fleets of EC2 that keep a number, before moto, which cannot modify one: the machines are moto's, the fleet is ours.

After the user guide, "Modify an EC2 Fleet": the fleet launches what is missing of each market's target, and ends what
is too much only where its excess capacity policy is `termination`; a machine that ends is replaced while the market has
fewer than its target. botocore reads the answers by its own service model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from fakes.ec2 import RUNNING, UBUNTU, error_document
from faults.proxy import Answer, FaultProxy

__all__ = ["MaintainProxy"]

_XML = [("Content-Type", "text/xml")]
_SPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


class MaintainProxy(FaultProxy):
    """One fleet, `fleet-1`. `ec2` is a client that asks moto itself."""

    def __init__(
        self, upstream_url: str, ec2: Any, *, on_demand: int, spot: int, kind: str = "maintain"
    ) -> None:
        super().__init__(upstream_url)
        self.ec2 = ec2
        self._first_targets = {"on-demand": on_demand, "spot": spot}
        self.targets = dict(self._first_targets)
        self.kind = kind
        self.weight: str | None = None
        self.policies: list[str] = []
        self.members: dict[str, str] = {}
        """Instance -> market."""
        self.held_back: set[str] = set()
        self.page_size = 2
        self.settle()

    def alive(self) -> set[str]:
        pages = self.ec2.get_paginator("describe_instances").paginate(Filters=RUNNING)
        return {
            one["InstanceId"]
            for page in pages
            for group in page["Reservations"]
            for one in group["Instances"]
        }

    def begin_anew(self) -> None:
        """In front of a moto without machines."""
        self.targets, self.members = dict(self._first_targets), {}
        self.settle()

    def settle(self) -> None:
        """What the fleet does by itself."""
        alive = self.alive()
        self.members = {one: market for one, market in self.members.items() if one in alive}
        for market, target in self.targets.items():
            there = [one for one, of in self.members.items() if of == market]
            missing = target - len(there)
            if missing > 0:
                options = {"InstanceMarketOptions": {"MarketType": "spot"}} if market == "spot" else {}
                made = self.ec2.run_instances(
                    ImageId=UBUNTU, InstanceType="g5.xlarge", MinCount=missing, MaxCount=missing, **options
                )
                self.members |= {one["InstanceId"]: market for one in made["Instances"]}
            elif missing < 0 and self.policies and self.policies[-1] == "termination":
                self.ec2.terminate_instances(InstanceIds=there[:-missing])

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        action = form.get("Action", "")
        if action in ("ModifyFleet", "DescribeFleets", "DescribeFleetInstances"):
            fleet = form.get("FleetId") or form.get("FleetId.1")
            if fleet != "fleet-1":
                words = f"The fleet ID '{fleet}' does not exist"
                return 400, _XML, error_document("InvalidFleetId.NotFound", words)
            inner = getattr(self, "_" + action)(form)
            return 200, _XML, f'<{action}Response xmlns="{_SPACE}">{inner}</{action}Response>'.encode()
        status, answered, document = super().ask(method, path, headers, body)
        if action == "DescribeInstances" and self.held_back:
            document = _pending(document, self.held_back)
            answered = [one for one in answered if one[0].lower() != "content-length"]
        return status, answered, document

    def _ModifyFleet(self, form: dict[str, str]) -> str:
        name = "TargetCapacitySpecification"
        total, on_demand, spot = (
            int(form[f"{name}.{of}TargetCapacity"]) for of in ("Total", "OnDemand", "Spot")
        )
        assert total == on_demand + spot and min(on_demand, spot) >= 0, form
        self.policies.append(form["ExcessCapacityTerminationPolicy"])
        self.targets = {"on-demand": on_demand, "spot": spot}
        self.settle()
        return "<return>true</return>"

    def _DescribeFleets(self, form: dict[str, str]) -> str:
        weight = f"<weightedCapacity>{self.weight}</weightedCapacity>" if self.weight else ""
        override = f"<item><instanceType>g5.xlarge</instanceType>{weight}</item>"
        target = (
            f"<totalTargetCapacity>{sum(self.targets.values())}</totalTargetCapacity>"
            f"<onDemandTargetCapacity>{self.targets['on-demand']}</onDemandTargetCapacity>"
            f"<spotTargetCapacity>{self.targets['spot']}</spotTargetCapacity>"
            "<defaultTargetCapacityType>spot</defaultTargetCapacityType>"
        )
        return (
            f"<fleetSet><item><fleetId>fleet-1</fleetId><fleetState>active</fleetState><type>{self.kind}</type>"
            f"<launchTemplateConfigs><item><overrides>{override}</overrides></item></launchTemplateConfigs>"
            f"<targetCapacitySpecification>{target}</targetCapacitySpecification></item></fleetSet>"
        )

    def _DescribeFleetInstances(self, form: dict[str, str]) -> str:
        # Those that have ended stay on the list for a while.
        shown = list(self.members)
        begin = int(form.get("NextToken", "0"))
        items = "".join(
            f"<item><instanceId>{one}</instanceId></item>" for one in shown[begin : begin + self.page_size]
        )
        more = begin + self.page_size
        token = f"<nextToken>{more}</nextToken>" if more < len(shown) else ""
        return f"<activeInstanceSet>{items}</activeInstanceSet><fleetId>fleet-1</fleetId>{token}"


def _pending(document: bytes, instances: set[str]) -> bytes:
    for one in instances:
        before, found, after = document.partition(f"<instanceId>{one}</instanceId>".encode())
        if found:
            document = before + found + after.replace(b"<name>running</name>", b"<name>pending</name>", 1)
    return document
