"""Every place that files are moved to and from."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.objectstore.transfers import TransferSettings

BUCKETS = ("s3", "azure", "gcs")
PLACES = ("folder", "memory", *BUCKETS)


@dataclass(frozen=True)
class Place:
    """A store, and the size its parts have here: as small as the provider lets them be."""

    kind: str
    store: ObjectStore
    part_bytes: int


def _open(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if kind == "folder":
        return Place(kind, open_store(tmp_path / "store"), 128 << 10)
    if kind == "memory":
        return Place(kind, open_store(f"memory://{tmp_path}"), 128 << 10)
    if kind == "s3":
        pytest.importorskip("boto3")
        bucket = request.getfixturevalue("s3_bucket")
        endpoint = request.getfixturevalue("s3_server").endpoint_url
        return Place(kind, open_store(f"s3://{bucket}/deep/in", endpoint_url=endpoint), 5 << 20)
    if kind == "azure":
        container = request.getfixturevalue("azure_container")
        endpoint = request.getfixturevalue("azure_server").endpoint_url
        return Place(kind, open_store(f"az://{container}/deep/in", endpoint_url=endpoint), 256 << 10)
    return Place(kind, open_store(f"gs://{request.getfixturevalue('gcs_bucket')}/deep/in"), 256 << 10)


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
