"""A guarded store: every write asks first, none happens that was refused, and reads ask nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from textnlp_fast.errors import ConflictError, MissingObjectError
from textnlp_fast.objectstore import ObjectStore, open_store


class Guard:
    def __init__(self) -> None:
        self.asked = 0
        self.closed = False

    def check(self) -> None:
        self.asked += 1
        if self.closed:
            raise ConflictError("no more")


def test_writes_ask_and_reads_do_not(tmp_path: Path) -> None:
    plain, guard = open_store(tmp_path), Guard()
    store = plain.guarded(guard.check)
    assert store.url == plain.url
    plain.create("a/old", b"1")
    _, version = store.get_versioned("a/old")
    writes: list[Callable[[ObjectStore], object]] = [
        lambda one: one.put_object("a/put", b"x"),
        lambda one: one.create("a/created", b"x"),
        lambda one: one.compare_and_swap("a/old", b"2", version),
        lambda one: one.compare_and_swap("a/swapped", b"2", None),
        lambda one: one.delete("a/old"),
    ]
    guard.closed = True
    for write in writes:
        before = guard.asked
        with pytest.raises(ConflictError):
            write(store)
        assert guard.asked == before + 1
    assert [meta.key for meta in store.list("a")] == ["a/old"]
    assert store.get("a/old") == b"1"
    asked = guard.asked
    assert store.get_range("a/old", 0, 1) == b"1"
    assert store.head("a/old").size == 1
    with pytest.raises(MissingObjectError):
        store.get("a/none")
    assert guard.asked == asked
    guard.closed = False
    for write in writes:
        write(store)
    assert [meta.key for meta in plain.list("a")] == ["a/created", "a/put", "a/swapped"]


def test_what_is_allowed_is_asked_again(tmp_path: Path) -> None:
    """Views of a guarded store, with other rules for keys, are guarded too."""
    guard = Guard()
    guard.closed = True
    store = open_store(tmp_path).guarded(guard.check).with_keys(lambda key: key)
    with pytest.raises(ConflictError):
        store.put_object("any key", b"x")
