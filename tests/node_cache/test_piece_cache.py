"""The folder of pieces: kills, damage, limits, several processes, disks that fail."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore.peers import piece_cache
from textnlp_fast.objectstore.peers.piece_cache import PieceCache
from textnlp_fast.objectstore.peers.pieces import LEAST_PIECE_BYTES, Layout, ValueList, key_of, values_of

PIECE = LEAST_PIECE_BYTES


def content(seed: int, size: int) -> tuple[bytes, str, Layout]:
    data = random.Random(seed).randbytes(size)
    return data, blake3_hex(data), Layout(size)


def part(data: bytes, layout: Layout, piece: int) -> bytes:
    return data[layout.offset(piece) :][: layout.length(piece)]


def test_what_was_added_comes_back_and_nothing_else(tmp_path: Path) -> None:
    data, digest, layout = content(1, 3 * PIECE + 100)
    cache = PieceCache(tmp_path)
    assert cache.get(digest, layout, 0) is None
    assert cache.add(digest, layout, 1, part(data, layout, 1))
    assert cache.add(digest, layout, 3, part(data, layout, 3))
    again = PieceCache(tmp_path)
    assert again.held(digest, layout) == [False, True, False, True]
    assert [again.get(digest, layout, piece) is None for piece in range(4)] == [True, False, True, False]
    assert again.get(digest, layout, 3) == data[3 * PIECE :]


def test_damage_is_absence(tmp_path: Path) -> None:
    data, digest, layout = content(2, 2 * PIECE)
    cache = PieceCache(tmp_path)
    for piece in range(2):
        cache.add(digest, layout, piece, part(data, layout, piece))
    place = tmp_path / key_of(digest)
    with place.open("r+b") as file:
        file.seek(17)
        file.write(b"?")
    assert cache.get(digest, layout, 0) is None
    assert cache.get(digest, layout, 1) is not None
    place.with_name(f"{place.name}.map").write_bytes(b"\1" * 40)  # torn
    assert cache.get(digest, layout, 1) is None
    os.truncate(place, 10)
    assert cache.get(digest, layout, 0) is None
    assert cache.add(digest, layout, 0, part(data, layout, 0))
    assert cache.get(digest, layout, 0) == part(data, layout, 0)


def test_lists_prove_themselves(tmp_path: Path) -> None:
    data, digest, layout = content(3, 2 * PIECE + 5)
    values = ValueList(
        digest, layout, b"".join(values_of(part(data, layout, n), layout.offset(n)) for n in range(3))
    )
    PieceCache(tmp_path).add_values(values)
    found = PieceCache(tmp_path).values(digest, layout)
    assert found is not None
    assert found.values == values.values
    place = tmp_path / f"{key_of(digest)}.values"
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    assert PieceCache(tmp_path).values(digest, layout) is None
    assert PieceCache(tmp_path).values(digest, Layout(layout.size_bytes + 1)) is None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_cache, "_LOOK_AGAIN_BYTES", 0)
    cache = PieceCache(tmp_path, limit_bytes=6 * PIECE)
    made = [content(seed, 2 * PIECE) for seed in range(5)]
    for age, (data, digest, layout) in enumerate(made):
        for piece in range(2):
            cache.add(digest, layout, piece, part(data, layout, piece))
        at = time.time() - 1000 + age
        os.utime(tmp_path / key_of(digest), (at, at))
    taken = sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*") if path.is_file())
    assert taken <= 6 * PIECE + 64 * 1024
    held = [cache.get(digest, layout, 0) is not None for _, digest, layout in made]
    assert held == sorted(held)
    assert held[-1]
    assert not held[0]
    big, digest, layout = content(9, 7 * PIECE)
    assert not cache.add(digest, layout, 0, part(big, layout, 0))


@pytest.mark.parametrize("call", ["open", "pwrite", "pread", "scandir"])
def test_a_disk_that_fails_is_no_cache(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, digest, layout = content(4, 2 * PIECE)
    cache = PieceCache(tmp_path)

    class Full:
        def __getattr__(self, name: str) -> Any:
            return self._fail if name == call else getattr(os, name)

        @staticmethod
        def _fail(*arguments: Any, **options: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(piece_cache, "os", Full())
    from textnlp_fast.contents import folder_room  # noqa: PLC0415

    monkeypatch.setattr(folder_room, "os", Full())
    (tmp_path / "objects").mkdir()
    kept = cache.add(digest, layout, 0, part(data, layout, 0))
    assert cache.get(digest, layout, 0) in (None, part(data, layout, 0))
    if call != "pread":
        assert not kept
    assert cache.problem is not None
    assert "No space left" in cache.problem


WRITER = """
import random, sys
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore.peers.piece_cache import PieceCache
from textnlp_fast.objectstore.peers.pieces import Layout
cache = PieceCache(sys.argv[1])
data = random.Random(5).randbytes(8 << 20)
digest, layout = blake3_hex(data), Layout(8 << 20)
print("on", flush=True)
while True:
    for piece in range(layout.count):
        cache.add(digest, layout, piece, data[layout.offset(piece):][:layout.length(piece)])
"""


def test_killed_at_any_instant_beside_another(tmp_path: Path) -> None:
    data, digest, layout = content(5, 8 << 20)
    cache = PieceCache(tmp_path)
    rng = random.Random(0)
    for _ in range(3):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for one in writers:
            assert one.stdout is not None
            assert one.stdout.readline()
        time.sleep(rng.uniform(0, 0.1))
        for one in writers:
            one.send_signal(signal.SIGKILL)
            one.wait()
            assert one.stdout is not None
            one.stdout.close()
        for piece in range(layout.count):
            assert cache.get(digest, layout, piece) in (None, part(data, layout, piece))
    for piece in range(layout.count):
        assert cache.add(digest, layout, piece, part(data, layout, piece))
        assert cache.get(digest, layout, piece) == part(data, layout, piece)
