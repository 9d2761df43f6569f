"""A fixed number of staging buffers between files or networks and the memory where tensors are used.

Page-locked where there is a device, so that it copies by itself while the processor fills the next slot; huge pages
where the kernel gives them, and touched once: the first touch of fresh memory costs more than most of what follows.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError, LoadCancelledError, LoadTimeoutError
from textnlp_fast.tensors.device_memory import (
    CudaEvent,
    CudaStream,
    copy_to_device,
    copy_to_host,
    pinned_memory,
)

__all__ = ["Deadline", "Slot", "StagingRing", "host_memory"]

_LONGEST_WAIT_S: Final = 0.05
_POLL_S: Final = 0.0002
_HUGE_PAGE_BYTES: Final = 2 << 20


class Deadline:
    """When a call must stop: ``timeout_s`` from now, or as soon as ``cancelled`` is set."""

    def __init__(self, timeout_s: float | None = None, cancelled: threading.Event | None = None) -> None:
        if timeout_s is not None and timeout_s <= 0:
            raise InvalidInputError(f"timeout_s is {timeout_s}; it is positive, or None for no limit")
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._cancelled = cancelled

    def check(self) -> None:
        """Raises LoadCancelledError or LoadTimeoutError if it is time to stop."""
        if self._cancelled is not None and self._cancelled.is_set():
            raise LoadCancelledError("the load was cancelled; nothing was handed over")
        if self._end is not None and time.monotonic() >= self._end:
            raise LoadTimeoutError(
                f"the load was not done after {self._timeout_s:g} s; nothing was handed over"
            )


class Slot:
    """A taken staging buffer; ``view`` are its bytes. It is given back once, by whoever uses it last."""

    __slots__ = ("event", "view")

    def __init__(self, view: memoryview, event: CudaEvent | None) -> None:
        self.view = view
        self.event = event


class StagingRing:
    """``slots`` buffers of ``slot_bytes`` each, shared by any number of threads.

    With a ``device`` (its number) copies to and from it go over a stream of the ring's own. Who holds a slot while
    waiting for a second one can wait for ever: threads take one at a time. ``close`` when all slots are back.
    """

    def __init__(self, slot_bytes: int, slots: int, *, device: int | None = None) -> None:
        if slot_bytes < 1 or slots < 1:
            raise InvalidInputError(f"a ring of {slots} slots of {slot_bytes} bytes holds nothing")
        self.slot_bytes = slot_bytes
        self.slots = slots
        self.device = device
        self._stream = None if device is None else CudaStream(device)
        self._changed = threading.Condition()
        self._free: list[Slot] = []
        self._copying: deque[Slot] = deque()
        self._unmade = slots
        self._closed = False

    @classmethod
    def within(cls, budget_bytes: int, slot_bytes: int, *, device: int | None = None) -> StagingRing:
        """As many slots as the budget has room for, at least two, of ``slot_bytes`` or what two leave of it."""
        if budget_bytes < 2 << 12:
            raise InvalidInputError(
                f"a budget of {budget_bytes} bytes has no room for two staging buffers",
                hint="Raise memory_budget_bytes.",
            )
        size = min(slot_bytes, budget_bytes // 2)
        return cls(size, budget_bytes // size, device=device)

    @property
    def stream(self) -> int:
        """The stream that copies are queued on; 0 without a device."""
        return 0 if self._stream is None else self._stream.address

    def take(self, deadline: Deadline | None = None) -> Slot:
        """A free slot; waits while others hold all of them, or copies out of them are under way.

        Raises LoadCancelledError and LoadTimeoutError as the deadline says.
        """
        while True:
            if deadline is not None:
                deadline.check()
            with self._changed:
                if self._closed:
                    raise LoadCancelledError("the ring was closed")
                self._collect()
                if self._free:
                    return self._free.pop()
                if self._unmade:
                    self._unmade -= 1
                    break
                self._changed.wait(_POLL_S if self._copying else _LONGEST_WAIT_S)
        try:
            return self._new_slot()
        except BaseException:
            with self._changed:
                self._unmade += 1
                self._changed.notify()
            raise

    def give_back(self, slot: Slot) -> None:
        """Makes a taken slot free for others at once."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    @contextmanager
    def borrow(self, deadline: Deadline | None = None) -> Iterator[memoryview]:
        """A slot's bytes for the duration of the block."""
        slot = self.take(deadline)
        try:
            yield slot.view
        finally:
            self.give_back(slot)

    def send(self, slot: Slot, size_bytes: int, array: Any, offset: int = 0) -> None:
        """Queues a copy of the slot's first bytes to byte ``offset`` of an array on the device.

        The slot is given back, and free again when the copy is done; if this raises, at once.
        """
        self.scatter(slot, [(0, size_bytes, array, offset)])

    def scatter(self, slot: Slot, copies: Sequence[tuple[int, int, Any, int]]) -> None:
        """``send`` for several stretches of the slot: begin and bytes in it, array, and byte of the array."""
        try:
            for begin, size_bytes, array, offset in copies:
                copy_to_device(slot.view[begin : begin + size_bytes], array, offset, stream=self.stream)
            if slot.event is not None:
                slot.event.record(self.stream)
        except BaseException:
            self.wait()  # what was queued may still read the slot
            self.give_back(slot)
            raise
        with self._changed:
            self._copying.append(slot)
            self._changed.notify()

    def fetch(self, array: Any, offset: int, slot: Slot, size_bytes: int) -> memoryview:
        """Copies bytes of an array on the device into the slot, waits, and gives them as a view of it."""
        view = slot.view[:size_bytes]
        copy_to_host(array, offset, view, stream=self.stream)
        if slot.event is not None:
            slot.event.record(self.stream)
            slot.event.wait()
        return view

    def wait(self) -> None:
        """Waits until all copies that were queued are done."""
        if self._stream is not None:
            self._stream.wait()

    def close(self) -> None:
        """Waits for the copies and lets the memory go; ``take`` raises from now on."""
        self.wait()
        with self._changed:
            self._closed = True
            self._copying.clear()
            self._free.clear()
            self._changed.notify_all()

    def _collect(self) -> None:
        """Frees the slots whose copies are done. They end in the order of the stream."""
        while self._copying and (self._copying[0].event is None or self._copying[0].event.is_done()):
            self._free.append(self._copying.popleft())

    def _new_slot(self) -> Slot:
        if self.device is None:
            return Slot(host_memory(self.slot_bytes), None)
        return Slot(pinned_memory(self.slot_bytes, device=self.device), CudaEvent(self.device))


def host_memory(size_bytes: int) -> memoryview:
    """Fresh, zeroed, page-aligned memory, on huge pages where the kernel gives them; it lives as long as its views."""
    if not size_bytes:
        return memoryview(bytearray())
    # Private: shared mappings, Python's default, get no huge pages, and take ten times as long to touch.
    region = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE") and size_bytes >= _HUGE_PAGE_BYTES:
        try:
            region.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            # A kernel without them: the same memory on small pages.
            return memoryview(region)
    return memoryview(region)
