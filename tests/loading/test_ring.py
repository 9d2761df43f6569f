"""Staging buffers: as many as there are, one owner each, and whoever waits for one can be told to stop."""

from __future__ import annotations

import ctypes
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from codec.devices import INFO, NO_DEVICE
from textnlp_fast.errors import DeviceError, InvalidInputError, LoadCancelledError, LoadTimeoutError
from textnlp_fast.loading.ring import Deadline, StagingRing, host_memory
from textnlp_fast.tensors.device_memory import (
    CudaStream,
    DeviceArray,
    DeviceSpan,
    copy_to_device,
    copy_to_host,
    pinned_memory,
)


def test_the_budget_holds() -> None:
    ring = StagingRing.within(1 << 20, 1 << 16)
    assert (ring.slots, ring.slot_bytes) == (16, 1 << 16)
    small = StagingRing.within(1 << 16, 1 << 20)
    assert (small.slots, small.slot_bytes) == (2, 1 << 15)
    with pytest.raises(InvalidInputError, match="budget"):
        StagingRing.within(100, 10)
    with pytest.raises(InvalidInputError):
        StagingRing(0, 3)


def test_each_slot_has_one_owner() -> None:
    ring = StagingRing(4096, 3)
    held = 0
    most = 0
    lock = threading.Lock()

    def use(number: int) -> bool:
        nonlocal held, most
        rng = random.Random(number)
        for _ in range(30):
            slot = ring.take()
            with lock:
                held += 1
                most = max(most, held)
            mark = rng.randrange(256)
            slot.view[:] = bytes([mark]) * 4096
            time.sleep(0.0002)
            if slot.view.tobytes() != bytes([mark]) * 4096:
                return False
            with lock:
                held -= 1
            ring.give_back(slot)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(8)))
    assert most == 3


def test_who_waits_gets_the_slot_that_comes_back() -> None:
    ring = StagingRing(16, 1)
    slot = ring.take()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ring.take)
        time.sleep(0.05)
        assert not waiting.done()
        ring.give_back(slot)
        assert waiting.result(timeout=5) is slot


def test_waiting_ends_with_the_time_or_when_told() -> None:
    ring = StagingRing(16, 1)
    ring.take()
    begin = time.monotonic()
    with pytest.raises(LoadTimeoutError, match=r"0\.1 s"):
        ring.take(Deadline(0.1))
    assert 0.1 <= time.monotonic() - begin < 3
    event = threading.Event()
    threading.Timer(0.05, event.set).start()
    with pytest.raises(LoadCancelledError):
        ring.take(Deadline(cancelled=event))
    with pytest.raises(InvalidInputError):
        Deadline(0)
    threading.Timer(0.05, ring.close).start()
    with pytest.raises(LoadCancelledError, match="closed"):
        ring.take()


def test_a_slot_that_cannot_be_made_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = StagingRing(16, 1)

    def fail(size_bytes: int) -> memoryview:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("textnlp_fast.loading.ring.host_memory", fail)
        with pytest.raises(MemoryError):
            ring.take()
    assert len(ring.take(Deadline(1)).view) == 16


def test_a_block_gives_its_slot_back_even_if_it_fails() -> None:
    ring = StagingRing(16, 1)
    with pytest.raises(ZeroDivisionError), ring.borrow() as view:
        view[0] = 1 // 0
    ring.take(Deadline(1))


@pytest.mark.parametrize("size", [0, 1, 4097, (4 << 20) + 5])
def test_host_memory(size: int) -> None:
    view = host_memory(size)
    assert len(view) == size
    assert not any(view[:64])
    if size > 4096:
        assert np.frombuffer(view, np.uint8).ctypes.data % 4096 == 0


@pytest.mark.skipif(INFO["device_count"] != 0, reason="there is a device")
def test_without_a_device() -> None:
    for call in (
        lambda: StagingRing(16, 2, device=0),
        lambda: pinned_memory(16),
        lambda: DeviceArray.empty((4,), "U8", 4),
        lambda: CudaStream(0),
    ):
        with pytest.raises(DeviceError, match=r"CUDA|cuda"):
            call()


# --- with a device -----------------------------------------------------------------------------------------------


@pytest.mark.gpu
@NO_DEVICE
def test_there_and_back_through_two_slots() -> None:
    ring = StagingRing(1 << 12, 2, device=0)
    data = np.random.default_rng(1).integers(0, 256, (1 << 16) + 77, np.uint8)
    array = DeviceArray.empty(data.shape, "U8", data.nbytes, stream=ring.stream)
    for begin in range(0, data.nbytes, ring.slot_bytes):
        part = data[begin : begin + ring.slot_bytes]
        slot = ring.take(Deadline(10))
        slot.view[: part.nbytes] = part.data
        ring.send(slot, part.nbytes, array.span(), begin)
    ring.wait()
    assert bytes(array.to_host()) == data.tobytes()
    slot = ring.take(Deadline(10))
    assert ring.fetch(array, 1000, slot, 500).tobytes() == data[1000:1500].tobytes()
    ring.give_back(slot)
    ring.close()


@pytest.mark.gpu
@NO_DEVICE
def test_a_copy_that_is_refused_gives_the_slot_back() -> None:
    ring = StagingRing(64, 1, device=0)
    array = DeviceArray.empty((8,), "U8", 8, stream=ring.stream)
    with pytest.raises(InvalidInputError, match="passes the end"):
        ring.send(ring.take(), 64, array.span(), 0)
    slot = ring.take(Deadline(1))
    with pytest.raises(InvalidInputError, match="passes the end"):
        ring.fetch(array.span(), 4, slot, 8)
    for call in (lambda: copy_to_device(b"12", array, 7), lambda: copy_to_host(array, 9, bytearray(0))):
        with pytest.raises(InvalidInputError, match="passes the end"):
            call()


@pytest.mark.gpu
@NO_DEVICE
def test_page_locked_memory_is_a_buffer() -> None:
    view = pinned_memory(10_000)
    assert (len(view), view.readonly, view.format) == (10_000, False, "B")
    view[:] = bytes(range(250)) * 40
    assert np.frombuffer(view, np.uint8).ctypes.data % 4096 == 0


@pytest.mark.gpu
@NO_DEVICE
@pytest.mark.parametrize(
    ("dtype", "size", "typestr", "shape"),
    [
        ("BF16", 2, "<u2", (3, 4)),
        ("F32", 4, "<f4", (3, 4)),
        ("BOOL", 1, "|b1", (3, 4)),
        ("F8_E4M3", 1, "|u1", (3, 4)),
        ("C64", 8, "<c8", (3, 4)),
    ],
)
def test_what_an_array_says_of_itself(dtype: str, size: int, typestr: str, shape: tuple[int, ...]) -> None:
    array = DeviceArray.empty(shape, dtype, 12 * size)
    facts = array.__cuda_array_interface__
    assert (facts["typestr"], facts["shape"]) == (typestr, shape)
    assert array.__dlpack_device__() == (2, 0)
    assert dtype in repr(array)
    copy_to_device(bytes(range(12 * size)), array)
    assert bytes(array.to_host()) == bytes(range(12 * size))
    capsule: Any = array.__dlpack__(stream=1)
    span = array.span()
    del array
    out = bytearray(12 * size)
    copy_to_host(span, 0, out)  # on the default stream
    CudaStream(0).wait()
    assert bytes(out) == bytes(range(12 * size))
    del capsule


class _Tensor(ctypes.Structure):
    """DLManagedTensor of DLPack 0.8."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 4),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


@pytest.mark.gpu
@NO_DEVICE
def test_a_consumer_keeps_the_memory() -> None:
    """As torch does: it renames the capsule, keeps the tensor, and calls its deleter in the end."""
    array = DeviceArray.empty((3, 2), "BF16", 12)
    address = array.span().address
    capsule: Any = array.__dlpack__()
    get, rename = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_SetName
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
    pointer = get(capsule, b"dltensor")
    name = b"used_dltensor"
    rename(capsule, name)
    del capsule, array
    tensor = _Tensor.from_address(pointer)
    assert (tensor.data, list(tensor.device), tensor.ndim) == (address, [2, 0], 2)
    assert (list(tensor.dtype), tensor.shape[:2], tensor.byte_offset) == ([4, 16, 1, 0], [3, 2], 0)
    copy_to_device(b"twelve bytes", DeviceSpan(tensor.data, 12, None))
    out = bytearray(12)
    copy_to_host(DeviceSpan(tensor.data, 12, None), 0, out)
    CudaStream(0).wait()
    assert bytes(out) == b"twelve bytes"
    tensor.deleter(pointer)


@pytest.mark.gpu
@NO_DEVICE
def test_more_memory_than_there_is() -> None:
    with pytest.raises(DeviceError, match="bytes left") as caught:
        DeviceArray.empty((1 << 60,), "U8", 1 << 60)
    assert "slice" in caught.value.hint
