"""Plain machines: the contract, and what only they have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fakes.ec2 import Ec2Proxy
from gpu.providers.aws_harness import AwsHarness
from gpu.scaling.actuators.contract_cases import ActuatorContract
from gpu.scaling.actuators.harness import Streams, settled
from gpu.scaling.actuators.instance_harness import InstanceHarness
from textnlp_fast.config import Settings
from textnlp_fast.errors import CapacityError, InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.resources import GPUResourceManager
from textnlp_fast.gpu.scaling.actuators.instances import InstanceFleet


@pytest.fixture
def instances() -> InstanceHarness:
    return InstanceHarness()


@pytest.fixture
def ec2(ec2_server: str) -> Iterator[AwsHarness]:
    with Ec2Proxy(ec2_server) as proxy:
        yield AwsHarness(ec2_server, proxy)


class TestContract(ActuatorContract):
    @pytest.fixture
    def harness(self, instances: InstanceHarness) -> InstanceHarness:
        return instances


class TestInstances:
    def test_another_fleet_of_the_owner_is_left_alone(self, instances: InstanceHarness) -> None:
        before = instances.alive()
        other = instances.actuator(name="other", drain=Streams())
        other.scale_to(2, decision_id="d-1")
        assert instances.actuator().read().ready == 3
        settled_other = other.scale_to(0, decision_id="d-2")
        assert settled_other.desired == 0
        assert instances.alive() == before

    def test_one_that_died_is_replaced_under_the_same_decision(self, instances: InstanceHarness) -> None:
        actuator = instances.actuator()
        actuator.scale_to(5, decision_id="d-1")
        before = instances.alive()
        instances.vanish(min(before))
        actuator.scale_to(5, decision_id="d-1")
        assert len(instances.alive()) == 5
        assert len(instances.alive() & before) == 4

    def test_what_can_be_had_is_taken(self, instances: InstanceHarness) -> None:
        instances.cloud.most = 1
        actuator = instances.actuator()
        assert actuator.scale_to(5, decision_id="d-1").desired >= 4
        instances.cloud.most = None
        settled(instances, actuator, 5)

    def test_nothing_to_be_had(self, instances: InstanceHarness) -> None:
        instances.cloud.most = 0
        with pytest.raises(CapacityError):
            instances.actuator().scale_to(5, decision_id="d-1")
        assert len(instances.alive()) == 3

    @pytest.mark.parametrize("name", ["", "A", "a b", "1a", "a" * 64])
    def test_names(self, instances: InstanceHarness, name: str) -> None:
        with pytest.raises(InvalidInputError):
            InstanceFleet(provider="aws", region="us-east-1", name=name, gpu="t4")


def test_on_ec2(ec2: AwsHarness, tmp_path: Path) -> None:
    """The whole way: the manager's journal in a folder, EC2 as moto serves it, a launch whose answer is lost."""

    def fleet() -> InstanceFleet:
        manager = GPUResourceManager(state=tmp_path, owner="fleet-a", settings=Settings())
        provider = ec2.provider(image=ec2.image, retries=0)
        return InstanceFleet(provider=provider, gpu="t4", manager=manager, market="on-demand", drain=streams)

    streams = Streams()
    ec2.lose_answer("launch")
    with suppress(ProviderUnavailableError):
        fleet().scale_to(2, decision_id="d-1")
    assert len(ec2.truth()) <= 2
    for _ in range(3):
        fleet().scale_to(2, decision_id="d-1")
    assert len(ec2.truth()) == 2
    streams.all_busy = True
    assert fleet().scale_to(1, decision_id="d-2").draining == 1
    assert len(ec2.truth()) == 2
    streams.all_busy = False
    assert fleet().scale_to(1, decision_id="d-2").ready == 1
    assert len(ec2.truth()) == 1
