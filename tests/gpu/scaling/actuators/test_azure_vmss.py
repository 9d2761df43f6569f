"""Scale sets: the contract, and what only they have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("azure.mgmt.compute", reason="needs azure-mgmt-compute")
pytest.importorskip("azure.mgmt.network", reason="needs azure-mgmt-network")

from fakes.azure_arm.scale_sets import ScaleSet, ScaleSetMachine, VmssFake
from fakes.control_plane import ControlPlaneFault
from gpu.providers.azure_harness import arm_sizes
from gpu.scaling.actuators.contract_cases import ActuatorContract
from gpu.scaling.actuators.harness import Streams, settled
from gpu.scaling.actuators.vmss_harness import VmssHarness
from textnlp_fast.errors import InvalidInputError


@pytest.fixture
def vmss() -> Iterator[VmssHarness]:
    with VmssFake(arm_sizes()) as fake:
        yield VmssHarness(fake)
        assert fake.violations == []


class TestContract(ActuatorContract):
    @pytest.fixture
    def harness(self, vmss: VmssHarness) -> VmssHarness:
        return vmss


class TestScaleSet:
    def test_the_capacity_is_never_lowered(self, vmss: VmssHarness) -> None:
        vmss.actuator(drain=Streams()).scale_to(1, decision_id="d-1")
        assert vmss.fake.asked("PATCH") == []
        assert vmss.told() == 1

    def test_nor_where_azure_has_not_made_all_yet(self, vmss: VmssHarness) -> None:
        vmss.fake.settle_sets = lambda: None  # type: ignore[method-assign]
        vmss.set.capacity = 5
        vmss.actuator(drain=Streams()).scale_to(3, decision_id="d-1")
        assert vmss.fake.asked("PATCH") == []

    def test_somebody_elses_capacity_is_not_overwritten_unseen(self, vmss: VmssHarness) -> None:
        def meanwhile() -> None:
            vmss.set.capacity, vmss.set.version = 9, 77

        # It happens between the look and the change.
        path = "/virtualMachineScaleSets/llm/virtualMachines"
        vmss.fake.inject(
            ControlPlaneFault("garble", method="GET", path=path, message="", meanwhile=meanwhile)
        )
        settled(vmss, vmss.actuator(drain=Streams()), 5)
        assert all("if-match" in one.headers for one in vmss.fake.asked("PATCH"))

    @pytest.mark.parametrize("stage", ["Creating", "Failed"])
    def test_what_is_not_made_is_no_ready_replica(self, vmss: VmssHarness, stage: str) -> None:
        vmss.machine("0").stage = stage
        assert (vmss.actuator().read().ready, vmss.actuator().read().starting) == (2, 1)

    def test_what_azure_makes_above_the_capacity_is_left_to_azure(self, vmss: VmssHarness) -> None:
        vmss.set.machines.append(ScaleSetMachine(90, stage="Creating"))
        vmss.fake.settle_sets = lambda: None  # type: ignore[method-assign]
        vmss.actuator(drain=Streams()).scale_to(3, decision_id="d-1")
        assert vmss.fake.asked("POST", "/delete") == vmss.fake.asked("PUT") == []

    def test_flexible_orchestration_is_refused(self, vmss: VmssHarness) -> None:
        vmss.fake.add(ScaleSet("flex", 1, mode="Flexible"))
        with pytest.raises(InvalidInputError, match="flexible"):
            vmss.actuator(name="flex").read()

    def test_tags_of_others_stay(self, vmss: VmssHarness) -> None:
        for machine in vmss.set.machines:
            machine.tags["team"] = "nlp"
        streams = Streams()
        streams.all_busy = True
        vmss.actuator(drain=streams).scale_to(0, decision_id="d-1")
        assert all(machine.tags["team"] == "nlp" and len(machine.tags) == 2 for machine in vmss.set.machines)
