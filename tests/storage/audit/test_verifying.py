"""A log that was tampered with does not verify; one that was not does."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults.proxy import FaultProxy
from storage.audit.tamperer import AT_THE_END, BEFORE_THE_LAST, FORGERIES, PLAIN, Harm, Tamperer, key_of
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.storage import Repository
from textnlp_fast.storage.audit import AuditKey, AuditPolicy, AuditReport, Head, log_of, record, verify_log
from textnlp_fast.storage.audit.records import MAX_RECORD_BYTES
from textnlp_fast.storage.audit.witness import Witness

KEY = AuditKey(b"k" * 32)
EXAMPLES = 2000 if "TEXTNLP_FAST_NIGHTLY" in os.environ else 100
_names = itertools.count()


def new_log(count: int, *, key: AuditKey | None = None, seed: str = "") -> ObjectStore:
    """A repository in memory whose log has `count` records."""
    store = Repository.open(f"memory://audit-{next(_names)}", create=True).store
    policy = AuditPolicy(actor="tester", key=key)
    for number in range(count - 1):
        record(
            store,
            action="test",
            model="m",
            version="1.0.0",
            detail={"number": number, "seed": seed},
            policy=policy,
        )
    return store


def verified(store: ObjectStore, **options: Any) -> AuditReport:
    return verify_log(store, log_of(store, AuditPolicy()), **options)


def kinds(report: AuditReport) -> set[str]:
    return {problem.kind for problem in report.problems}


places = st.tuples(st.integers(3, 9), st.integers(0, 2**30), st.integers(0, 2**30))


def harmed(
    harm: Harm, count: int, first: int, second: int, key: AuditKey | None = None
) -> tuple[ObjectStore, Head]:
    """A log to which harm was done, and the head that it had before."""
    store, other = new_log(count, key=key), new_log(count, key=key, seed="other")
    head = verified(store).head
    assert head is not None
    before = [store.get(meta.key) for meta in store.list("audit")]
    harm(Tamperer(store, count, other), first, second)
    after = [store.get(meta.key) for meta in store.list("audit")]
    assert before != after, "no harm was done"
    return store, head


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(PLAIN), places)
def test_tampering_shows_in_the_log_itself(harm: Harm, place: tuple[int, int, int]) -> None:
    count, first, second = place
    first %= count
    if harm in (Tamperer.swap, Tamperer.swap_and_number_again, Tamperer.repeat):
        second = (first + 1 + second % (count - 1)) % count
    elif harm is Tamperer.replace_by_junk:
        second %= 100
    store, _ = harmed(harm, count, first, second % 10**6)
    assert not verified(store).ok


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(BEFORE_THE_LAST), places)
def test_an_edit_shows_in_the_record_behind_it(harm: Harm, place: tuple[int, int, int]) -> None:
    count, first, second = place
    store, _ = harmed(harm, count, first % (count - 1), second)
    assert not verified(store).ok


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(AT_THE_END), places)
def test_a_head_that_was_remembered_protects_all_before_it(harm: Harm, place: tuple[int, int, int]) -> None:
    count, first, second = place
    store, head = harmed(harm, count, first % count, second)
    report = verified(store, anchors=[head])
    assert not report.ok


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(FORGERIES), places)
def test_without_the_key_nobody_writes_history(harm: Harm, place: tuple[int, int, int]) -> None:
    count, first, second = place
    first %= count
    second = (first + 1 + second % (count - 1)) % count
    store, _ = harmed(harm, count, first, second, KEY)
    assert not verified(store, keys=[KEY]).ok


@given(st.integers(1, 12), st.booleans())
@settings(max_examples=20)
def test_a_log_that_nobody_touched_verifies(count: int, keyed: bool) -> None:
    store = new_log(max(2, count), key=KEY if keyed else None)
    plain = verified(store)
    assert plain.ok
    assert plain.head is not None
    report = verified(store, keys=[KEY] if keyed else [], anchors=[plain.head], deep=True)
    assert report.ok, report.problems
    assert report.records == max(2, count)
    assert report.proven == (report.records if keyed else 0)


def test_what_was_done_is_named(tmp_path: Path) -> None:
    store = new_log(6)
    for number, kind in [(1, "altered"), (3, "misplaced")]:
        data = store.get(key_of(number))
        changed = data.replace(b"tester", b"nobody") if kind == "altered" else store.get(key_of(4))
        store.put_object(key_of(number), changed)
        found = [(problem.kind, problem.sequence) for problem in verified(store).problems]
        assert (kind, number) in found
        assert ("broken", number + 1) in found
        store.put_object(key_of(number), data)
    store.delete(key_of(2))
    store.delete(key_of(3))
    store.put_object("audit/readme.txt", b"hello")
    report = verified(store)
    assert kinds(report) == {"missing", "stray"}
    assert "records 2 to 3 are gone" in [problem.detail for problem in report.problems]


def test_a_head_beyond_the_end_is_told_as_cut_off() -> None:
    store = new_log(6)
    head = verified(store).head
    assert head is not None
    store.delete(key_of(5))
    assert verified(store).ok  # nothing in the log itself shows it
    assert kinds(verified(store, anchors=[head])) == {"truncated"}
    for number in range(5):
        store.delete(key_of(number))
    assert kinds(verified(store, anchors=[head])) == {"truncated"}


def test_anchors_that_contradict_each_other_cannot_both_hold() -> None:
    store = new_log(4)
    head = verified(store).head
    assert head is not None
    other = Head(head.sequence, "0" * 64)
    for anchors in ([head, other], [other, head]):
        assert kinds(verified(store, anchors=anchors)) == {"rewritten"}
    assert verified(store, anchors=[head, head]).ok


def test_a_head_to_begin_after_must_be_there() -> None:
    store = new_log(6)
    head = verified(store).head
    assert head is not None
    assert verified(store, start=head).ok
    assert kinds(verified(store, start=Head(head.sequence, "0" * 64))) == {"rewritten"}
    store.delete(key_of(5))
    assert kinds(verified(store, start=head)) == {"truncated"}


def test_the_last_record_that_is_proven_proves_what_nobody_signed_before_it() -> None:
    store = new_log(4)
    signed = AuditPolicy(actor="tester", key=KEY)
    record(store, action="test", policy=signed)
    report = verified(store, keys=[KEY])
    assert report.ok
    assert (report.proven, report.unproven_tail) == (1, 0)
    record(store, action="test", policy=AuditPolicy(actor="tester"))
    report = verified(store, keys=[KEY])
    assert kinds(report) == {"unproven"}
    assert report.unproven_tail == 1
    assert not verified(store, keys=[AuditKey(b"x" * 32)]).ok


def test_keys_are_changed_without_losing_the_old_records() -> None:
    new = AuditKey(b"n" * 32)
    store = new_log(4, key=KEY)
    record(store, action="test", policy=AuditPolicy(actor="tester", key=new))
    assert verified(store, keys=[new, KEY]).ok
    assert kinds(verified(store, keys=[KEY])) == {"unproven"}


def test_a_log_that_was_cut_off_behind_the_back_of_a_writer_shows_a_hole(tmp_path: Path) -> None:
    """A process that is running, or a machine that remembers, appends behind the end that it knew."""
    store = Repository.open(tmp_path / "r", create=True).store
    policy = AuditPolicy(actor="tester", witness_folder=tmp_path / "witness")
    for _ in range(5):
        record(store, action="test", policy=policy)
    for number in (4, 5):
        store.delete(key_of(number))
    record(open_store(tmp_path / "r"), action="test", policy=policy)
    assert kinds(verified(store)) == {"missing"}


def test_a_copy_of_a_repository_goes_on_by_itself(tmp_path: Path) -> None:
    policy = AuditPolicy(actor="tester", witness_folder=tmp_path / "witness")
    store = Repository.open(tmp_path / "r", create=True).store
    record(store, action="test", policy=policy)
    shutil.copytree(tmp_path / "r", tmp_path / "copy")
    for _ in range(3):
        record(store, action="test", policy=policy)
    copy = open_store(tmp_path / "copy")
    record(copy, action="test", policy=policy)
    assert verified(copy).ok
    assert verified(store).ok


def test_a_witness_that_is_spoilt_is_none(tmp_path: Path) -> None:
    repository = "ab" * 16
    witness = Witness(tmp_path, repository, "s3://b")
    assert witness.read() is None
    witness.write(Head(5, "0" * 64))
    assert witness.read() == Head(5, "0" * 64)
    witness.write(Head(4, "1" * 64))  # later ones only
    assert witness.read() == Head(5, "0" * 64)
    for spoilt in (
        b"",
        b"{",
        b"[]",
        b'{"sequence": -1, "digest": "x"}',
        b'{"sequence": "1", "digest": "x"}',
        b"1" * 9999,
    ):
        next((tmp_path / repository).iterdir()).write_bytes(spoilt)
        assert witness.read() is None


# --- hostile records ----------------------------------------------------------------------------------------


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_may_lie_in_the_log(junk: bytes) -> None:
    store = new_log(3)
    store.put_object(key_of(3), junk)
    report = verified(store)
    assert kinds(report) & {"unreadable", "altered"}
    record(store, action="test", policy=AuditPolicy(actor="tester"))
    assert verified(store).records == 5
    assert [one.sequence for one in log_of(store).backwards()] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    "field",
    [
        "sequence",
        "previous",
        "repository",
        "time",
        "operation",
        "action",
        "outcome",
        "actor",
        "model",
        "detail",
        "write_id",
        "mac",
        "format",
    ],
)
@pytest.mark.parametrize(
    "value", [None, 1.5, -1, 2**70, "", "x" * 5000, [], {"a": {"b": []}}, True, "\ud800", ["a", "b"]]
)
def test_a_field_of_another_kind_is_refused_or_harmless(field: str, value: object) -> None:
    from storage.audit.tamperer import resealed  # noqa: PLC0415

    store = new_log(3)
    data = store.get(key_of(2))
    try:
        changed = resealed(data, **{field: value})
    except UnicodeEncodeError:
        changed = data.replace(b'"tester"', b'"\\ud800"')
    store.put_object(key_of(2), changed)
    report = verified(store)
    assert report.records == 3
    plain = json.loads(data).get(field)
    if (
        value == plain
        or (field in {"model", "mac"} and value in (None, "", "x"))
        or (field == "detail" and value == {"a": {"b": []}})
    ):
        return
    assert not report.ok or field in {"model", "mac", "previous"}


def test_a_record_of_any_size_takes_bounded_memory(tmp_path: Path) -> None:
    store = Repository.open(tmp_path, create=True).store
    record(store, action="test", policy=AuditPolicy(actor="tester"))
    with (tmp_path / key_of(2)).open("wb") as file:
        file.truncate(1 << 40)
    assert kinds(verified(store)) == {"unreadable"}
    stored = log_of(store).read(2)
    assert stored.data is not None
    assert len(stored.data) == MAX_RECORD_BYTES


def test_reading_goes_on_from_a_head_that_is_believed(s3_bucket: str, fault_proxy: FaultProxy) -> None:
    store = Repository.open(f"s3://{s3_bucket}", create=True, endpoint_url=fault_proxy.endpoint_url).store
    policy = AuditPolicy(actor="tester", witness_folder=None)
    heads: Sequence[Any] = [record(store, action="test", policy=policy) for _ in range(6)]
    before = len(fault_proxy.requests)
    report = verified(store, start=heads[3].head)
    assert report.ok
    assert report.records == 2
    read = [
        path for method, path in fault_proxy.requests[before:] if method == "GET" and path.endswith(".json")
    ]
    assert [path[-8:] for path in sorted(read) if "audit/" in path] == ["004.json", "005.json", "006.json"]
    store.put_object(key_of(4), store.get(key_of(5)))
    assert not verified(store, start=heads[2].head).ok
