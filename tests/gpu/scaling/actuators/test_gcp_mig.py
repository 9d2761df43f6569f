"""Managed instance groups: the contract in a zone and over a region, and what only they have."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

pytest.importorskip("google.cloud.compute_v1", reason="needs google-cloud-compute")
pytest.importorskip("googleapiclient", reason="needs google-api-python-client, for the discovery document")

from fakes.gce.groups import MigFake
from gpu.scaling.actuators.contract_cases import ActuatorContract
from gpu.scaling.actuators.harness import Streams
from gpu.scaling.actuators.mig_harness import RegionalHarness, ZonalHarness, mig_regions
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.actuators.contract import Replica
from textnlp_fast.gpu.scaling.actuators.gcp_mig import GcpInstanceGroup


@pytest.fixture
def fake() -> Iterator[MigFake]:
    with MigFake(mig_regions()) as server:
        yield server
        assert server.violations == []


class TestZonal(ActuatorContract):
    @pytest.fixture
    def harness(self, fake: MigFake) -> ZonalHarness:
        return ZonalHarness(fake)


class TestRegional(ActuatorContract):
    @pytest.fixture
    def harness(self, fake: MigFake) -> RegionalHarness:
        return RegionalHarness(fake)


class TestGroup:
    def test_the_target_size_is_never_lowered(self, fake: MigFake) -> None:
        harness = ZonalHarness(fake)
        harness.actuator(drain=Streams()).scale_to(1, decision_id="d-1")
        assert fake.asked("POST", "/resize") == []
        assert harness.told() == 1

    def test_the_same_end_twice_takes_one_place(self, fake: MigFake) -> None:
        harness = ZonalHarness(fake)
        harness.lose_answer("end")
        harness.actuator(drain=Streams()).scale_to(2, decision_id="d-1")
        ids = {one.query["requestId"] for one in fake.asked("POST", "/deleteInstances")}
        assert (harness.told(), len(ids), len(fake.asked("POST", "/deleteInstances"))) == (2, 1, 2)

    def test_one_that_somebody_else_ends_meanwhile_takes_one_place(self, fake: MigFake) -> None:
        harness = ZonalHarness(fake)

        def drain(replica: Replica, _within_s: float) -> bool:
            (one,) = [
                one for one in harness.group.members if one.name == replica.replica_id.partition("/")[2]
            ]
            if not one.ending:
                harness.group.target -= 1
                fake._take_away(one)
            return True

        harness.actuator(drain=drain).scale_to(2, decision_id="d-1")
        assert (harness.told(), len(harness.alive())) == (2, 2)

    def test_machines_of_others_in_the_zone_are_no_replicas(self, fake: MigFake) -> None:
        from fakes.gce.groups import Group  # noqa: PLC0415

        harness = ZonalHarness(fake)
        fake.add(Group("llm-2", harness.scope, list(harness.zones), 2))
        assert harness.actuator().read().ready == 3

    def test_another_autoscaler_is_warned_of(self, fake: MigFake, caplog: pytest.LogCaptureFixture) -> None:
        harness = ZonalHarness(fake)
        harness.group.autoscaler = "theirs"
        with caplog.at_level(logging.WARNING):
            harness.actuator().read()
        assert "autoscaler" in caplog.text

    @pytest.mark.parametrize(
        ("place", "name"), [("", "llm"), ("us", "llm"), ("us-central1-a", "A"), ("a/b", "llm")]
    )
    def test_what_names_no_group(self, place: str, name: str) -> None:
        with pytest.raises(InvalidInputError):
            GcpInstanceGroup(project="p", place=place, name=name)
