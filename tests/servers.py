"""A real S3 server process for tests, and a proxy in front of it that loses answers on request.

``ministack`` is preferred (it resolves races of conditional puts correctly and checks the body's digests),
``moto`` is the fallback; ``TEXTNLP_FAST_TEST_S3=ministack|moto`` forces one. Both come from PyPI and listen
on loopback only.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.proxy import FaultProxy

_START_TIMEOUT_S = 60.0
_SERVERS = ("ministack", "moto")


@dataclass(frozen=True)
class S3Server:
    """A running server. ``endpoint_url`` is loopback; any credentials are accepted."""

    name: str
    endpoint_url: str

    def make_bucket(self) -> str:
        """A new, empty bucket."""
        bucket = f"test-{uuid.uuid4().hex[:16]}"
        request = urllib.request.Request(f"{self.endpoint_url}/{bucket}", method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        return bucket

    def open_uploads(self, bucket: str) -> int:
        """How many multipart uploads were begun in ``bucket`` and neither completed nor aborted."""
        with urllib.request.urlopen(f"{self.endpoint_url}/{bucket}?uploads", timeout=10) as answer:
            return int(answer.read().count(b"<UploadId>"))


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(name: str, port: int) -> tuple[list[str], dict[str, str]]:
    if name == "ministack":
        return [sys.executable, "-m", "ministack"], {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)}
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], {}


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the S3 server did not come up (exit status {process.poll()}):\n{tail}")


@contextmanager
def run_s3_server(name: str, folder: Path) -> Iterator[S3Server]:
    """Run the named server until the block ends."""
    port = free_port()
    command, variables = _command(name, port)
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_up(process, f"http://127.0.0.1:{port}/", log)
        yield S3Server(name, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for the whole session; tests keep apart by taking a bucket each."""
    wanted = os.environ.get("TEXTNLP_FAST_TEST_S3")
    name = wanted or next((name for name in _SERVERS if importlib.util.find_spec(name)), None)
    if name is None:
        pytest.skip("no S3 server: pip install ministack, or moto[server,s3]")
    if name not in _SERVERS or importlib.util.find_spec(name) is None:
        raise pytest.UsageError(f"TEXTNLP_FAST_TEST_S3={name}: not one of {_SERVERS}, or not installed")
    with run_s3_server(name, tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for the test server, and nothing of the machine's own set-up."""
    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_bucket(s3_server: S3Server, aws_environment: None) -> str:
    """The name of a new bucket on ``s3_server``, with credentials set in the environment."""
    return s3_server.make_bucket()


@pytest.fixture
def fault_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of ``s3_server`` that does no harm until told to."""
    with FaultProxy(s3_server.endpoint_url) as proxy:
        yield proxy
