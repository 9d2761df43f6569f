"""What every object store promises. A backend's tests inherit the class and give it a ``store`` fixture."""

from __future__ import annotations

import json
import threading
import uuid

import numpy as np
import pytest

from objectstore.racing import increment, run_together
from textnlp_fast.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    ObjectExistsError,
)
from textnlp_fast.objectstore import ObjectStore, Version


class ObjectStoreContract:
    """Inherit, and add a fixture ``store`` that is empty."""

    more_than_a_page = 1203

    # --- reading and writing --------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 4096, 1_000_003])
    def test_returns_what_was_put(self, store: ObjectStore, size: int) -> None:
        data = np.random.default_rng(size).bytes(size)
        store.put_object("objects/ab/cdef", data)
        assert store.get("objects/ab/cdef") == data
        assert store.head("objects/ab/cdef").size == size
        assert store.head("objects/ab/cdef").key == "objects/ab/cdef"
        assert store.exists("objects/ab/cdef")

    def test_put_replaces_and_changes_the_etag(self, store: ObjectStore) -> None:
        store.put_object("a", b"first")
        etag = store.head("a").etag
        store.put_object("a", b"other")
        assert store.get("a") == b"other"
        assert store.head("a").etag != etag

    def test_takes_any_contiguous_buffer_and_keeps_no_hold_of_it(self, store: ObjectStore) -> None:
        array = np.arange(600, dtype=np.float32).reshape(20, 30)
        expected = array.tobytes()
        store.put_object("array", array)
        array[:] = -1
        assert store.get("array") == expected
        store.put_object("empty", np.empty((3, 0), np.float32))
        assert store.get("empty") == b""
        with pytest.raises(InvalidInputError, match="contiguous"):
            store.put_object("strided", array[:, ::2])
        buffer = bytearray(b"0123456789")
        store.put_object("slice", memoryview(buffer)[2:5])
        buffer.extend(b"grows only if nobody holds it")
        assert store.get("slice") == b"234"

    def test_large_objects(self, store: ObjectStore) -> None:
        data = np.random.default_rng(7).bytes(35 << 20)
        store.put_object("objects/large", data)
        assert store.head("objects/large").size == len(data)
        parts = store.get_ranges("objects/large", [0, 8 << 20, len(data) - 5], [9 << 20, 100, 5])
        assert [bytes(part) for part in parts] == [data[: 9 << 20], data[8 << 20 :][:100], data[-5:]]
        assert store.get("objects/large") == data

    def test_absent_objects_are_missing(self, store: ObjectStore) -> None:
        reads = [store.get, store.get_versioned, store.head, lambda key: store.get_range(key, 0, 1)]
        for read in reads:
            for key in ("absent", "absent/below"):
                with pytest.raises(MissingObjectError, match=key):
                    read(key)
        assert not store.exists("absent")

    def test_a_folder_is_not_an_object(self, store: ObjectStore) -> None:
        store.put_object("folder/object", b"x")
        assert not store.exists("folder")
        for read in (store.get, lambda key: store.get_range(key, 0, 1)):
            with pytest.raises(MissingObjectError):
                read("folder")
        store.delete("folder")
        assert store.get("folder/object") == b"x"

    def test_limits_what_it_reads(self, store: ObjectStore) -> None:
        store.put_object("a", b"12345")
        assert store.get("a", limit_bytes=5) == b"12345"
        with pytest.raises(CorruptDataError, match="5 bytes"):
            store.get("a", limit_bytes=4)
        with pytest.raises(CorruptDataError, match="5 bytes"):
            store.get_versioned("a", limit_bytes=4)

    # --- ranges ---------------------------------------------------------------------------------------------

    def test_ranges_come_in_the_order_asked_for(self, store: ObjectStore) -> None:
        data = np.random.default_rng(1).bytes(3_000_000)
        store.put_object("a", data)
        starts = [2_000_000, 0, 10, 5, 2_999_999, 0, 1_500_000]
        lengths = [1000, 20, 10, 100, 1, 0, 0]
        parts = store.get_ranges("a", starts, lengths)
        assert [bytes(part) for part in parts] == [
            data[s : s + n] for s, n in zip(starts, lengths, strict=True)
        ]
        assert bytes(store.get_range("a", 7, 9)) == data[7:16]
        assert store.get_ranges("a", [], []) == []

    @pytest.mark.parametrize(("start", "length"), [(0, 6), (4, 2), (5, 1), (1000, 1), (0, 2**40), (2**40, 1)])
    def test_a_range_behind_the_end_is_corrupt_data(
        self, store: ObjectStore, start: int, length: int
    ) -> None:
        store.put_object("a", b"12345")
        with pytest.raises(CorruptDataError, match="ends early") as caught:
            store.get_range("a", start, length)
        assert not isinstance(caught.value, MissingObjectError)
        with pytest.raises(CorruptDataError, match="ends early"):
            store.get_ranges("a", [0, start], [2, length])

    def test_refuses_ranges_that_make_no_sense(self, store: ObjectStore) -> None:
        store.put_object("a", b"12345")
        for starts, lengths in [([-1], [1]), ([0], [-1]), ([0, 1], [1])]:
            with pytest.raises(InvalidInputError):
                store.get_ranges("a", starts, lengths)

    # --- listing and deleting -------------------------------------------------------------------------------

    def test_lists_a_folder_in_the_order_of_keys(self, store: ObjectStore) -> None:
        keys = ["a-b", "a/b", "a/b-c", "a/b/c", "a/c", "a0", "ab/x", "z"]
        for key in keys:
            if key != "a/b":  # one name cannot be an object and a folder on every store
                store.put_object(key, key.encode())
        keys.remove("a/b")
        assert [meta.key for meta in store.list()] == sorted(keys)
        assert [meta.key for meta in store.list("a")] == ["a/b-c", "a/b/c", "a/c"]
        assert [meta.key for meta in store.list("a/")] == ["a/b-c", "a/b/c", "a/c"]
        assert list(store.list("a/b/c")) == []
        assert list(store.list("nothing/here")) == []
        assert [meta.size for meta in store.list("ab")] == [4]
        assert next(store.list("ab")).etag == store.head("ab/x").etag

    def test_lists_more_than_a_page(self, store: ObjectStore) -> None:
        keys = [f"many/{index:04d}" for index in range(self.more_than_a_page)]
        run_together(8, lambda thread: [store.put_object(key, b"") for key in keys[thread::8]])
        assert [meta.key for meta in store.list("many")] == keys

    def test_a_listing_shows_what_stays_while_others_write(self, store: ObjectStore) -> None:
        stays = [f"folder/{index:02d}/stays" for index in range(40)]
        run_together(8, lambda thread: [store.put_object(key, b"") for key in stays[thread::8]])
        done = threading.Event()

        def work(thread: int) -> None:
            if thread:
                for index in range(10):
                    key = f"folder/{index * 4:02d}/comes-and-goes-{thread}"
                    store.put_object(key, b"")
                    store.delete(key)
                done.set()
                return
            while True:
                last = done.is_set()
                seen = [meta.key for meta in store.list("folder")]
                assert seen == sorted(set(seen))
                assert [key for key in seen if key.endswith("stays")] == stays
                if last:
                    return

        run_together(3, work)

    def test_delete_is_idempotent(self, store: ObjectStore) -> None:
        store.put_object("a/b", b"x")
        store.delete("a/b")
        store.delete("a/b")
        store.delete("never/was")
        assert not store.exists("a/b")
        store.create("a/b", b"again")
        assert store.get("a/b") == b"again"

    # --- create ---------------------------------------------------------------------------------------------

    def test_create_takes_a_free_key_only(self, store: ObjectStore) -> None:
        store.create("m/1.0.0.json", b"ours")
        with pytest.raises(ObjectExistsError, match=r"1\.0\.0") as caught:
            store.create("m/1.0.0.json", b"theirs")
        assert caught.value.existing == b"ours"
        assert store.get("m/1.0.0.json") == b"ours"

    def test_creating_the_same_again_is_no_conflict(self, store: ObjectStore) -> None:
        store.create("a", b"write id 1")
        store.create("a", b"write id 1")
        assert store.get("a") == b"write id 1"

    def test_of_racing_creators_one_wins(self, store: ObjectStore) -> None:
        for round_ in range(5):
            key = f"race/{round_}"
            winners: list[bytes] = []

            def race(thread: int, key: str = key, winners: list[bytes] = winners) -> None:
                data = f"thread {thread} {uuid.uuid4()}".encode()
                try:
                    store.create(key, data)
                except ObjectExistsError as conflict:
                    assert conflict.existing == store.get(key) != data
                else:
                    winners.append(data)

            run_together(16, race)
            assert winners == [store.get(key)]

    # --- compare and swap -----------------------------------------------------------------------------------

    def test_swap_follows_the_version(self, store: ObjectStore) -> None:
        first = store.compare_and_swap("refs", b"one", None)
        assert store.get_versioned("refs") == (b"one", first)
        second = store.compare_and_swap("refs", b"two", first)
        assert store.get_versioned("refs") == (b"two", second)
        assert first != second

    def test_a_stale_version_is_a_conflict(self, store: ObjectStore) -> None:
        first = store.compare_and_swap("refs", b"one", None)
        store.compare_and_swap("refs", b"two", first)
        with pytest.raises(ConflictError, match="another writer") as caught:
            store.compare_and_swap("refs", b"three", first)
        assert not caught.value.may_have_applied
        with pytest.raises(ObjectExistsError):
            store.compare_and_swap("refs", b"three", None)
        assert store.get("refs") == b"two"

    def test_a_removed_object_is_a_conflict(self, store: ObjectStore) -> None:
        first = store.compare_and_swap("refs", b"one", None)
        store.delete("refs")
        with pytest.raises(ConflictError, match="removed"):
            store.compare_and_swap("refs", b"two", first)
        assert not store.exists("refs")

    def test_swapping_the_same_again_is_no_conflict(self, store: ObjectStore) -> None:
        first = store.compare_and_swap("refs", b"one", None)
        second = store.compare_and_swap("refs", b"two", first)
        assert store.compare_and_swap("refs", b"two", first) == second

    def test_refuses_what_it_must(self, store: ObjectStore) -> None:
        store.check_conditional_writes("probe")
        assert not store.exists("probe")

    def test_no_increment_is_lost(self, store: ObjectStore) -> None:
        store.create("counter", b'{"count": 0, "writes": []}')
        run_together(16, lambda _: [increment(store, "counter") for _ in range(2)])
        state = json.loads(store.get("counter"))
        assert state["count"] == len(set(state["writes"])) == 32

    def test_of_racing_swaps_one_wins(self, store: ObjectStore) -> None:
        version = store.compare_and_swap("refs", b"start", None)
        for round_ in range(4):
            winners: list[tuple[bytes, Version]] = []

            def race(
                thread: int,
                round_: int = round_,
                version: Version = version,
                winners: list[tuple[bytes, Version]] = winners,
            ) -> None:
                new = f"round {round_} thread {thread} {uuid.uuid4()}".encode()
                try:
                    winners.append((new, store.compare_and_swap("refs", new, version)))
                except ConflictError:
                    assert store.get("refs") != new

            run_together(8, race)
            assert winners == [store.get_versioned("refs")]
            version = winners[0][1]

    def test_the_version_of_a_removed_object_does_not_fit_its_successor(self, store: ObjectStore) -> None:
        first = store.compare_and_swap("refs", b"one", None)
        store.delete("refs")
        store.create("refs", b"another one")
        with pytest.raises(ConflictError, match="another writer"):
            store.compare_and_swap("refs", b"two", first)
        assert store.get("refs") == b"another one"

    # --- keys -----------------------------------------------------------------------------------------------

    def test_refuses_keys_that_are_no_safe_path(self, store: ObjectStore) -> None:
        for key in (
            *(
                "",
                "/",
                "/etc/passwd",
                "..",
                "../x",
                "a/../b",
                "a/./b",
                ".",
                "a//b",
                "a/",
                "/a",
                "a\\b",
                "a\x00b",
            ),
            *("a\nb", "a b", "a%2fb", "\u043a", "a\u202eb", "a?b", "a#b", "a:b", "x" * 256, "x/" * 450 + "x"),
            *(".tmp/x", ".locks/0", ".tmp"),
        ):
            calls = [
                lambda key=key: store.get(key),
                lambda key=key: store.get_range(key, 0, 1),
                lambda key=key: store.head(key),
                lambda key=key: store.exists(key),
                lambda key=key: store.put_object(key, b"x"),
                lambda key=key: store.create(key, b"x"),
                lambda key=key: store.compare_and_swap(key, b"x", None),
                lambda key=key: store.delete(key),
            ]
            for call in calls:
                with pytest.raises(InvalidInputError):
                    call()
        assert list(store.list()) == []

    def test_takes_odd_but_legal_keys(self, store: ObjectStore) -> None:
        keys = [
            *(
                "...",
                "..a",
                "-rf",
                "~",
                "=",
                "+",
                "@",
                ",",
                "_",
                "a+b",
                "a=b",
                "~user",
                "@x",
                "a,b",
                "a.b.",
                "A",
                "a",
            ),
            *(
                "dots/.../x",
                "dots/..x/y",
                "plus/+/+",
                "long/" + "s" * 255,
                "d/" * 60 + "deep",
                "Case/x",
                "case/x",
            ),
        ]
        for key in keys:
            store.put_object(key, key.encode())
        assert [meta.key for meta in store.list()] == sorted(keys)
        for key in keys:
            assert store.get(key) == key.encode()
            assert store.head(key).size == len(key)
        key = keys[0]
        content, version = store.get_versioned(key)
        assert store.compare_and_swap(key, content + b" again", version) != version
        for key in keys:
            store.delete(key)
        assert list(store.list()) == []

    def test_takes_keys_of_the_portable_alphabet(self, store: ObjectStore) -> None:
        key = "models/Org.Name_1+2=3@v,w~x-y/versions/1.0.0-rc.1+build.json"
        store.put_object(key, b"x")
        assert [meta.key for meta in store.list()] == [key]
        assert store.get(key) == b"x"
