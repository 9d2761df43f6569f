"""The fleet that never changes."""

from __future__ import annotations

import pytest

from gpu.scaling.policy_cases import PolicyCases, observed
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals import rival
from textnlp_fast.gpu.scaling.rivals.static_peak import StaticPeak


class TestCases(PolicyCases):
    def make(self) -> Policy:
        return rival(
            "static_peak",
            target_utilisation=0.5,
            capacity=ReplicaCapacity(),
            min_instances=self.min_instances,
            max_instances=self.max_instances,
            cold_start=ColdStart(),
            period_s=10.0,
        )


@pytest.mark.parametrize(("share", "wanted"), [(1.0, 10), (0.7, 7), (0.1, 1), (0.05, 1), (0.55, 6), (0.3, 3)])
def test_a_share_of_the_most(share: float, wanted: int) -> None:
    policy = StaticPeak(target_utilisation=share, max_instances=10)
    for step in range(5):
        assert policy.decide(observed(10.0 * step, ready=step, in_flight=100.0 * step)).target == wanted


def test_a_number() -> None:
    assert StaticPeak(instances=7, max_instances=10).decide(observed(0.0, ready=1)).target == 7
    with pytest.raises(InvalidInputError, match="instances 11"):
        StaticPeak(instances=11, max_instances=10)
