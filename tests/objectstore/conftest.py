"""A new bucket on a server, with a proxy before it that does harm on request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.proxy import FaultProxy
from servers import Place
from textnlp_fast.objectstore import ObjectStore


@pytest.fixture
def direct(place: Place) -> ObjectStore:
    """The same bucket, not through the proxy."""
    return place.open()


@pytest.fixture
def faults(place: Place) -> Iterator[tuple[FaultProxy, str]]:
    with place.through() as found:
        yield found


@pytest.fixture
def proxy(faults: tuple[FaultProxy, str]) -> FaultProxy:
    """In front of the server; it does no harm until told to."""
    return faults[0]


@pytest.fixture
def store(place: Place, faults: tuple[FaultProxy, str]) -> ObjectStore:
    return place.open(endpoint_url=faults[1], retries=3, timeout_s=20)
