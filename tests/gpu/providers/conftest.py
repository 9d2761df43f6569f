"""Clouds for the tests of providers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.ec2 import Ec2Proxy
from gpu.providers.aws_harness import AwsHarness


@pytest.fixture
def aws(ec2_server: str) -> Iterator[AwsHarness]:
    with Ec2Proxy(ec2_server) as proxy:
        yield AwsHarness(ec2_server, proxy)
