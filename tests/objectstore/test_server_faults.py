"""Reads and uploads through a bad network, on a server of each provider: nothing is lost, nothing waits for ever."""

from __future__ import annotations

import os

import pytest

from faults.proxy import Fault, FaultProxy
from objectstore.racing import run_together
from servers import Place
from textnlp_fast.errors import (
    AuthenticationError,
    InvalidInputError,
    StorageUnavailableError,
)
from textnlp_fast.objectstore import ObjectStore, open_store

pytestmark = pytest.mark.parametrize("place", ["ministack", "azurite", "gcs"], indirect=True)

LOSSES = ["lose_answer", "lose_request", "status", "status_after"]


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (kind, what)
        for kind in [*LOSSES, "cut_body", "delay"]
        for what in ["get", "get_range", "list", "head"]
        if (kind, what) not in {("cut_body", "head"), ("delay", "head"), ("delay", "get_range")}
    ],
)
def test_reads_are_tried_again(
    place: Place, faults: tuple[FaultProxy, str], direct: ObjectStore, kind: str, what: str
) -> None:
    data = os.urandom(200_000)
    direct.put_object("a/b", data)
    slow = kind == "delay"
    store = place.open(endpoint_url=faults[1], retries=5 if slow else 3, timeout_s=1 if slow else 20)
    fault = faults[0].inject(Fault(kind, seconds=1.5))  # type: ignore[arg-type]
    if what == "get":
        assert store.get("a/b") == data
    elif what == "get_range":
        assert bytes(store.get_range("a/b", 1000, 150_000)) == data[1000:151_000]
    elif what == "list":
        assert [meta.key for meta in store.list("a")] == ["a/b"]
    else:
        assert store.head("a/b").size == len(data)
    assert fault.hits == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy, code: int
) -> None:
    direct.put_object("a", b"x")
    proxy.inject(Fault("status", times=2, code=code))
    assert store.get("a") == b"x"
    proxy.inject(Fault("status", times=2, code=code))
    store.put_object("b", b"y")
    assert direct.get("b") == b"y"
    proxy.inject(Fault("status", times=2, code=code))
    store.create("c", b"z")
    assert direct.get("c") == b"z"


@pytest.mark.parametrize("kind", LOSSES)
def test_large_uploads_survive_losses(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy, kind: str
) -> None:
    data = os.urandom(20 << 20)
    fault = proxy.inject(Fault(kind, method="PUT", after=1))  # type: ignore[arg-type]
    store.put_object("large", data)
    assert fault.hits == 1
    assert direct.get("large") == data


def test_a_large_upload_that_fails_shows_nothing(
    place: Place, store: ObjectStore, direct: ObjectStore, proxy: FaultProxy, request: pytest.FixtureRequest
) -> None:
    proxy.inject(Fault("status", method="PUT", after=1, times=1000))
    with pytest.raises(StorageUnavailableError, match="large"):
        store.put_object("large", os.urandom(20 << 20))
    assert list(direct.list()) == []
    assert not direct.exists("large")
    if place.server == "ministack":  # the others drop what is unfinished after a week, and show it to nobody
        assert request.getfixturevalue("ministack").open_uploads(place.bucket) == 0


def test_a_listing_that_breaks_off_goes_on(
    place: Place, store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    # Of azurite's pages, which hold 5000 keys, the first one breaks off.
    count, page = {"ministack": (1500, 1), "azurite": (50, 0), "gcs": (230, 1)}[place.server]
    keys = [f"many/{index:04d}" for index in range(count)]
    run_together(8, lambda thread: [direct.put_object(key, b"") for key in keys[thread::8]])
    broken = proxy.inject(Fault("cut_body", after=page, times=2))
    assert [meta.key for meta in store.list("many")] == keys
    assert broken.hits == 2


def test_silence_ends_after_the_timeout(
    place: Place, proxy: FaultProxy, faults: tuple[FaultProxy, str]
) -> None:
    store = place.open(endpoint_url=faults[1], retries=1, timeout_s=0.3)
    proxy.inject(Fault("delay", seconds=60, times=1000))
    for call in (
        lambda: store.get("a"),
        lambda: list(store.list()),
        lambda: store.create("c", b"x"),
    ):
        with pytest.raises(StorageUnavailableError):
            call()


def test_nobody_listens(place: Place) -> None:
    store = place.open(endpoint_url="http://127.0.0.1:1", retries=1, timeout_s=2)
    with pytest.raises(StorageUnavailableError) as caught:
        store.get("a")
    assert "Debug source" not in str(caught.value)


@pytest.mark.parametrize("code", [401, 403])
def test_refused_credentials_are_named(store: ObjectStore, proxy: FaultProxy, code: int) -> None:
    proxy.inject(Fault("status", times=1000, code=code))
    for call in (
        lambda: store.get("a"),
        lambda: store.get_range("a", 0, 1),
        lambda: store.put_object("a", b"x"),
        lambda: store.create("a", b"x"),
        lambda: store.exists("a"),
        lambda: list(store.list()),
        lambda: store.delete("a"),
    ):
        with pytest.raises(AuthenticationError):
            call()


def test_a_missing_bucket_is_named(place: Place) -> None:
    store = open_store(place.url[:5] + "no-such-bucket-here", endpoint_url=place.endpoint_url, retries=1)
    for call in (
        lambda: store.get("a"),
        lambda: store.put_object("a", b"x"),
        lambda: store.create("a", b"x"),
        lambda: list(store.list()),
    ):
        with pytest.raises(InvalidInputError, match="no such bucket"):
            call()
