"""Shards that share a few buffers."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from typing import Any

import pytest

from textnlp_fast.errors import MissingObjectError
from textnlp_fast.storage.packing import ShardWriter

SHARD_BYTES = 1000


class HoldingStore:
    """Remembers what was written, and holds the writer's buffers for as long as ``holds`` more are written."""

    def __init__(self, holds: int) -> None:
        self.objects: dict[str, bytes] = {}
        self.held: deque[memoryview] = deque(maxlen=holds)
        self._lock = threading.Lock()

    def head(self, key: str) -> Any:
        raise MissingObjectError(key)

    def put_object(self, key: str, data: memoryview) -> None:
        with self._lock:
            self.objects[key.rpartition("/")[2]] = bytes(data)
            self.held.append(memoryview(data.obj))


class SlowStore(HoldingStore):
    """Writes nothing before it may."""

    def __init__(self) -> None:
        super().__init__(0)
        self.may = threading.Event()

    def put_object(self, key: str, data: memoryview) -> None:
        assert self.may.wait(60)
        super().put_object(key, data)


def test_names_are_known_before_uploads_are_over() -> None:
    store = SlowStore()
    with ShardWriter(store, SHARD_BYTES, buffers=2, packing=True, threads=1) as writer:
        writer.add(b"a" * 600)
        writer.add(b"b" * 600)
        writer.add(b"c" * 100)
        threading.Timer(
            0.2, store.may.set
        ).start()  # two shards of one buffer less: the second waits for the first
        named = writer.named()
        assert [(each.size, each.uploaded) for each in named] == [(600, False), (700, False)]
        stored = writer.finish()
    assert [each.digest for each in named] == [each.digest for each in stored] == [*store.objects]
    assert all(each.uploaded for each in stored)


@pytest.mark.parametrize("holds", [0, 1, 3, 100])
def test_buffers_that_others_hold_are_not_filled_again(holds: int) -> None:
    """The first shard is small, so that a buffer which comes back has to grow."""
    payloads = [hashlib.shake_128(bytes([index])).digest(10 + 61 * index % 997) for index in range(60)]
    store = HoldingStore(holds)
    with ShardWriter(store, SHARD_BYTES, buffers=2, packing=True, threads=1) as writer:
        slots = [writer.add(payload) for payload in payloads]
        shards = writer.finish()
    assert len(shards) > 20
    for payload, slot in zip(payloads, slots, strict=True):
        data = store.objects[shards[slot.shard].digest]
        assert data[slot.offset : slot.offset + slot.length] == payload
    if holds == 0:
        return
    contents = set(store.objects.values())
    for view in store.held:
        assert any(bytes(view[: len(content)]) == content for content in contents), "it was filled again"
