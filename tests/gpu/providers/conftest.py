"""Clouds for the tests of providers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fakes.ec2 import Ec2Proxy
from gpu.providers.aws_harness import AwsFleetHarness, AwsHarness


@pytest.fixture
def aws(ec2_server: str) -> Iterator[AwsHarness]:
    with Ec2Proxy(ec2_server) as proxy:
        yield AwsHarness(ec2_server, proxy)


@pytest.fixture
def aws_fleet(ec2_server: str) -> Iterator[AwsFleetHarness]:
    with Ec2Proxy(ec2_server) as proxy:
        yield AwsFleetHarness(ec2_server, proxy)


@pytest.fixture
def gcp() -> Iterator[Any]:
    pytest.importorskip("google.cloud.compute_v1", reason="needs google-cloud-compute")
    pytest.importorskip(
        "googleapiclient", reason="needs google-api-python-client, for the discovery document"
    )
    from fakes.gce import GceFake  # noqa: PLC0415
    from gpu.providers.gcp_harness import GcpHarness, gce_regions  # noqa: PLC0415

    with GceFake(gce_regions()) as fake:
        yield GcpHarness(fake)
        assert fake.violations == []


@pytest.fixture
def azure() -> Iterator[Any]:
    pytest.importorskip("azure.mgmt.compute", reason="needs azure-mgmt-compute")
    pytest.importorskip("azure.mgmt.network", reason="needs azure-mgmt-network")
    from fakes.azure_arm import ArmFake  # noqa: PLC0415
    from gpu.providers.azure_harness import AzureHarness, arm_sizes  # noqa: PLC0415

    with ArmFake(arm_sizes()) as fake:
        yield AzureHarness(fake)
        assert fake.violations == []
