"""What it takes to put memory back as it was: for each window that is overwritten, the delta from new to old.

The reverse of a small change is small, so the journal of an update takes about what its patch does, and none of it a
copy of the model.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from textnlp_fast.contents.staging import disk_errors
from textnlp_fast.contents.windows import BufferPool
from textnlp_fast.delta import codec
from textnlp_fast.loading.memory import DeviceBytes, Memory

__all__ = ["Change", "Journal"]


@dataclass(slots=True)
class Change:
    """A window of some memory. Until it is written ``old`` holds its bytes from before or, on a device, ``new`` those
    to come."""

    memory: Memory
    dtype: str
    old: memoryview | None
    new: DeviceBytes | None = None
    payload: bytes | None = None
    spilled: tuple[int, int] | None = None


class Journal:
    """Changes in the order in which they were made. Thread-safe.

    Payloads are kept in memory up to ``memory_bytes``, and then in a file without a name.
    """

    def __init__(self, memory_bytes: int, *, window_bytes: int, threads: int) -> None:
        self._memory_bytes = memory_bytes
        self._buffers = BufferPool(codec.encode_bound(window_bytes))
        self._threads = threads
        self._changes: list[Change] = []
        self._held_bytes = 0
        self._spill: IO[bytes] | None = None
        self._spilled_bytes = 0
        self._lock = threading.Lock()

    @property
    def payload_bytes(self) -> int:
        """What the journal takes, in memory and in its file."""
        return self._held_bytes + self._spilled_bytes

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._spill is not None:
            self._spill.close()

    def write(self, memory: Memory, new: memoryview | DeviceBytes, dtype: str) -> None:
        """Overwrites ``memory`` with ``new``, able to go back from any point of it.

        What lies on a device is coded there. If this raises, ``new`` must stay as it is until all was put back.
        """
        if isinstance(new, DeviceBytes):
            self._write_on_device(memory, new, dtype)
            return
        buffer = self._buffers.take()
        old = memoryview(buffer)[: memory.size]
        memory.read(old)
        change = Change(memory, dtype, old)
        with self._buffers.borrow() as coded:
            written = codec.encode_into(old, coded, new, dtype=dtype, threads=self._threads)
            change.payload = bytes(coded[:written])
        with self._lock:
            self._keep(change)
            self._changes.append(change)
        memory.write(new)
        change.old = None
        self._buffers.give_back(buffer)

    def _write_on_device(self, memory: Memory, new: DeviceBytes, dtype: str) -> None:
        assert isinstance(memory, DeviceBytes)
        payload = codec.encode(memory.array, new.array, dtype=dtype, stream=new.stream)
        change = Change(memory, dtype, None, new=new, payload=payload)
        with self._lock:
            self._keep(change)
            self._changes.append(change)
        memory.copy_from(new)
        change.new = None

    def restore(self) -> Iterator[Change]:
        """Puts back what was overwritten, the last change first, and yields each that is done."""
        while self._changes:
            change = self._changes[-1]
            if change.old is not None:
                change.memory.write(change.old)
            else:
                if change.new is not None and isinstance(change.memory, DeviceBytes):
                    change.memory.copy_from(change.new)  # the way back starts from all of it
                array = change.memory.array
                codec.decode_into(self._payload(change), array, array, threads=self._threads)
            self._changes.pop()
            yield change

    def _keep(self, change: Change) -> None:
        payload = change.payload
        assert payload is not None
        if self._held_bytes + len(payload) <= self._memory_bytes:
            self._held_bytes += len(payload)
            return
        with disk_errors(Path(tempfile.gettempdir())):
            if self._spill is None:
                self._spill = tempfile.TemporaryFile(prefix="textnlp-fast-undo-")  # noqa: SIM115
            self._spill.seek(self._spilled_bytes)
            self._spill.write(payload)
            self._spill.flush()
        change.spilled = self._spilled_bytes, len(payload)
        change.payload = None
        self._spilled_bytes += len(payload)

    def _payload(self, change: Change) -> bytes:
        if change.payload is not None:
            return change.payload
        assert change.spilled is not None
        assert self._spill is not None
        offset, size = change.spilled
        self._spill.seek(offset)
        return self._spill.read(size)
