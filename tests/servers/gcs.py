"""Google Cloud Storage as the tests have it: the fake of ``fakes.gcs``, driven by Google's own client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fakes.gcs import GcsFake

__all__ = ["gcs_bucket", "gcs_environment", "gcs_fake"]


@pytest.fixture(scope="session")
def _gcs_session() -> Iterator[GcsFake]:
    pytest.importorskip("google.cloud.storage", reason="no Google client: pip install google-cloud-storage")
    from fakes.gcs import GcsFake  # noqa: PLC0415  needs Google's CRC32C

    with GcsFake() as fake:
        yield fake


@pytest.fixture
def gcs_fake(_gcs_session: GcsFake) -> Iterator[GcsFake]:
    """The fake, on loopback and without faults; tests keep apart by taking a bucket each."""
    yield _gcs_session
    _gcs_session.heal()
    _gcs_session.exchanges.clear()


@pytest.fixture
def gcs_environment(monkeypatch: pytest.MonkeyPatch, gcs_fake: GcsFake) -> None:
    """The fake in the environment, without credentials, and nothing of the machine's own set-up."""
    for name in [
        name for name in os.environ if name.startswith(("GOOGLE_", "GCLOUD_", "CLOUDSDK_", "STORAGE_"))
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_fake.endpoint_url)


@pytest.fixture
def gcs_bucket(gcs_fake: GcsFake, gcs_environment: None) -> str:
    """The name of a new bucket of ``gcs_fake``, which the environment names."""
    return gcs_fake.make_bucket()
