"""Auto Scaling groups: the contract, and what only they have."""

from __future__ import annotations

import pytest

from gpu.scaling.actuators.aws_harness import AsgHarness
from gpu.scaling.actuators.contract_cases import ActuatorContract
from gpu.scaling.actuators.harness import Streams
from textnlp_fast.errors import AuthenticationError, InvalidInputError


class TestContract(ActuatorContract):
    @pytest.fixture
    def harness(self, aws_asg: AsgHarness) -> AsgHarness:
        return aws_asg


class TestGroup:
    def test_all_that_serve_are_protected_from_the_group_itself(self, aws_asg: AsgHarness) -> None:
        late = min(aws_asg.alive())
        aws_asg.hold_back(late)
        aws_asg.actuator().scale_to(3, decision_id="d-1")
        shown = {one["InstanceId"]: one["ProtectedFromScaleIn"] for one in aws_asg.described()["Instances"]}
        assert shown == {one: one != late for one in shown}

    def test_a_lower_number_by_hand_ends_nobody_who_streams(self, aws_asg: AsgHarness) -> None:
        actuator, before = aws_asg.actuator(drain=lambda _one, _within_s: False), aws_asg.alive()
        actuator.scale_to(3, decision_id="d-1")
        aws_asg.asg.set_desired_capacity(AutoScalingGroupName=aws_asg.group, DesiredCapacity=1)
        assert aws_asg.alive() == before
        # The places of those that drain are the group's until they are empty: it must not end others for them.
        state = actuator.scale_to(1, decision_id="d-2")
        assert (state.desired, state.ready, state.draining) == (1, 1, 2)
        assert (aws_asg.alive(), aws_asg.told()) == (before, 3)

    @pytest.mark.parametrize("shrink", [True, False])
    def test_a_lost_answer_takes_one_place(self, aws_asg: AsgHarness, shrink: bool) -> None:
        aws_asg.lose_answer("end")
        if not shrink:
            aws_asg.set_bounds(3, 3)
        aws_asg.actuator(drain=lambda _one, _within_s: True).scale_to(2, decision_id="d-1")
        assert (aws_asg.told(), len(aws_asg.alive())) == ((2, 2) if shrink else (3, 3))

    def test_ordered_and_never_come(self, aws_asg: AsgHarness) -> None:
        # moto has no shortage: two of five are in no state that counts, as if they were never launched.
        aws_asg.actuator().scale_to(5, decision_id="d-1")
        for one in sorted(aws_asg.alive())[:2]:
            aws_asg.proxy.lifecycles[one] = "Detached"
        aws_asg.actuator().scale_to(3, decision_id="d-2")
        assert aws_asg.told() == 3

    @pytest.mark.parametrize("state", ["Standby", "Detaching", "Detached", "Warmed:Stopped"])
    def test_what_is_put_aside_is_no_replica(self, aws_asg: AsgHarness, state: str) -> None:
        one = min(aws_asg.alive())
        aws_asg.proxy.lifecycles[one] = state
        assert one not in {replica.replica_id for replica in aws_asg.actuator().read().replicas}

    @pytest.mark.parametrize("state", ["Terminating", "Terminating:Wait", "Terminating:Proceed"])
    def test_what_the_group_ends_is_draining_and_is_not_ended_again(
        self, aws_asg: AsgHarness, state: str
    ) -> None:
        one = min(aws_asg.alive())
        aws_asg.proxy.lifecycles[one] = state
        actuator = aws_asg.actuator(drain=lambda _one, _within_s: True)
        seen = actuator.read()
        assert (seen.ready, seen.draining) == (2, 1)
        actuator.scale_to(2, decision_id="d-1")
        assert "TerminateInstanceInAutoScalingGroup" not in {
            form.get("Action") for form in aws_asg.proxy.calls
        }

    def test_weights_are_refused(self, aws_asg: AsgHarness) -> None:
        template = {"LaunchTemplateSpecification": {"LaunchTemplateName": "llm"}}
        overrides = [{"InstanceType": "g5.xlarge", "WeightedCapacity": "2"}]
        aws_asg.asg.create_auto_scaling_group(
            AutoScalingGroupName="weighted",
            MixedInstancesPolicy={"LaunchTemplate": {**template, "Overrides": overrides}},
            MinSize=0,
            MaxSize=4,
            AvailabilityZones=["us-east-1a"],
        )
        with pytest.raises(InvalidInputError, match="weights"):
            aws_asg.actuator(name="weighted").read()

    def test_no_credentials(self, aws_asg: AsgHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(AuthenticationError, match="no AWS credentials"):
            aws_asg.actuator().read()

    def test_tags_that_are_seen_late(self, aws_asg: AsgHarness) -> None:
        aws_asg.proxy.hide_tags = 1
        streams = Streams()
        aws_asg.actuator(drain=streams).scale_to(1, decision_id="d-1")
        assert len(streams.asked) == 2
        assert (aws_asg.told(), len(aws_asg.alive())) == (1, 1)

    def test_at_its_most_a_place_that_is_wanted_again_is_filled_and_not_given_up(
        self, aws_asg: AsgHarness
    ) -> None:
        aws_asg.set_bounds(0, 3)
        streams = Streams()
        streams.all_busy = True
        actuator = aws_asg.actuator(drain=streams)
        actuator.scale_to(1, decision_id="d-1")
        streams.all_busy = False
        actuator.scale_to(3, decision_id="d-2")
        assert (aws_asg.told(), len(aws_asg.alive())) == (3, 3)
        assert not aws_asg.alive() & set(streams.asked)
