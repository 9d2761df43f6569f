"""Fleets for the tests of actuators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpu.scaling.actuators.aws_harness import AsgHarness, AsgProxy


@pytest.fixture
def aws_asg(ec2_server: str) -> Iterator[AsgHarness]:
    with AsgProxy(ec2_server) as proxy:
        yield AsgHarness(ec2_server, proxy)
