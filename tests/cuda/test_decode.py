"""Frames decoded on a device equal what the core makes of them: golden vectors, many at once, hostile bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.devices import INFO, NO_DEVICE, Bytes, to_device, to_host
from codec.test_vectors import INDEX, part
from textnlp_fast.delta import codec
from textnlp_fast.errors import CorruptDataError, DeviceError, InvalidInputError, TextnlpFastError

pytestmark = [pytest.mark.gpu, NO_DEVICE]

# Steps of a fiber are slow: long vectors have shorter twins.
LONG = 1 << 18
VECTORS = [vector for vector in INDEX if not INFO["emulated"] or vector["size"] <= LONG]


def array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8).copy()


def ends(vector: dict[str, Any]) -> tuple[bytes, Bytes | None]:
    return part(vector["payload"]), None if vector["base"] is None else array(part(vector["base"]))


@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any], offset: int) -> None:
    payload, base = ends(vector)
    out = to_device(np.full(vector["size"], 0xA5, np.uint8), offset=offset)
    codec.decode_into(payload, out, None if base is None else to_device(base, offset=offset))
    assert hashlib.sha256(to_host(out).tobytes()).hexdigest() == vector["sha256"]
    if base is None:
        return
    in_place = to_device(base, offset=offset, interface=True)
    codec.decode_into(payload, in_place, in_place)
    assert hashlib.sha256(to_host(in_place).tobytes()).hexdigest() == vector["sha256"]


def test_all_at_once_and_the_damaged_one_is_named() -> None:
    payloads = [ends(vector)[0] for vector in VECTORS]
    bases = [None if base is None else to_device(base) for base in (ends(vector)[1] for vector in VECTORS)]
    outs = [to_device(np.zeros(vector["size"], np.uint8)) for vector in VECTORS]
    codec.decode_many(payloads, outs, bases)
    for vector, out in zip(VECTORS, outs, strict=True):
        assert hashlib.sha256(to_host(out).tobytes()).hexdigest() == vector["sha256"], vector["name"]
    bad = next(n for n, vector in enumerate(VECTORS) if "sparse" in vector["modes"] and n > 9)
    payloads[bad] = payloads[bad][:-1] + bytes([payloads[bad][-1] ^ 0x80])
    with pytest.raises(CorruptDataError) as caught:
        codec.decode_many(payloads, outs, bases)
    assert caught.value.job == bad
    with pytest.raises(CorruptDataError) as on_the_host:
        base = ends(VECTORS[bad])[1]
        codec.decode_into(payloads[bad], np.zeros(VECTORS[bad]["size"], np.uint8), base)
    # The device tells the frame, the core the byte in it.
    assert caught.value.position <= on_the_host.value.position
    long = next(n for n, vector in enumerate(VECTORS) if n < bad and vector["size"] != 0)
    bases[long] = outs[long] = to_device(np.zeros(VECTORS[long]["size"] + 8, np.uint8))
    with pytest.raises(CorruptDataError, match="fewer bytes") as first:
        codec.decode_many(payloads, outs, bases)
    assert first.value.job == long


SMALL = [vector for vector in VECTORS if 0 < vector["size"] <= 4096]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SMALL), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), max_size=3))
def test_damage_is_judged_as_the_core_judges_it(
    vector: dict[str, Any], damage: list[tuple[int, int]]
) -> None:
    payload, base = ends(vector)
    damaged = bytearray(payload)
    for at, mask in damage:
        damaged[at % len(damaged)] ^= mask
    expected: bytes | None = None
    by_core = np.zeros(vector["size"], np.uint8)
    try:
        codec.decode_into(damaged, by_core, base)
        expected = by_core.tobytes()
    except TextnlpFastError as error:
        kind = type(error)
    out = to_device(np.zeros(vector["size"], np.uint8))
    on_device = None if base is None else to_device(base)
    if expected is None:
        with pytest.raises(kind):
            codec.decode_into(damaged, out, on_device)
    else:
        codec.decode_into(damaged, out, on_device)
        assert to_host(out).tobytes() == expected


def test_wrong_calls() -> None:
    data = np.arange(256, dtype=np.uint8)
    payload = codec.encode(data, data, dtype="U8")
    out = to_device(np.zeros(256, np.uint8))
    with pytest.raises(InvalidInputError, match="base"):
        codec.decode_into(payload, out)
    with pytest.raises(InvalidInputError, match="size"):
        codec.decode_into(payload, out, to_device(data[:128]))
    with pytest.raises(InvalidInputError, match="host memory"):
        codec.decode_into(payload, out, data)
    with pytest.raises(InvalidInputError, match="as many"):
        codec.decode_many([payload], [out, out])
    codec.decode_many([], [])


@pytest.mark.skipif(not INFO["emulated"], reason="a real device may have a second")
def test_a_device_that_is_not_there() -> None:
    class Elsewhere:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 7

        def __dlpack__(self, *, stream: int | None = None) -> Any:
            return np.zeros(4, np.uint8).__dlpack__()

    with pytest.raises(DeviceError):
        codec.decode_into(codec.encode(np.zeros(4, np.uint8), dtype="U8"), Elsewhere())
