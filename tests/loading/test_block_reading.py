"""Blocks of files: the same bytes out of the page cache, past it, and where neither can be asked for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textnlp_fast import load
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading import block_reading
from textnlp_fast.loading.block_reading import ALIGNMENT_BYTES, BlockFiles
from textnlp_fast.loading.ring import host_memory

SIZE = 5 * ALIGNMENT_BYTES + 123


class Odd:
    """`os`, whose reads answer as other kernels, file systems and disks do."""

    def __init__(self, cached: str, direct: str) -> None:
        self._cached = cached
        self._direct = direct
        self.direct_reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int) -> int:
        if flags & os.O_DIRECT:
            if self._direct == "cannot open":
                raise OSError(errno.EINVAL, "Invalid argument")
            flags &= ~os.O_DIRECT  # not every disk that tests run on can
        return os.open(path, flags)

    def preadv(self, descriptor: int, views: Any, offset: int, flags: int = 0) -> int:
        if flags:
            if self._cached in ("EAGAIN", "EOPNOTSUPP"):
                raise OSError(getattr(errno, self._cached), "no")
            if self._cached == "a part":
                views = [views[0][: len(views[0]) // 2]]
            return os.preadv(descriptor, views, offset)
        self.direct_reads += 1
        address = np.frombuffer(views[0], np.uint8).ctypes.data if len(views[0]) else 0
        assert (offset % ALIGNMENT_BYTES, len(views[0]) % ALIGNMENT_BYTES, address % ALIGNMENT_BYTES) == (
            0,
            0,
            0,
        )
        if self._direct == "cannot read":
            raise OSError(errno.EINVAL, "Invalid argument")
        if self._direct == "a part":
            views = [views[0][:ALIGNMENT_BYTES]]
        return os.preadv(descriptor, views, offset)


CACHED = ["all", "EAGAIN", "EOPNOTSUPP", "a part"]
DIRECT = ["all", "cannot open", "cannot read", "a part"]


@pytest.mark.parametrize("cached", CACHED)
@pytest.mark.parametrize("direct", DIRECT)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(begin=st.integers(0, SIZE), size=st.integers(1, SIZE))
def test_any_block(
    tmp_path: Path, cached: str, direct: str, begin: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(0).bytes(SIZE)
    path = tmp_path / "file"
    path.write_bytes(data)
    odd = Odd(cached, direct)
    room = host_memory(SIZE + 2 * ALIGNMENT_BYTES)
    with monkeypatch.context() as patch, BlockFiles() as files:
        patch.setattr(block_reading, "os", odd)
        if begin + size > SIZE:
            with pytest.raises(InvalidInputError, match="ended"):
                files.read_block(str(path), room, begin, size)
            return
        at = files.read_block(str(path), room, begin, size)
        assert room[at : at + size].tobytes() == data[begin : begin + size]
        assert (odd.direct_reads > 0) == (cached in ("EAGAIN", "a part") and direct != "cannot open")


@pytest.mark.parametrize("call", ["read_cached", "read_block"])
def test_a_disk_that_fails(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    header = b'{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"1234")

    def fail(self: BlockFiles, *arguments: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    if call == "read_block":
        monkeypatch.setattr(BlockFiles, "read_cached", lambda *arguments: False)
        monkeypatch.setattr(BlockFiles, "_read_past_cache", fail)
    else:
        monkeypatch.setattr(BlockFiles, call, fail)
    with pytest.raises(InvalidInputError, match="Input/output error"):
        load(path)


def test_really_past_the_cache(tmp_path: Path) -> None:
    """On whatever disk this is: a file that was just dropped comes back whole."""
    data = np.random.default_rng(1).bytes(SIZE)
    path = tmp_path / "file"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    room = host_memory(SIZE + 2 * ALIGNMENT_BYTES)
    with BlockFiles() as files:
        at = files.read_block(str(path), room, 100, SIZE - 100)
        assert room[at : at + SIZE - 100].tobytes() == data[100:]
