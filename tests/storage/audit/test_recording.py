"""Records are appended: one after the other, by any number of writers, before and after what they tell of."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.proxy import Fault, FaultProxy
from servers import S3Server
from textnlp_fast.errors import InvalidInputError, RepositoryNotFoundError, StorageUnavailableError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.storage import Repository
from textnlp_fast.storage.audit import AuditKey, AuditPolicy, audited, log_of, record

KEY = AuditKey(b"k" * 32)
QUIET = AuditPolicy(actor="tester")


def new_store(place: str | Path, **options: object) -> ObjectStore:
    """A store with an empty repository."""
    return Repository.open(place, create=True, **options).store  # type: ignore[arg-type]


def documents(store: ObjectStore) -> Iterator[dict[str, object]]:
    """The log, read without the code under test."""
    for meta in store.list("audit"):
        yield json.loads(store.get(meta.key))


def assert_chained(store: ObjectStore, count: int) -> list[dict[str, object]]:
    """The log has `count` records after the first, numbered without gaps, each naming the one before."""
    keys = [meta.key for meta in store.list("audit")]
    assert keys == [f"audit/{n // 1000:09d}/{n % 1000:03d}.json" for n in range(count + 1)]
    previous = None
    found = list(documents(store))
    for number, (key, document) in enumerate(zip(keys, found, strict=True)):
        assert document["sequence"] == number
        assert document["previous"] == previous
        previous = blake3_hex(store.get(key))
    return found


def run_together(count: int, work: object) -> None:
    failures: list[BaseException] = []
    gate = threading.Barrier(count)

    def body(number: int) -> None:
        try:
            gate.wait()
            work(number)  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_a_record_says_who_did_what(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    detail = {"alias": "production", "from": None, "to": "1.0.0", "protected": True}
    receipt = record(store, action="alias.set", model="m", version="1.0.0", detail=detail, policy=QUIET)
    assert receipt is not None
    begin, told = assert_chained(store, 1)
    assert begin["action"] == "audit.begin"
    assert begin["detail"] == {"versions": 0, "named": []}
    assert (told["action"], told["model"], told["version"]) == ("alias.set", "m", "1.0.0")
    assert told["detail"] == detail
    assert told["actor"] == {"name": "tester"}
    assert told["outcome"] == "done"
    assert told["repository"] == json.loads(store.get("repository.json"))["id"]
    assert receipt.head.digest == blake3_hex(store.get("audit/000000000/001.json"))


def test_sixteen_writers_with_stores_of_their_own_make_one_chain(tmp_path: Path) -> None:
    new_store(tmp_path)

    def write(writer: int) -> None:
        store = open_store(tmp_path)
        for number in range(5):
            record(store, action="test", detail={"writer": writer, "number": number}, policy=QUIET)

    run_together(16, write)
    found = assert_chained(open_store(tmp_path), 80)
    told = [document["detail"] for document in found[1:]]
    for writer in range(16):  # nothing lost, nothing twice, each writer's in its order
        assert [one["number"] for one in told if one["writer"] == writer] == [0, 1, 2, 3, 4]  # type: ignore[index,call-overload]


def test_sixteen_writers_on_a_bucket(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    options = {"endpoint_url": s3_server.endpoint_url}
    new_store(f"s3://{s3_bucket}/r", **options)
    policy = AuditPolicy(actor="tester", witness_folder=tmp_path)

    def write(writer: int) -> None:
        store = open_store(f"s3://{s3_bucket}/r", **options)  # type: ignore[arg-type]
        for number in range(3):
            record(store, action="test", detail={"writer": writer, "number": number}, policy=policy)

    run_together(16, write)
    assert_chained(open_store(f"s3://{s3_bucket}/r", **options), 48)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["lose_answer", "lose_request", "status", "status_after"])
def test_a_lost_answer_neither_loses_a_record_nor_doubles_it(
    s3_bucket: str, fault_proxy: FaultProxy, tmp_path: Path, kind: str
) -> None:
    policy = AuditPolicy(actor="tester", witness_folder=tmp_path)
    url, options = f"s3://{s3_bucket}", {"endpoint_url": fault_proxy.endpoint_url}
    new_store(url, **options)
    store = open_store(url, retries=3, timeout_s=5, **options)  # type: ignore[arg-type]
    record(store, action="one", policy=policy)
    fault = fault_proxy.inject(Fault(kind, method="PUT", path="audit/"))  # type: ignore[arg-type]
    record(store, action="two", policy=policy)
    record(store, action="three", policy=policy)
    assert fault.hits == 1
    found = assert_chained(store, 3)
    assert [one["action"] for one in found] == ["audit.begin", "one", "two", "three"]


def test_a_record_is_one_create_once_the_log_is_open(
    s3_bucket: str, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    policy = AuditPolicy(actor="tester", witness_folder=tmp_path)
    url, options = f"s3://{s3_bucket}", {"endpoint_url": fault_proxy.endpoint_url}
    store = new_store(url, **options)
    record(store, action="first", policy=policy)
    before = len(fault_proxy.requests)
    record(store, action="second", policy=policy)
    assert [method for method, _ in fault_proxy.requests[before:]] == ["PUT"]
    before = len(fault_proxy.requests)
    record(open_store(url, **options), action="third", policy=policy)  # type: ignore[arg-type]
    # Another process of this machine reads the repository's id, and knows the head.
    assert [method for method, _ in fault_proxy.requests[before:]] == ["GET", "PUT"]
    assert_chained(store, 3)


def test_the_head_of_a_long_log_takes_a_few_requests(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    record(store, action="first", policy=QUIET)
    for number in range(2, 5205):  # whatever lies there takes its number
        place = tmp_path / f"audit/{number // 1000:09d}/{number % 1000:03d}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"%d" % number)
    fresh = open_store(tmp_path)
    head = log_of(fresh, QUIET).find_head()
    assert head is not None
    assert head.sequence == 5204
    receipt = record(fresh, action="next", policy=QUIET)
    assert receipt is not None
    assert receipt.head.sequence == 5205
    stored = json.loads(fresh.get("audit/000000005/205.json"))
    assert stored["previous"] == blake3_hex(b"5204")


def test_an_object_of_any_size_in_the_way_blocks_nobody(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    record(store, action="first", policy=QUIET)
    with (tmp_path / "audit/000000000/002.json").open("wb") as file:
        file.truncate(300 << 20)  # more than anyone reads back
    assert record(store, action="second", policy=QUIET).head.sequence == 3  # type: ignore[union-attr]
    assert record(open_store(tmp_path), action="third", policy=QUIET).head.sequence == 4  # type: ignore[union-attr]


def test_intent_stands_before_the_change_and_failure_after_it(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with pytest.raises(ZeroDivisionError), audited(store, action="break", policy=QUIET):
        assert [one["outcome"] for one in documents(store)] == ["done", "intended"]
        raise ZeroDivisionError
    with audited(store, action="mend", shows=True, policy=QUIET):
        pass
    with audited(store, action="mend", policy=QUIET):
        pass
    _, intended, failed, shown, begun, done = assert_chained(store, 5)
    assert failed["outcome"] == "failed"
    assert failed["operation"] == intended["operation"]
    assert failed["detail"] == {"error": "ZeroDivisionError", "intended": 1}
    assert shown["outcome"] == "intended"
    assert (begun["outcome"], done["outcome"]) == ("intended", "done")
    assert begun["operation"] == done["operation"] != shown["operation"]


def test_what_cannot_be_recorded_does_not_happen(s3_bucket: str, fault_proxy: FaultProxy) -> None:
    url, options = f"s3://{s3_bucket}", {"endpoint_url": fault_proxy.endpoint_url}
    new_store(url, **options)
    store = open_store(url, retries=0, timeout_s=5, **options)  # type: ignore[arg-type]
    fault_proxy.inject(Fault("status", method="PUT", path="audit/", times=1000))
    happened = False
    with pytest.raises(StorageUnavailableError), audited(store, action="change", policy=QUIET):
        happened = True
    assert not happened


def test_nothing_is_recorded_if_that_is_asked_for(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert record(store, action="push", policy=AuditPolicy(mode="off")) is None
    with audited(store, action="push", policy=AuditPolicy(mode="off")) as receipt:
        assert receipt is None
    assert list(store.list("audit")) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "Push"},
        {"action": ""},
        {"action": "a b"},
        {"action": "push", "detail": {"x": 1.5}},
        {"action": "push", "detail": {"x": 2**60}},
        {"action": "push", "detail": {"x": b"bytes"}},
        {"action": "push", "detail": {1: "x"}},
        {"action": "push", "detail": {"x": "y" * (1 << 18)}},
        {"action": "push", "detail": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}}},
        {"action": "push", "model": "m" * 5000},
        {"action": "push", "operation": "no"},
        {"action": "push", "outcome": "maybe"},
    ],
)
def test_what_no_reader_would_take_is_not_written(tmp_path: Path, wrong: dict[str, object]) -> None:
    store = new_store(tmp_path)
    with pytest.raises(InvalidInputError):
        record(store, policy=QUIET, **wrong)  # type: ignore[arg-type]
    assert list(store.list("audit")) == []


def test_a_place_without_a_repository_has_no_log(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        record(open_store(tmp_path), action="push", policy=QUIET)


def test_keys_are_read_and_checked(tmp_path: Path) -> None:
    keys = AuditKey.parse(f"# of July\n{'ab' * 32}\n\n{'cd' * 32}\n", "keys")
    assert [key.secret for key in keys] == [b"\xab" * 32, b"\xcd" * 32]
    assert "abab" not in repr(keys)
    for text in ("", "# nothing\n", "xyz", "ab" * 31):
        with pytest.raises(InvalidInputError):
            AuditKey.parse(text, "keys")
