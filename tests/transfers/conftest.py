"""Every place that files are moved to and from."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers import S3Server
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.objectstore.transfers import TransferSettings

BUCKETS = ("s3", "radosgw", "azure", "gcs")
PLACES = ("folder", "memory", "s3", "azure", "gcs")
PART_BYTES = {"folder": 128 << 10, "memory": 128 << 10, "s3": 5 << 20, "radosgw": 5 << 20}


@dataclass(frozen=True)
class Place:
    """A store, and the size its parts have here: as small as the provider lets them be."""

    kind: str
    store: ObjectStore
    part_bytes: int


def new_bucket(kind: str, request: pytest.FixtureRequest) -> tuple[str, str]:
    """The URL of a new bucket and the endpoint of its server; the environment has its credentials."""
    fixture = request.getfixturevalue
    if kind == "azure":
        return f"az://{fixture('azure_container')}", fixture("azure_server").endpoint_url
    if kind == "gcs":
        return f"gs://{fixture('gcs_bucket')}", fixture("gcs_fake").endpoint_url
    pytest.importorskip("boto3")
    fixture("aws_environment")
    server: S3Server = fixture("radosgw" if kind == "radosgw" else "s3_server")
    return f"s3://{server.make_bucket()}", server.endpoint_url


def _open(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    part_bytes = PART_BYTES.get(kind, 256 << 10)
    if kind == "folder":
        return Place(kind, open_store(tmp_path / "store"), part_bytes)
    if kind == "memory":
        return Place(kind, open_store(f"memory://{tmp_path}"), part_bytes)
    url, endpoint = new_bucket(kind, request)
    return Place(kind, open_store(f"{url}/deep/in", endpoint_url=endpoint), part_bytes)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each place in turn."""
    return _open(request.param, request, tmp_path)


@pytest.fixture(params=BUCKETS)
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each provider's bucket in turn."""
    return _open(request.param, request, tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., TransferSettings]:
    """Settings whose journals stay in the test's folder."""

    def make(**changes: Any) -> TransferSettings:
        return TransferSettings(**{"state_folder": tmp_path / "state", "retries": 3, **changes})

    return make


@pytest.fixture
def model(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a file of so many bytes."""

    def make(size: int) -> Path:
        path = tmp_path / f"model-{size}.bin"
        path.write_bytes(random.Random(size).randbytes(size))
        return path

    return make
