"""One new bucket on any of the servers, for tests that ask the same of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from faults.proxy import Fault, FaultProxy, Kind
from textnlp_fast.objectstore import ObjectStore, open_store

__all__ = ["SERVERS", "Place", "place"]

SERVERS = ("moto", "ministack", "radosgw", "azurite", "gcs")


@dataclass(frozen=True)
class Place:
    """An empty bucket on a running server; the environment has its credentials.

    ``put`` is the HTTP method that writes an object, ``put_path`` what is in the path of such a request.
    """

    server: str
    bucket: str
    url: str
    endpoint_url: str
    put: str = "PUT"
    put_path: str = ".*"

    def write_fault(self, kind: Kind, **how: Any) -> Fault:
        """A fault of requests that write an object whole, and of no others."""
        return Fault(kind, method=self.put, path=self.put_path, **how)

    def open(self, folder: str = "", *, endpoint_url: str | None = None, **options: Any) -> ObjectStore:
        """The bucket, or a folder of it, directly or through the proxy at ``endpoint_url``."""
        url = f"{self.url}/{folder}" if folder else self.url
        return open_store(url, endpoint_url=endpoint_url or self.endpoint_url, **options)

    @contextmanager
    def through(self) -> Iterator[tuple[FaultProxy, str]]:
        """A proxy in front of the server, and the endpoint that leads through it."""
        host, slash, path = self.endpoint_url.removeprefix("http://").partition("/")
        with FaultProxy(f"http://{host}") as proxy:
            yield proxy, proxy.endpoint_url + slash + path


@pytest.fixture(params=SERVERS)
def place(request: pytest.FixtureRequest) -> Place:
    """A new bucket on each of the servers, one after another; a server that is missing skips."""
    name = request.param
    if name == "azurite":
        server = request.getfixturevalue("azure_server")
        container = request.getfixturevalue("azure_container")
        return Place(name, container, f"az://{container}", server.endpoint_url)
    if name == "gcs":
        fake = request.getfixturevalue("gcs_fake")
        bucket = request.getfixturevalue("gcs_bucket")
        return Place(name, bucket, f"gs://{bucket}", fake.endpoint_url, "POST", "/upload/")
    server = request.getfixturevalue(name)
    request.getfixturevalue("aws_environment")
    bucket = server.make_bucket()
    return Place(name, bucket, f"s3://{bucket}", server.endpoint_url)
