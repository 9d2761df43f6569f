"""Errors say which of many tensors they are about, and what to do where there is no device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codec.devices import INFO, NO_DEVICE, EmulatedArray, InterfaceArray, to_device
from textnlp_fast import chunking, cuda_available, devices, hashing
from textnlp_fast.delta import codec, low_rank
from textnlp_fast.delta.low_rank import Factors
from textnlp_fast.errors import CorruptDataError, DeviceError, InvalidInputError, naming

DATA = np.arange(256, dtype=np.uint8)
NAMES = ["model.embed", "model.head"]


def damaged() -> list[bytes]:
    whole = codec.encode(DATA, dtype="U8")
    return [whole, whole[:-1]]


def test_names_on_the_host() -> None:
    outs = [DATA.copy(), DATA.copy()]
    with pytest.raises(CorruptDataError, match=r"^tensor 'model.head': ") as caught:
        codec.decode_many(damaged(), outs, names=NAMES)
    assert caught.value.job == 1
    assert caught.value.hint in str(caught.value)
    with pytest.raises(InvalidInputError, match="1 names for 2"):
        codec.decode_many(damaged(), outs, names=NAMES[:1])
    with pytest.raises(CorruptDataError, match=r"^(?!tensor)"):
        codec.decode_many(damaged(), outs)


@pytest.mark.gpu
@NO_DEVICE
def test_names_on_a_device() -> None:
    outs = [to_device(DATA), to_device(DATA)]
    with pytest.raises(CorruptDataError, match=r"^tensor 'model.head': ") as caught:
        codec.decode_many(damaged(), outs, names=NAMES)
    assert caught.value.job == 1
    with pytest.raises(InvalidInputError, match=r"^tensor 'model.head': .*size"):
        codec.decode_many([damaged()[0]] * 2, outs, [None, to_device(DATA[:9])], names=NAMES)
    with pytest.raises(InvalidInputError, match=r"^tensor 'model.head': "):
        hashing.blake3_many([outs[0], DATA], names=NAMES)


def test_an_error_about_all_of_them() -> None:
    with (
        pytest.raises(DeviceError, match=r"^tensor 'model.embed' and 1 more: a launch") as caught,
        naming(NAMES, 2),
    ):
        raise DeviceError("a launch failed")
    assert caught.value.job is None
    with pytest.raises(DeviceError, match=r"^tensor 'model.head': a launch"), naming(NAMES[1:], 1):
        raise DeviceError("a launch failed")


def test_devices_are_told() -> None:
    assert len(devices()) == INFO["device_count"]
    assert cuda_available() == bool(devices())
    for number, device in enumerate(devices()):
        assert device.number == number
        assert device.name
        assert device.emulated == INFO["emulated"]


@pytest.mark.skipif(INFO["device_count"] > 0, reason="a CUDA device is present")
@pytest.mark.parametrize("kind", [EmulatedArray, InterfaceArray])
def test_without_a_device_every_call_says_what_to_do(kind: Any) -> None:
    array = kind(DATA.copy())
    payload = codec.encode(DATA, dtype="U8")
    factors = Factors(1, 1, 1, 1.0, bytes(4), bytes(4), "F32", "F32")
    pair = kind(np.zeros(2, np.uint8))
    calls: list[Any] = [
        lambda: hashing.blake3(array),
        lambda: hashing.blake3_many([array, array], names=NAMES),
        lambda: hashing.xet_hash(array),
        lambda: hashing.blake3_spans(array, np.array([4], np.uint64)),
        lambda: chunking.boundaries(array),
        lambda: codec.diff(array, array, dtype="U8"),
        lambda: codec.decode_into(payload, array),
        lambda: codec.decode_many([payload, payload], [array, array], names=NAMES),
        lambda: low_rank.predict_into(pair, pair, factors, dtype="BF16"),
    ]
    for call in calls:
        with pytest.raises(DeviceError, match="host memory"):
            call()
    with pytest.raises(DeviceError, match=r"^tensor 'model.embed' and 1 more: "):
        hashing.blake3_many([array, array], names=NAMES)
    # What needs no device works.
    assert hashing.blake3(DATA) == hashing.blake3(DATA.tobytes())
    assert array.host.tobytes() == DATA.tobytes()
