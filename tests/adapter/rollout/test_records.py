"""The record of a rollout: what is written is read again, and what is none is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.adapter.rollout.machine import begin
from textnlp_fast.adapter.rollout.records import (
    RolloutRecord,
    _in_milliseconds,
    lease_key,
    read_record,
    record_key,
    write_record,
)
from textnlp_fast.adapter.rollout.state import Ask, State, Terms
from textnlp_fast.contents.documents import seal_document
from textnlp_fast.errors import ConflictError, CorruptDataError, TextnlpFastError, UnsupportedFormatError
from textnlp_fast.objectstore import open_store


def record(**changes: Any) -> RolloutRecord:
    terms = Terms(
        strategy="canary", old="1.0.0", new="2.0.0", base=("a:1", "b:1"), extras=("c:1",), steps=(5, 100)
    )
    made = RolloutRecord(
        model="org/llm",
        target="eu/serving",
        number=3,
        kind="deploy",
        fence=4,
        holder="alice on x",
        by="alice",
        note="",
        begun_at="2026-01-01T00:00:00Z",
        terms=terms,
        state=begin(terms),
        active=("a:1", "b:1"),
        spares=("c:1",),
    )
    return dataclasses.replace(made, **changes)


def test_a_record_is_read_as_it_was_written_and_one_writer_wins(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert read_record(store, "org/llm", "eu/serving") == (None, None)
    state = begin(record().terms).with_held(
        "a:1", place="leaving", ask=Ask(id="7", verb="commit", version="2.0.0")
    )
    state = dataclasses.replace(state, direction="back", reason="unwell", baking_since_s=12.5)
    made = record(state=state, back="asked").saying("something", "else")
    version = write_record(store, made, None)
    assert read_record(store, "org/llm", "eu/serving") == (made, version)
    write_record(store, made.saying("more"), version)
    with pytest.raises(ConflictError):
        write_record(store, made, version)


def test_it_has_whole_numbers_only_as_sealed_documents_do(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    state = record().state.with_held("a:1", since_s=1.23456)
    write_record(store, record(state=dataclasses.replace(state, baking_since_s=0.1)), None)
    json.loads(store.get(record_key("org/llm", "eu/serving")), parse_float=pytest.fail)


def test_names_do_not_meet() -> None:
    keys = {
        record_key(model, target)
        for model, target in (
            ("a", "b/c"),
            ("a/b", "c"),
            ("a", "b"),
            ("a", "b.json"),
            ("a", "b/"),
            ("a/b", "c/d"),
        )
    }
    assert len(keys) == 6
    assert lease_key("a", "b") not in keys
    with pytest.raises(TextnlpFastError):
        record_key("../a", "b")


def test_the_oldest_events_are_let_go() -> None:
    made = record().saying(*(str(number) for number in range(300)))
    assert len(made.events) == 200
    assert made.events[-1].what == "299"


_VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 1 << 60)
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2)
)


def _paths(document: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(document, dict):
        return [before]
    return [before] + [path for key, value in document.items() for path in _paths(value, (*before, key))]


@settings(max_examples=150)
@given(st.data())
def test_a_record_that_is_none_is_refused_with_a_word(data: st.DataObject) -> None:
    """Whatever is put in any place: it is read as a sound record, or refused; nothing else is raised."""
    document = json.loads(json.dumps(_in_milliseconds(dataclasses.asdict(record()))))
    document |= {"format": 1, "write_id": "w"}
    path = data.draw(st.sampled_from([path for path in _paths(document) if path]))
    place = document
    for key in path[:-1]:
        place = place[key]
    if data.draw(st.booleans()):
        del place[path[-1]]
    else:
        place[path[-1]] = data.draw(_VALUES)
    store = open_store("memory://")
    store.put_object(record_key("org/llm", "eu/serving"), seal_document(document))
    try:
        read, _ = read_record(store, "org/llm", "eu/serving")
    except (CorruptDataError, UnsupportedFormatError):
        return
    assert read is not None
    assert isinstance(read.state, State)
    assert set(read.state.replicas) == {*read.terms.base, *read.terms.extras}
    write_record(store, read, read_record(store, "org/llm", "eu/serving")[1])


def test_bytes_that_changed_are_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    version = write_record(store, record(), None)
    key = record_key("org/llm", "eu/serving")
    changed = store.get(key).replace(b'"fence":4', b'"fence":9')
    store.compare_and_swap(key, changed, version)
    with pytest.raises(CorruptDataError):
        read_record(store, "org/llm", "eu/serving")
