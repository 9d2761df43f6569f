"""Real servers that speak S3: moto, ministack, radosgw.

``ministack`` is preferred where one is enough (it resolves races of conditional puts correctly and checks the body's
digests), ``moto`` is the fallback; ``TEXTNLP_FAST_TEST_S3=ministack|moto`` forces one. Both come from PyPI.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faults.proxy import FaultProxy
from free_ports import free_port
from servers import ceph
from servers.process import shared_process

__all__ = [
    "S3Server",
    "aws_environment",
    "fault_proxy",
    "ministack",
    "moto",
    "radosgw",
    "s3_bucket",
    "s3_server",
]

_SERVERS = ("ministack", "moto")


@dataclass(frozen=True)
class S3Server:
    """A running server. ``endpoint_url`` is loopback; key and secret are "test" (moto and ministack take any)."""

    name: str
    endpoint_url: str

    def make_bucket(self) -> str:
        """A new, empty bucket."""
        bucket = f"test-{uuid.uuid4().hex[:16]}"
        if self.name == "radosgw":  # which takes signed requests only
            self.client().create_bucket(Bucket=bucket)
            return bucket
        request = urllib.request.Request(f"{self.endpoint_url}/{bucket}", method="PUT")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
        return bucket

    def client(self) -> Any:
        """Amazon's own client."""
        boto3 = pytest.importorskip("boto3", reason="needs boto3")
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def open_uploads(self, bucket: str) -> int:
        """How many multipart uploads were begun in ``bucket`` and neither completed nor aborted."""
        if self.name == "radosgw":
            return len(self.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []))
        with urllib.request.urlopen(f"{self.endpoint_url}/{bucket}?uploads", timeout=60) as answer:
            return int(answer.read().count(b"<UploadId>"))


def start_s3(name: str, factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Run the named server as long as the generator is not closed, or skip where it is not installed."""
    if name == "radosgw":
        if ceph.root() is None:
            pytest.skip("no radosgw: apt-get install radosgw ceph-mon ceph-osd")
        if importlib.util.find_spec("boto3") is None:
            pytest.skip("buckets of radosgw are made with Amazon's client: pip install boto3")
    elif importlib.util.find_spec(name) is None:
        pytest.skip(f"no {name}: pip install ministack 'moto[s3]' flask flask-cors")

    def command(port: int, folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        if name == "radosgw":
            ports = [str(each) for each in (port, free_port(), free_port())]
            return [sys.executable, str(Path(ceph.__file__)), str(folder), *ports], {}
        if name == "ministack":
            return [sys.executable, "-m", "ministack"], {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)}
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], {}

    with shared_process(name, factory, command) as url:
        yield S3Server(name, url)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    yield from start_s3("moto", tmp_path_factory)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    yield from start_s3("ministack", tmp_path_factory)


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    yield from start_s3("radosgw", tmp_path_factory)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for the whole run; tests keep apart by taking a bucket each."""
    wanted = os.environ.get("TEXTNLP_FAST_TEST_S3")
    name = wanted or next((name for name in _SERVERS if importlib.util.find_spec(name)), None)
    if name is None:
        pytest.skip("no S3 server: pip install ministack, or 'moto[s3]' flask flask-cors")
    if name not in _SERVERS or importlib.util.find_spec(name) is None:
        raise pytest.UsageError(f"TEXTNLP_FAST_TEST_S3={name}: not one of {_SERVERS}, or not installed")
    yield from start_s3(name, tmp_path_factory)


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for the test server, and nothing of the machine's own set-up."""
    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # boto3's own session keeps the credentials that it found first: another test's, perhaps.
    boto3 = sys.modules.get("boto3")
    known = getattr(boto3, "DEFAULT_SESSION", None)
    if known is not None and getattr(known.get_credentials(), "access_key", None) != "test":
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def s3_bucket(s3_server: S3Server, aws_environment: None) -> str:
    """The name of a new bucket on ``s3_server``, with credentials set in the environment."""
    return s3_server.make_bucket()


@pytest.fixture
def fault_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of ``s3_server`` that does no harm until told to."""
    with FaultProxy(s3_server.endpoint_url) as proxy:
        yield proxy
