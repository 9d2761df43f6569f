"""The price lists on loopback, and a place for the refreshed file."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.price_lists import PriceLists
from textnlp_fast.gpu.catalog.catalog import packaged
from textnlp_fast.gpu.catalog.refresh.aws import AwsPrices
from textnlp_fast.gpu.catalog.refresh.azure import AzurePrices
from textnlp_fast.gpu.catalog.refresh.gcp import GcpPrices
from textnlp_fast.gpu.catalog.refresh.http import JsonClient

TODAY = datetime.date(2026, 11, 29)


@pytest.fixture
def lists() -> Iterator[PriceLists]:
    """No proxy stands before loopback, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("no_proxy", "127.0.0.1")
        patched.setenv("AWS_ACCESS_KEY_ID", "test")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with PriceLists() as server:
            yield server


class Sources:
    """Sources of a refresh whose lists are all at `url`; waits are noted, not waited."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.waits: list[float] = []

    def client(self, **more: Any) -> JsonClient:
        return JsonClient("the list", self.url, sleep=self.waits.append, **more)

    def aws_client(self, service: str, region: str) -> Any:
        boto3 = pytest.importorskip("boto3")
        from botocore.config import Config  # noqa: PLC0415

        config = Config(
            connect_timeout=60, read_timeout=120, retries={"mode": "standard", "total_max_attempts": 2}
        )
        session = boto3.session.Session()
        return session.client(service, region_name=region, endpoint_url=self.url, config=config)

    def __call__(self, provider: str, kinds: Any, today: datetime.date) -> Any:
        if provider == "azure":
            return AzurePrices(kinds, today=today, client=self.client())
        if provider == "gcp":
            return GcpPrices(kinds, client=self.client())
        return AwsPrices(kinds, today=today, clients=self.aws_client)


@pytest.fixture
def sources(lists: PriceLists) -> Sources:
    return Sources(lists.url)


@pytest.fixture
def kinds() -> Any:
    return packaged().instance_types


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "gpu-catalog.json"
