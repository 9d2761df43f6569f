"""The local cache: right bytes or none, one maker for each tensor, and no load that fails because of it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from delta.models import Model
from loading.loads import DEVICES, all_bytes, expected, flip
from textnlp_fast import load
from textnlp_fast.contents import folder_room
from textnlp_fast.errors import CorruptDataError, InvalidInputError, LoadTimeoutError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.loading import LoadCache, cache, device_decoding
from textnlp_fast.loading.ring import Deadline
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage import Repository
from textnlp_fast.storage.manifest import chain_of

History = tuple[Path, dict[str, Model]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of objects that are read, call by call."""
    seen: list[int] = []
    plain = ObjectStore.get_ranges

    def counted(self: ObjectStore, key: str, starts: Any, lengths: Any) -> Any:
        if key.startswith("objects/"):
            seen.append(sum(lengths))
        return plain(self, key, starts, lengths)

    monkeypatch.setattr(ObjectStore, "get_ranges", counted)
    return seen


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "tensors").rglob("*") if path.is_file()}


def header_bytes(folder: Path, version: str) -> int:
    manifest = Repository.open(folder).manifest("m", version)
    headers = {entry.parts[0] for entry in manifest.files if entry.names}
    return sum(link.coded_bytes for digest in headers for link in chain_of(manifest.contents, digest))


@pytest.mark.parametrize("device", DEVICES)
def test_the_second_load_decodes_nothing(
    tmp_path: Path, history: History, reads: list[int], device: str
) -> None:
    folder, models = history
    wanted = expected(models["1.3.0"])
    assert all_bytes(load("m", "1.3.0", repository=folder, device=device, cache=tmp_path)) == wanted
    assert kept(tmp_path) == {blake3_hex(data): data for data in wanted.values() if data}
    reads.clear()
    assert all_bytes(load("m", "1.3.0", repository=folder, device=device, cache=tmp_path)) == wanted
    assert sum(reads) <= header_bytes(folder, "1.3.0")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("version", ["1.3.0", "2.0.0"])
def test_a_new_version_takes_deltas_only(
    tmp_path: Path, history: History, reads: list[int], device: str, version: str
) -> None:
    """What is kept of the old version is the base of the new one."""
    folder, models = history
    load("m", "1.2.0" if version == "1.3.0" else "1.3.0", repository=folder, device=device, cache=tmp_path)
    reads.clear()
    loaded = load("m", version, repository=folder, device=device, cache=tmp_path)
    with_cache = sum(reads)
    assert all_bytes(loaded) == expected(models[version])
    reads.clear()
    load("m", version, repository=folder, device=device)
    assert with_cache < sum(reads) / 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("version", ["1.2.0", "1.3.0", "2.0.0"])
def test_a_flipped_byte_in_it_is_never_handed_over(
    tmp_path: Path, history: History, device: str, version: str
) -> None:
    folder, models = history
    load("m", "1.2.0", repository=folder, cache=tmp_path)
    for path in (tmp_path / "tensors").rglob("*"):
        if path.is_file():
            flip(path, 7)
    loaded = load("m", version, repository=folder, device=device, cache=tmp_path)
    assert all_bytes(loaded) == expected(models[version])
    again = load("m", version, repository=folder, device=device, cache=tmp_path)
    assert all_bytes(again) == expected(models[version])


@pytest.mark.gpu
@pytest.mark.parametrize("device", DEVICES[1:])
def test_frames_that_do_not_fit_what_is_kept(
    tmp_path: Path, history: History, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device may refuse a delta over wrong bytes before their digest tells."""
    folder, models = history
    load("m", "1.2.0", repository=folder, cache=tmp_path)
    before = kept(tmp_path)
    plain = device_decoding.codec.decode_many
    refused = 0

    def refuse(payloads: Any, outs: Any, bases: Any, **options: Any) -> None:
        nonlocal refused
        if not refused and bases[0] is not None:
            refused += 1
            error = CorruptDataError("a frame is not valid")
            error.job = 0
            raise error
        plain(payloads, outs, bases, **options)

    monkeypatch.setattr(device_decoding.codec, "decode_many", refuse)
    loaded = load("m", "1.3.0", repository=folder, device=device, cache=tmp_path)
    assert refused
    assert all_bytes(loaded) == expected(models["1.3.0"])
    lost = before.keys() - kept(tmp_path).keys()
    assert len(lost) == 1  # the base that was doubted, and no other


@pytest.mark.parametrize("device", DEVICES)
def test_a_tensor_that_is_removed_before_it_is_read(
    tmp_path: Path, history: History, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, models = history
    load("m", "1.3.0", repository=folder, cache=tmp_path)
    plain = LoadCache.find

    def gone(self: LoadCache, sizes: dict[str, int]) -> Any:
        found = plain(self, sizes)
        for held in found.values():
            Path(held.location).unlink()
        return found

    monkeypatch.setattr(LoadCache, "find", gone)
    loaded = load("m", "1.3.0", repository=folder, device=device, cache=tmp_path)
    assert all_bytes(loaded) == expected(models["1.3.0"])


def test_slices_come_out_of_it(tmp_path: Path, history: History, reads: list[int]) -> None:
    folder, models = history
    load("m", "1.3.0", repository=folder, cache=tmp_path)
    reads.clear()
    loaded = load("m", "1.3.0", repository=folder, cache=tmp_path, slices={"q": (0, 1, 4)})
    assert loaded["q"].tobytes() == expected(models["1.3.0"])["q"][4096:8192]
    assert sum(reads) <= header_bytes(folder, "1.3.0")


# --- its size -----------------------------------------------------------------------------------------------------


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    store = LoadCache(tmp_path, limit_bytes=10_000)
    data = {blake3_hex(bytes([n]) * 3000): bytes([n]) * 3000 for n in range(4)}
    names = list(data)
    for age, name in enumerate(names[:3]):
        assert store.add(name, 3000, [memoryview(data[name])])
        os.utime(tmp_path / "tensors" / name[:2] / name, (1000 + age, 1000 + age))
    assert store.find({names[0]: 3000})  # used now
    assert store.add(names[3], 3000, [memoryview(data[names[3]])])
    assert set(kept(tmp_path)) == {names[0], names[2], names[3]}
    assert not store.add("f" * 64, 10_001, [memoryview(bytes(10_001))])
    assert not store.find({names[0]: 2999})  # not that one
    with pytest.raises(InvalidInputError):
        LoadCache(tmp_path, limit_bytes=-1)


def test_stale_temporaries_go(tmp_path: Path) -> None:
    store = LoadCache(tmp_path, limit_bytes=5000)
    (tmp_path / "temporary").mkdir()
    for name, age in (("old", 10_000), ("new", 0)):
        (tmp_path / "temporary" / name).write_bytes(b"x")
        os.utime(tmp_path / "temporary" / name, (time.time() - age, time.time() - age))
    for n in range(2):
        store.add(f"{n}" * 64, 4000, [memoryview(bytes(4000))])
    assert {path.name for path in (tmp_path / "temporary").iterdir()} == {"new"}


# --- what is wrong with it does no harm ------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "write", "fsync", "scandir"])
def test_a_full_disk(tmp_path: Path, history: History, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, models = history
    store = LoadCache(tmp_path)

    class Full:
        """`os`, whose calls fail for the cache."""

        def __getattr__(self, name: str) -> Any:
            if name == call:
                return self._fail
            return getattr(os, name)

        @staticmethod
        def _fail(*arguments: Any, **options: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "os", Full())
        patch.setattr(folder_room, "os", Full())
        loaded = load("m", "1.3.0", repository=folder, cache=store)
    assert all_bytes(loaded) == expected(models["1.3.0"])
    assert store.problem is not None
    assert "No space left" in store.problem
    assert not kept(tmp_path)
    assert not [path for path in tmp_path.glob("temporary/*") if call != "open"]


def test_a_folder_that_is_a_file(tmp_path: Path, history: History) -> None:
    folder, models = history
    (tmp_path / "file").write_bytes(b"")
    store = LoadCache(tmp_path / "file")
    assert all_bytes(load("m", "1.0.0", repository=folder, cache=store)) == expected(models["1.0.0"])
    assert store.problem


# --- many at once --------------------------------------------------------------------------------------------------


def test_claims_are_for_one(tmp_path: Path) -> None:
    first, second = LoadCache(tmp_path), LoadCache(tmp_path)
    with first.claim(["aa1", "bb1"]) as mine:
        assert mine.mine == {"aa1", "bb1"}
        with second.claim(["aa2", "cc1"]) as theirs:
            assert (theirs.mine, theirs.others) == ({"cc1"}, {"aa2"})
            with pytest.raises(LoadTimeoutError):
                second.wait_for(theirs.others, Deadline(0.1))
        waiting = threading.Thread(target=second.wait_for, args=({"aa2"}, Deadline(10)))
        waiting.start()
        time.sleep(0.05)
        assert waiting.is_alive()
    waiting.join(5)
    assert not waiting.is_alive()


CHILD = """
import sys
import textnlp_fast
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.hashing import blake3_hex
plain = ObjectStore.get_ranges
read = 0
def counted(self, key, starts, lengths):
    global read
    read += sum(lengths)
    return plain(self, key, starts, lengths)
ObjectStore.get_ranges = counted
loaded = textnlp_fast.load("m", "1.3.0", repository=sys.argv[1], cache=sys.argv[2], timeout_s=60)
print(read, *sorted(blake3_hex(tensor.view("u1") if tensor.shape else tensor) for tensor in loaded.values()))
"""


def test_processes_share_the_work(tmp_path: Path, history: History) -> None:
    folder, models = history
    words = [sys.executable, "-c", CHILD, str(folder)]
    alone = subprocess.run([*words, str(tmp_path / "alone")], check=True, stdout=subprocess.PIPE, text=True)
    words.append(str(tmp_path / "together"))
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=120)[0].split() for process in running]
    right = sorted(blake3_hex(data) for data in expected(models["1.3.0"]).values())
    assert [sorted(answer[1:]) for answer in answers] == [right] * 3
    names = {blake3_hex(data) for data in expected(models["1.3.0"]).values() if data}
    assert kept(tmp_path / "together").keys() == names
    # Each reads the headers; what lies between neighbours is read along now and then.
    once = int(alone.stdout.split()[0])
    assert sum(int(answer[0]) for answer in answers) < 1.2 * once + 3 * header_bytes(folder, "1.3.0")


KILLED = """
import os, signal, sys
import textnlp_fast
from textnlp_fast.contents import folder_room
from textnlp_fast.loading import cache
calls = 0
class Dying:
    def __getattr__(self, name):
        found = getattr(os, name)
        if name not in ("open", "write", "fsync", "close", "utime"):
            return found
        def call(*arguments, **options):
            global calls
            calls += 1
            if calls == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
            return found(*arguments, **options)
        return call
cache.os = Dying()
textnlp_fast.load("m", "1.3.0", repository=sys.argv[1], cache=sys.argv[2])
"""


@pytest.mark.parametrize("step", [1, 9, 12, 14, 17, 20, 23])
def test_killed_at_any_step_it_is_still_right(tmp_path: Path, history: History, step: int) -> None:
    folder, models = history
    words = [sys.executable, "-c", KILLED, str(folder), str(tmp_path), str(step)]
    died = subprocess.run(words, check=False, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    for name, data in kept(tmp_path).items():
        assert blake3_hex(data) == name
    loaded = load("m", "1.3.0", repository=folder, cache=tmp_path, timeout_s=30)
    assert all_bytes(loaded) == expected(models["1.3.0"])
