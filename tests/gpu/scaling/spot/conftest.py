"""EC2 on moto, found by the environment as on any machine, and a folder for the journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.ec2 import Ec2Proxy
from gpu.providers.aws_harness import AwsHarness


@pytest.fixture
def aws(ec2_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsHarness]:
    with Ec2Proxy(ec2_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", proxy.endpoint_url)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("ENABLE_SPOT_INSTANCES", "true")
        yield AwsHarness(ec2_server, proxy)
