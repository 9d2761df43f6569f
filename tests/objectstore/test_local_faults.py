"""A folder under hard conditions: killed writers, a full disk, other processes, strange files."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from textnlp_fast.errors import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    MissingObjectError,
    OutOfSpaceError,
    StorageUnavailableError,
)
from textnlp_fast.objectstore import ObjectStore, open_store


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "store", timeout_s=5)


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Run a Python script in another process."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> bytes:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    return output


# --- killed writers -----------------------------------------------------------------------------------------

WRITER = """
    import sys
    from textnlp_fast.objectstore import open_store
    store = open_store(sys.argv[1])
    print("ready", flush=True)
    for number in range(10**9):
        body = bytes([number % 251]) * (3_000_000 + number)
        store.put_object(f"objects/{number % 7}", body)
        store.create(f"created/{sys.argv[2]}-{number}", body[:100_000])
        content, version = store.get_versioned("refs")
        store.compare_and_swap("refs", bytes([number % 251]) * 1000 + sys.argv[2].encode(), version)
"""


def test_a_killed_writer_leaves_whole_objects_only(store: ObjectStore, tmp_path: Path) -> None:
    rng = random.Random(20)
    store.put_object("refs", b"first")
    for round_ in range(10):
        process = start(WRITER, tmp_path / "store", round_)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for meta in store.list():
            content = store.get(meta.key)
            if meta.key.startswith("objects/"):
                assert len(content) >= 3_000_000
                assert content == content[:1] * (3_000_000 + len(content) % 3_000_000)
            elif meta.key.startswith("created/"):
                assert content == content[:1] * 100_000
            else:
                assert meta.key == "refs"
                assert content == b"first" or content[:1000] == content[:1] * 1000
    _, version = store.get_versioned("refs")
    store.compare_and_swap("refs", b"the lock of the dead is free", version)


def test_old_leftovers_go_and_young_ones_stay(tmp_path: Path) -> None:
    leftovers = tmp_path / ".tmp"
    leftovers.mkdir()
    (leftovers / "old").write_bytes(b"half")
    (leftovers / "young").write_bytes(b"half")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(leftovers / "old", (two_days_ago, two_days_ago))
    store = open_store(tmp_path)
    assert [path.name for path in leftovers.iterdir()] == ["young"]
    assert list(store.list()) == []


def test_data_is_on_disk_before_its_name_and_the_name_before_the_answer(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "store" / "deep" / "er" / "object"
    events: list[str] = []
    fsync = os.fsync

    def record(fd: int) -> None:
        place = Path(f"/proc/self/fd/{fd}").readlink()
        what = "file" if place.parent.name == ".tmp" else str(place.relative_to(tmp_path))
        events.append(f"{what} {'named' if target.exists() else 'unnamed'}")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    for write in (store.create, store.put_object):
        events.clear()
        write("deep/er/object", b"x")
        assert "store/deep/er named" in events
        if write == store.create:
            assert events[-4:] == ["store/deep/er named", "store/deep named", "store named", ". named"]
            assert events[0] == "file unnamed"


# --- writes that are done in part ahead ----------------------------------------------------------------------


@pytest.mark.parametrize("swaps", [False, True])
def test_what_was_staged_only_gets_its_name(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    before = store.compare_and_swap("a/b", b"old", None) if swaps else None
    with store.staged("a/b") as stage:
        stage(b"first thoughts")
        stage(b"new")
        assert len([*(tmp_path / "store/.tmp").iterdir()]) == 1
        if not swaps:
            assert not store.exists("a/b")
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", lambda *_: pytest.fail("it is written already"))
            after = store.compare_and_swap("a/b", b"new", before)
    assert store.get_versioned("a/b") == (b"new", after)
    assert not [*(tmp_path / "store/.tmp").iterdir()]


def test_what_was_staged_for_another_write_is_not_used(store: ObjectStore, tmp_path: Path) -> None:
    with store.staged("a") as stage:
        stage(b"mine")
        store.create("a", b"another's")
        assert store.get("a") == b"another's"
        with pytest.raises(ConflictError):
            store.create("a", b"mine")
    assert store.get("a") == b"another's"
    with pytest.raises(KeyError), store.staged("b") as stage:
        stage(b"nothing comes of it")
        raise KeyError
    assert not store.exists("b")
    assert not [*(tmp_path / "store/.tmp").iterdir()]


# --- a full disk --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mount.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    store = open_store(small_disk)
    store.put_object("before", b"x" * 1_000_000)
    _, version = store.get_versioned("before")
    for write in (
        lambda body: store.put_object("large", body),
        lambda body: store.create("large", body),
        lambda body: store.put_object("before", body),
        lambda body: store.compare_and_swap("before", body, version),
    ):
        with pytest.raises(OutOfSpaceError, match=r"large|before"):
            write(b"y" * 1_500_000)
        assert [meta.key for meta in store.list()] == ["before"]
        assert list((small_disk / ".tmp").iterdir()) == []
    assert store.get("before") == b"x" * 1_000_000
    store.put_object("small", b"fits")
    assert store.get("small") == b"fits"


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    finish(
        start(
            """
            import resource, sys
            from textnlp_fast.errors import OutOfSpaceError
            from textnlp_fast.objectstore import open_store
            store = open_store(sys.argv[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            store.put_object("small", b"x" * 100_000)
            try:
                store.put_object("large", b"x" * 100_001)
            except OutOfSpaceError:
                assert [meta.key for meta in store.list()] == ["small"]
            else:
                sys.exit("no error")
            """,
            tmp_path,
        )
    )
    assert list((tmp_path / ".tmp").iterdir()) == []


# --- other processes ----------------------------------------------------------------------------------------


def test_of_racing_processes_one_creates(store: ObjectStore, tmp_path: Path) -> None:
    script = """
        import os, sys
        from textnlp_fast.errors import ObjectExistsError
        from textnlp_fast.objectstore import open_store
        store = open_store(sys.argv[1])
        wins = 0
        for number in range(100):
            try:
                store.create(f"race/{number}", str(os.getpid()).encode())
                wins += 1
            except ObjectExistsError as conflict:
                assert conflict.existing == store.get(f"race/{number}")
        print(wins)
    """
    processes = [start(script, tmp_path / "store") for _ in range(4)]
    assert sum(int(finish(process)) for process in processes) == 100


def test_processes_lose_no_increment(store: ObjectStore, tmp_path: Path) -> None:
    store.create("counter", b"0")
    script = """
        import sys, uuid
        from textnlp_fast.errors import ConflictError
        from textnlp_fast.objectstore import open_store
        store = open_store(sys.argv[1])
        done = 0
        while done < 25:
            content, version = store.get_versioned("counter")
            new = f"{int(content.split()[0]) + 1} {uuid.uuid4()}".encode()
            try:
                store.compare_and_swap("counter", new, version)
                done += 1
            except ConflictError:
                pass
    """
    for process in [start(script, tmp_path / "store") for _ in range(4)]:
        finish(process)
    assert store.get("counter").split()[0] == b"100"


def test_a_lock_that_stays_held_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path, timeout_s=0.2, retries=1)
    version = store.compare_and_swap("refs", b"one", None)
    store.compare_and_swap("refs", b"two", version)  # makes the lock's file
    content, version = store.get_versioned("refs")
    (lock,) = (tmp_path / ".locks").iterdir()
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageUnavailableError, match="lock"):
            store.compare_and_swap("refs", b"three", version)
    assert store.get("refs") == content
    store.compare_and_swap("refs", b"three", version)


# --- strange files ------------------------------------------------------------------------------------------


def test_a_key_below_an_object_is_refused(store: ObjectStore) -> None:
    store.put_object("a", b"x")
    for write in (store.put_object, store.create):
        with pytest.raises(InvalidInputError, match="a/b"):
            write("a/b", b"y")
    assert store.get("a") == b"x"
    store.put_object("folder/object", b"x")
    with pytest.raises(InvalidInputError, match="folder"):
        store.put_object("folder", b"y")


def test_what_is_no_object_is_not_seen(store: ObjectStore, tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    os.mkfifo(root / "pipe")
    (root / "outside").symlink_to("/etc")
    (root / "dangling").symlink_to(root / "nowhere")
    store.put_object("real", b"x")
    assert [meta.key for meta in store.list()] == ["real"]
    for read in (store.get, store.head, lambda key: store.get_range(key, 0, 1)):
        with pytest.raises(MissingObjectError):
            read("pipe")


def test_opening_makes_no_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path / "mistyped" / "place")
    assert list(store.list()) == []
    with pytest.raises(MissingObjectError):
        store.get("repository.json")
    store.delete("repository.json")
    assert list(tmp_path.iterdir()) == []
    store.create("repository.json", b"{}")
    assert open_store(tmp_path / "mistyped" / "place").get("repository.json") == b"{}"


def test_a_store_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInputError):
            open_store(place)


def test_permissions_are_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    store = open_store(tmp_path / "store")
    (tmp_path / "store").chmod(0o500)
    try:
        with pytest.raises(AuthenticationError, match="Check the permissions"):
            store.put_object("a", b"x")
    finally:
        (tmp_path / "store").chmod(0o700)


def test_a_disk_that_became_read_only(small_disk: Path) -> None:
    store = open_store(small_disk)
    store.put_object("a", b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for write in (
        lambda: store.put_object("a", b"y"),
        lambda: store.create("b", b"y"),
        lambda: store.delete("a"),
    ):
        with pytest.raises(AuthenticationError, match="Read-only"):
            write()
    assert store.get("a") == b"x"
    assert open_store(small_disk).get("a") == b"x"
