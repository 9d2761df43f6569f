"""Fleets of EC2 that keep a number: the contract, and the two markets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import boto3
import pytest

from fakes.ec2 import error_document
from fakes.ec2_maintain import MaintainProxy
from faults.proxy import Fault
from gpu.scaling.actuators.contract_cases import ActuatorContract
from gpu.scaling.actuators.harness import GroupHarness, Streams, settled
from servers.ec2 import forget_all
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.actuators.aws_fleet import AwsFleet
from textnlp_fast.gpu.scaling.actuators.contract import Actuator

_ALWAYS = 10**9
_ACTIONS = {"tell": "ModifyFleet", "mark": "CreateTags", "end": "TerminateInstances"}


class FleetHarness(GroupHarness):
    kind = "aws-fleet"
    sdk = "boto3"
    cannot: ClassVar[Mapping[str, str]] = {"bounds": "a fleet has none"}

    def __init__(self, moto_url: str, proxy: MaintainProxy) -> None:
        self._moto_url = moto_url
        self.proxy = proxy

    def begin_anew(self, actuator: Actuator) -> Actuator:
        forget_all(self._moto_url)
        self.proxy.begin_anew()
        return self.actuator(drain=Streams())

    def actuator(self, **options: Any) -> AwsFleet:
        quick: dict[str, Any] = {
            "name": "fleet-1",
            "first_pause_s": 0.01,
            "timeout_s": 20.0,
            "region": "us-east-1",
        }
        return AwsFleet(endpoint_url=self.proxy.endpoint_url, **{**quick, **options})

    def actuator_of_nothing(self) -> AwsFleet:
        return self.actuator(name="fleet-2")

    def told(self) -> int:
        return sum(self.proxy.targets.values())

    def alive(self) -> set[str]:
        return self.proxy.alive()

    def pass_time(self) -> None:
        self.proxy.settle()

    def one_that_may_go(self) -> str:
        # The one on demand stays: the fleet's split says so.
        return max(one for one, market in self.proxy.members.items() if market == "spot")

    def hold_back(self, replica_id: str) -> None:
        self.proxy.held_back.add(replica_id)

    def vanish(self, replica_id: str) -> None:
        self.proxy.ec2.terminate_instances(InstanceIds=[replica_id])

    def heal(self) -> None:
        self.proxy.heal()

    def throttle(self, times: int) -> None:
        body = error_document("RequestLimitExceeded", "Request limit exceeded.")
        self.proxy.inject(Fault("status", times=times, code=503, body=body))

    def lose_answer(self, verb: str) -> None:
        self.proxy.inject(Fault("lose_answer", path=rf"Action={_ACTIONS[verb]}\b"))

    def crash_after(self, requests: int, *, heard: bool) -> None:
        if heard:
            self.proxy.inject(Fault("lose_answer", after=requests))
        self.proxy.inject(Fault("lose_request", after=requests, times=_ALWAYS))

    def expire_credentials(self) -> None:
        self.proxy.inject(
            Fault("status", times=_ALWAYS, code=400, body=error_document("RequestExpired", "expired"))
        )

    def requests(self) -> int:
        return len(self.proxy.requests)


@pytest.fixture
def fleet(ec2_server: str) -> Iterator[FleetHarness]:
    ec2 = boto3.client("ec2", endpoint_url=ec2_server, region_name="us-east-1")
    with MaintainProxy(ec2_server, ec2, on_demand=1, spot=2) as proxy:
        yield FleetHarness(ec2_server, proxy)
        assert set(proxy.policies) <= {"no-termination"}


class TestContract(ActuatorContract):
    @pytest.fixture
    def harness(self, fleet: FleetHarness) -> FleetHarness:
        return fleet


class TestMarkets:
    def test_a_change_is_one_of_the_default_market(self, fleet: FleetHarness) -> None:
        fleet.actuator().scale_to(5, decision_id="d-1")
        assert fleet.proxy.targets == {"on-demand": 1, "spot": 4}

    def test_a_base_on_demand(self, fleet: FleetHarness) -> None:
        actuator = fleet.actuator(on_demand_base=2, drain=Streams())
        actuator.scale_to(5, decision_id="d-1")
        assert fleet.proxy.targets == {"on-demand": 2, "spot": 3}
        settled(fleet, actuator, 3, decision_id="d-2")
        assert fleet.proxy.targets == {"on-demand": 2, "spot": 1}
        settled(fleet, actuator, 1, decision_id="d-3")
        assert fleet.proxy.targets == {"on-demand": 1, "spot": 0}

    def test_who_goes_is_of_the_market_that_has_too_many(self, fleet: FleetHarness) -> None:
        on_demand = {one for one, market in fleet.proxy.members.items() if market == "on-demand"}
        streams = Streams()
        settled(fleet, fleet.actuator(drain=streams), 1)
        assert fleet.alive() == on_demand
        assert not set(streams.asked) & on_demand

    def test_spot_is_told(self, fleet: FleetHarness) -> None:
        state = fleet.actuator().read()
        assert sum(one.spot for one in state.replicas) == 2

    @pytest.mark.parametrize(("kind", "weight"), [("instant", None), ("request", None), ("maintain", "2.0")])
    def test_fleets_that_keep_no_number_of_machines(
        self, fleet: FleetHarness, kind: str, weight: str | None
    ) -> None:
        fleet.proxy.kind, fleet.proxy.weight = kind, weight
        with pytest.raises(InvalidInputError):
            fleet.actuator().read()
