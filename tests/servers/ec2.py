"""moto as EC2, one process for each worker of a run: tests count all instances that there are."""

from __future__ import annotations

import importlib.util
import os
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from servers.process import shared_process

__all__ = ["ec2_server", "forget_all", "moto_ec2_url"]


@pytest.fixture(scope="session")
def moto_ec2_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a moto that refuses instance types and images that do not exist."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("boto3") is None:
        pytest.skip("no moto: pip install 'moto[ec2]' flask flask-cors boto3")

    def command(port: int, folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        strict = {
            "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
            "MOTO_ENABLE_AMI_VALIDATION": "true",
        }
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], strict

    worker = os.environ.get("PYTEST_XDIST_WORKER", "all")
    with shared_process(f"moto-ec2-{worker}", tmp_path_factory, command) as url:
        yield url


def forget_all(moto_url: str) -> None:
    """What has ended, moto lists for good: each look at it costs more than the one before."""
    request = urllib.request.Request(f"{moto_url}/moto-api/reset", method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


@pytest.fixture
def ec2_server(moto_ec2_url: str, aws_environment: None) -> str:
    """The same, empty, with credentials for it in the environment."""
    forget_all(moto_ec2_url)
    return moto_ec2_url
