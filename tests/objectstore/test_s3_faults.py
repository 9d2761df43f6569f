"""S3 through a bad network: nothing is lost, nothing is doubled, nothing waits for ever."""

from __future__ import annotations

import json
import os
import time
import uuid

import pytest

from faults.proxy import Fault, FaultProxy
from objectstore.contract import run_together
from servers import S3Server
from textnlp_fast.errors import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    ObjectExistsError,
    StorageUnavailableError,
)
from textnlp_fast.objectstore import ObjectStore, open_store

LOSSES = ["lose_answer", "lose_request", "status", "status_after"]


@pytest.fixture
def direct(s3_server: S3Server, s3_bucket: str) -> ObjectStore:
    """The same bucket, not through the proxy."""
    return open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url)


@pytest.fixture
def store(fault_proxy: FaultProxy, s3_bucket: str) -> ObjectStore:
    return open_store(f"s3://{s3_bucket}", endpoint_url=fault_proxy.endpoint_url, retries=3, timeout_s=1)


# --- conditional writes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOSSES)
def test_create_survives_a_loss(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy, kind: str
) -> None:
    fault = fault_proxy.inject(Fault(kind, method="PUT"))  # type: ignore[arg-type]
    store.create("m/1.json", b"write id 1")
    assert fault.hits == 1
    assert direct.get("m/1.json") == b"write id 1"


def test_a_lost_answer_is_found_by_reading_back_not_by_writing_again(
    store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    fault_proxy.inject(Fault("lose_answer", method="PUT"))
    store.create("m/1.json", b"write id 1")
    assert [method for method, _ in fault_proxy.requests] == ["PUT", "GET"]


@pytest.mark.parametrize("kind", LOSSES)
def test_create_after_a_loss_still_sees_the_other_writer(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy, kind: str
) -> None:
    direct.create("m/1.json", b"theirs")
    fault_proxy.inject(Fault(kind, method="PUT"))  # type: ignore[arg-type]
    with pytest.raises(ObjectExistsError) as caught:
        store.create("m/1.json", b"ours")
    assert caught.value.existing == b"theirs"
    assert direct.get("m/1.json") == b"theirs"


@pytest.mark.parametrize("kind", LOSSES)
def test_swap_survives_a_loss(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy, kind: str
) -> None:
    first = store.compare_and_swap("refs", b"one", None)
    fault = fault_proxy.inject(Fault(kind, method="PUT"))  # type: ignore[arg-type]
    second = store.compare_and_swap("refs", b"two", first)
    assert fault.hits == 1
    assert direct.get_versioned("refs") == (b"two", second)


def test_a_swap_overtaken_before_its_answer_came_says_so(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy
) -> None:
    first = store.compare_and_swap("refs", b"one", None)

    def overtake() -> None:
        content, version = direct.get_versioned("refs")
        direct.compare_and_swap("refs", content + b", three", version)

    fault_proxy.inject(Fault("lose_answer", method="PUT", meanwhile=overtake))
    with pytest.raises(ConflictError) as caught:
        store.compare_and_swap("refs", b"two", first)
    assert caught.value.may_have_applied
    assert direct.get("refs") == b"two, three"


def test_a_swap_that_lost_for_certain_says_so_too(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy
) -> None:
    first = store.compare_and_swap("refs", b"one", None)
    direct.compare_and_swap("refs", b"two", first)
    with pytest.raises(ConflictError) as caught:
        store.compare_and_swap("refs", b"three", first)
    assert not caught.value.may_have_applied


@pytest.mark.parametrize("code", [409, 412])
def test_a_refusal_without_another_writer_is_not_believed(
    store: ObjectStore, fault_proxy: FaultProxy, code: int
) -> None:
    fault_proxy.inject(Fault("status", method="PUT", code=code))
    first = store.compare_and_swap("refs", b"one", None)
    fault_proxy.inject(Fault("status", method="PUT", code=code))
    second = store.compare_and_swap("refs", b"two", first)
    assert store.get_versioned("refs") == (b"two", second)


@pytest.mark.parametrize(("after", "complaint"), [(1, "that exist already"), (3, "that have changed")])
def test_a_server_that_ignores_conditions_is_refused(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy, after: int, complaint: str
) -> None:
    fault_proxy.inject(Fault("ignore_conditions", method="PUT", after=after))
    with pytest.raises(InvalidInputError, match=complaint):
        store.check_conditional_writes("probe")
    assert not direct.exists("probe")


def test_create_gives_up_when_no_answer_ever_comes(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy
) -> None:
    fault_proxy.inject(Fault("lose_request", method="PUT", times=1000))
    with pytest.raises(StorageUnavailableError, match=r"m/1\.json"):
        store.create("m/1.json", b"x")
    assert fault_proxy.count("PUT") == 4  # one try and three more
    assert not direct.exists("m/1.json")


def test_racing_creators_on_a_bad_network(store: ObjectStore, fault_proxy: FaultProxy) -> None:
    for offset, kind in enumerate(LOSSES):
        fault_proxy.inject(Fault(kind, method="PUT", after=offset * 2, times=2))  # type: ignore[arg-type]
    winners: list[bytes] = []

    def race(thread: int) -> None:
        data = b"thread %d" % thread
        try:
            store.create("race", data)
        except ObjectExistsError as conflict:
            assert conflict.existing != data
        else:
            winners.append(data)

    run_together(16, race)
    assert winners == [store.get("race")]


def increment_by_history(store: ObjectStore, key: str) -> None:
    """Add one to a counter that remembers its write ids: the way to count once when an answer may be lost."""
    write_id = uuid.uuid4().hex
    while True:
        content, version = store.get_versioned(key)
        state = json.loads(content)
        if write_id in state["writes"]:
            return
        new = {"count": state["count"] + 1, "writes": [*state["writes"], write_id]}
        try:
            store.compare_and_swap(key, json.dumps(new).encode(), version)
            return
        except ConflictError:
            continue


def test_no_increment_is_lost_or_doubled_on_a_bad_network(
    store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    store.create("counter", b'{"count": 0, "writes": []}')
    faults = [
        fault_proxy.inject(Fault(kind, method="PUT", after=2 * offset))  # type: ignore[arg-type]
        for offset, kind in enumerate(LOSSES * 3)
    ]
    run_together(4, lambda _: [increment_by_history(store, "counter") for _ in range(4)])
    state = json.loads(store.get("counter"))
    assert state["count"] == len(set(state["writes"])) == 16
    assert sum(fault.hits for fault in faults) >= len(faults) // 2


# --- the rest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (kind, what)
        for kind in [*LOSSES, "cut_body", "delay"]
        for what in ["get", "get_range", "list", "head"]
        if (kind, what) != ("cut_body", "head")  # which has no body
    ],
)
def test_reads_are_tried_again(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy, kind: str, what: str
) -> None:
    data = os.urandom(200_000)
    direct.put_object("a/b", data)
    fault = fault_proxy.inject(Fault(kind, seconds=1.5))  # type: ignore[arg-type]
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
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy, code: int
) -> None:
    direct.put_object("a", b"x")
    fault_proxy.inject(Fault("status", times=2, code=code))
    assert store.get("a") == b"x"
    fault_proxy.inject(Fault("status", times=2, code=code))
    store.put_object("b", b"y")
    assert direct.get("b") == b"y"
    fault_proxy.inject(Fault("status", times=2, code=code))
    store.create("c", b"z")
    assert direct.get("c") == b"z"


@pytest.mark.parametrize("kind", LOSSES)
def test_large_uploads_survive_losses(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy, kind: str
) -> None:
    data = os.urandom(20 << 20)
    fault = fault_proxy.inject(Fault(kind, method="PUT", after=1))  # type: ignore[arg-type]
    store.put_object("large", data)
    assert fault.hits == 1
    assert direct.get("large") == data


def test_a_large_upload_that_fails_leaves_nothing(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy, s3_server: S3Server, s3_bucket: str
) -> None:
    fault_proxy.inject(Fault("status", method="PUT", after=1, times=1000))
    with pytest.raises(StorageUnavailableError, match="large"):
        store.put_object("large", os.urandom(20 << 20))
    assert list(direct.list()) == []
    assert s3_server.open_uploads(s3_bucket) == 0


def test_a_listing_that_breaks_off_goes_on(
    store: ObjectStore, direct: ObjectStore, fault_proxy: FaultProxy
) -> None:
    keys = [f"many/{index:04d}" for index in range(1500)]
    run_together(8, lambda thread: [direct.put_object(key, b"") for key in keys[thread::8]])
    second_page = fault_proxy.inject(Fault("cut_body", after=1, times=2))
    assert [meta.key for meta in store.list("many")] == keys
    assert second_page.hits == 2


def test_silence_ends_after_the_timeout(s3_bucket: str, fault_proxy: FaultProxy) -> None:
    store = open_store(f"s3://{s3_bucket}", endpoint_url=fault_proxy.endpoint_url, retries=1, timeout_s=0.5)
    fault_proxy.inject(Fault("delay", seconds=2.5, times=1000))
    for call in (
        lambda: store.get("a"),
        lambda: store.get_range("a", 0, 1),
        lambda: store.put_object("a", b"x"),
        lambda: list(store.list()),
        lambda: store.create("c", b"x"),
    ):
        start = time.monotonic()
        with pytest.raises(StorageUnavailableError):
            call()
        assert time.monotonic() - start < 8


def test_nobody_listens(s3_bucket: str) -> None:
    store = open_store(f"s3://{s3_bucket}", endpoint_url="http://127.0.0.1:1", retries=1, timeout_s=2)
    with pytest.raises(StorageUnavailableError) as caught:
        store.get("a")
    assert "Debug source" not in str(caught.value)


@pytest.mark.parametrize("code", [401, 403])
def test_refused_credentials_are_named(store: ObjectStore, fault_proxy: FaultProxy, code: int) -> None:
    fault_proxy.inject(Fault("status", times=1000, code=code))
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


def test_a_missing_bucket_is_named(s3_server: S3Server, aws_environment: None) -> None:
    store = open_store("s3://no-such-bucket-here", endpoint_url=s3_server.endpoint_url, retries=1)
    for call in (
        lambda: store.get("a"),
        lambda: store.put_object("a", b"x"),
        lambda: store.create("a", b"x"),
        lambda: list(store.list()),
    ):
        with pytest.raises(InvalidInputError, match="no such bucket"):
            call()
