"""What arrays on a device are asked, and what is believed of what they say: DLPack, __cuda_array_interface__."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codec.devices import INFO, NO_DEVICE, Bytes
from textnlp_fast import chunking, hashing
from textnlp_fast.delta import codec
from textnlp_fast.errors import InvalidInputError

pytestmark = [
    pytest.mark.gpu,
    NO_DEVICE,
    pytest.mark.skipif(not INFO["emulated"], reason="its arrays lie in host memory"),
]


class Producer:
    """An array that keeps what it was asked, in order."""

    def __init__(self, host: Bytes, kind: int = 2) -> None:
        self.host = host
        self.kind = kind
        self.asked: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        self.asked.append("device")
        return self.kind, 0

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        self.asked.append(stream)
        return self.host.__dlpack__()


class Described:
    """An array that says this of itself."""

    def __init__(self, host: Bytes, **facts: Any) -> None:
        self.host = host
        self.__cuda_array_interface__ = {
            "shape": host.shape,
            "typestr": "|u1",
            "data": (host.ctypes.data, False),
            "version": 3,
            **facts,
        }


def zeros(size: int = 64) -> Bytes:
    return np.zeros(size, np.uint8)


@pytest.mark.parametrize(("given", "told"), [(None, 1), (0, 1), (1, 1), (2, 2), (0x7F00_0000, 0x7F00_0000)])
def test_the_producer_is_told_the_stream(given: int | None, told: int) -> None:
    a, b, out = Producer(zeros()), Producer(zeros()), Producer(zeros())
    calls: list[tuple[list[Producer], Any]] = [
        ([a], lambda: hashing.blake3(a, stream=given)),
        ([a], lambda: chunking.boundaries(a, stream=given)),
        ([a, b], lambda: codec.diff(a, b, dtype="U8", stream=given)),
        (
            [out, b],
            lambda: codec.decode_into(codec.encode(zeros(), zeros(), dtype="U8"), out, b, stream=given),
        ),
    ]
    for producers, call in calls:
        for producer in producers:
            producer.asked.clear()
        call()
        for producer in producers:
            # Where it lies is asked before its data, as the protocol has it, and its data once.
            assert producer.asked[-2:] == ["device", told]
            assert producer.asked.count(told) == 1


def test_managed_memory_is_a_device_s_too() -> None:
    data = np.arange(64, dtype=np.uint8)
    array = Producer(data, kind=13)
    assert hashing.blake3(array) == hashing.blake3(data)
    assert array.asked[-1] == 1


def test_memory_of_other_devices_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="device"):
        hashing.blake3(Producer(zeros(), kind=10))  # ROCm


@pytest.mark.parametrize("stream", [None, 1, 2, 0x7F00_0000])
def test_streams_of_the_interface(stream: int | None) -> None:
    data = np.arange(64, dtype=np.uint8)
    for given in (None, 2):
        assert hashing.blake3(Described(data, stream=stream), stream=given) == hashing.blake3(data)


GOOD = [
    {"strides": None},
    {"strides": (1,)},
    {"shape": (4, 16), "strides": (16, 1)},
    {"shape": (1, 64), "strides": (9, 1)},
    {"shape": (16,), "typestr": "<f4"},
    {"mask": None},
]
BAD = [
    ({"stream": 0}, "stream 0"),
    ({"stream": "x"}, "protocol"),
    ({"shape": (32,), "strides": (2,)}, "contiguous"),
    ({"shape": (8, 8), "strides": (1, 8)}, "contiguous"),
    ({"shape": (8, 8), "strides": (8,)}, "protocol"),
    ({"mask": zeros()}, "masked"),
    ({"shape": (-1,)}, "protocol"),
    ({"shape": (1 << 40, 1 << 40)}, "protocol"),
    ({"shape": 64}, "protocol"),
    ({"typestr": ""}, "protocol"),
    ({"typestr": "|ux"}, "protocol"),
    ({"data": None}, "protocol"),
    ({"data": (0,)}, "protocol"),
    ({"data": (-1, False)}, "protocol"),
]


@pytest.mark.parametrize("facts", GOOD, ids=str)
def test_what_the_interface_may_say(facts: dict[str, Any]) -> None:
    assert hashing.blake3(Described(zeros(), **facts)) == hashing.blake3(zeros())


@pytest.mark.parametrize(("facts", "reason"), BAD, ids=lambda value: str(value)[:40])
def test_what_it_may_not_say(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        hashing.blake3(Described(zeros(), **facts))


def test_what_is_not_to_be_written() -> None:
    payload = codec.encode(zeros(), dtype="U8")
    with pytest.raises(InvalidInputError, match="writable"):
        codec.decode_into(payload, Described(zeros(), data=(zeros().ctypes.data, True)))


def test_a_missing_fact() -> None:
    array = Described(zeros())
    del array.__cuda_array_interface__["typestr"]
    with pytest.raises(InvalidInputError, match="protocol"):
        hashing.blake3(array)
