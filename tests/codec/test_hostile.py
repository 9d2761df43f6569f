"""Bytes from an enemy: a typed error or some tensor, never a crash, a hang, or a byte outside the buffers.

Payload, base and output lie against a page that may not be touched, so an over-read ends the process. Where
the reference has a verdict the core's must be the same, on every instruction set.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amounts import bits_to_flip, examples
from codec.inputs import DTYPES, ISAS, forced, pair
from codec.verdicts import BASE, OUT, PAYLOAD, agreed
from reference import codec_writer as writer
from reference.codec import DELTA, DIFFERENCE, PLANES, SPARSE
from reference.codec_elements import TYPES, Scheme
from reference.codec_writer import (
    DeltaForm,
    EvenForm,
    PlaneForm,
    TableForm,
    frame,
)
from textnlp_fast.delta import codec
from textnlp_fast.errors import CorruptDataError, UnsupportedFormatError

STATES: Final = (1 << 16).to_bytes(4, "little") * 32


# --- small frames of every kind, for what follows -----------------------------------------------------------


def samples() -> dict[str, tuple[bytes, bytes, bytes | None]]:
    """Payload, target, base: small enough to damage everywhere."""
    found: dict[str, tuple[bytes, bytes, bytes | None]] = {}
    for dtype, count, change in (
        ("BF16", 260, "sparse"),
        ("BF16", 333, "dense"),
        ("F32", 160, "wide"),
        ("F64", 90, "dense"),
        ("U8", 420, "sparse"),
    ):
        target, base = pair(dtype, count, 1, "weights" if dtype != "U8" else "zeros", change)
        found[f"{dtype} {change}"] = codec.encode(target, base, dtype=dtype), target, base
    target, base = pair("BF16", 500, 2, "weights", "dense")
    form = DeltaForm(10, Scheme(1, 1), 104, 20, 4, frozenset({2, 3}), TableForm(0, 1, 2))
    found["foreign delta"] = writer.encode_delta("BF16", target, base, form), target, base
    form = DeltaForm(
        11, Scheme(3, 1), 104, 20, 2, frozenset({5}), even=EvenForm(frozenset(range(3, 20)), 2, 3)
    )
    found["even delta"] = writer.encode_delta("BF16", target, base, form), target, base
    target, _ = pair("BF16", 700, 3, "weights", "same")
    found["BF16 alone"] = codec.encode(target, dtype="BF16"), target, None
    forms = [PlaneForm(2, 9, 2, TableForm(1, 2, 3)), PlaneForm(0)]
    found["foreign planes"] = writer.encode_planes("BF16", target, forms), target, None
    target, _ = pair("F8_E4M3", 1300, 3, "weights", "same")
    found["fine planes"] = writer.encode_planes("F8_E4M3", target, [PlaneForm(2, 13)]), target, None
    target, base = pair("I8", 900, 5, "weights", "nibbles")
    found["difference"] = writer.encode_difference("I8", target, base, PlaneForm(2, 11, 1)), target, base
    target, base = pair("BF16", 160, 4, "weights", "half_same")
    found["many frames"] = codec.encode(target, base, dtype="BF16", frame_size_bytes=64), target, base
    return found


SAMPLES: Final = samples()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_good(name: str) -> None:
    payload, target, base = SAMPLES[name]
    assert agreed(payload, len(target), base) == target


@pytest.mark.parametrize("name", SAMPLES)
def test_cut_anywhere(name: str) -> None:
    payload, target, base = SAMPLES[name]
    for end in range(len(payload)):
        assert agreed(payload[:end], len(target), base) == "corrupt"
        assert codec.scan(payload[:end]).encoded_bytes <= end


@pytest.mark.parametrize("name", SAMPLES)
def test_a_bit_flipped_anywhere(name: str) -> None:
    payload, target, base = SAMPLES[name]
    rng = np.random.default_rng(1)
    for bit in bits_to_flip(len(payload), 100):
        broken = bytearray(payload)
        broken[bit // 8] ^= 1 << bit % 8
        # The oracle is slow: all of the headers and tables, some of the rest.
        agreed(bytes(broken), len(target), base, with_oracle=bit < 8 * 100 or rng.random() < 0.05)


@pytest.mark.parametrize("name", SAMPLES)
def test_bytes_inserted_dropped_or_swapped(name: str) -> None:
    payload, target, base = SAMPLES[name]
    for at in range(0, len(payload), 7):
        agreed(payload[:at] + b"\0" + payload[at:], len(target), base, with_oracle=at < 100)
        agreed(payload[:at] + payload[at + 1 :], len(target), base, with_oracle=at < 100)
        other = payload[at : at + 2][::-1]
        agreed(payload[:at] + other + payload[at + 2 :], len(target), base, with_oracle=at < 100)


@pytest.mark.parametrize("name", SAMPLES)
def test_another_base_or_size(name: str) -> None:
    payload, target, base = SAMPLES[name]
    if base is not None:
        other = bytes(byte ^ 0x5A for byte in base)
        assert agreed(payload, len(target), other) != target
        assert agreed(payload, len(target), None) == "no base"
    for size in (0, 1, len(target) - 1, len(target) + 1, 2 * len(target)):
        part = None if base is None else (base * 2)[:size]
        assert agreed(payload, size, part) == "corrupt"
    assert agreed(payload + payload, len(target), base) == "corrupt"


# --- garbage ------------------------------------------------------------------------------------------------


@settings(max_examples=examples(400), deadline=None)
@given(payload=st.binary(max_size=300), size=st.integers(0, 600), with_base=st.booleans())
def test_garbage(payload: bytes, size: int, with_base: bool) -> None:
    agreed(payload, size, bytes(size) if with_base else None)


@settings(max_examples=examples(600), deadline=None)
@given(
    mode=st.sampled_from([PLANES, DELTA, SPARSE, DIFFERENCE]),
    dtype=st.sampled_from(DTYPES),
    start=st.lists(st.integers(0, 40), max_size=6),
    body=st.binary(max_size=500),
    seed=st.integers(0, 255),
)
def test_garbage_behind_a_good_header(
    mode: int, dtype: str, *, start: list[int], body: bytes, seed: int
) -> None:
    body = bytes(start) + body
    size = -(-max(len(body), 1) // 8) * 8 + 64
    base = np.random.default_rng(seed).bytes(size)
    agreed(frame(mode, dtype, size, body), size, base)


@settings(max_examples=examples(200), deadline=None)
@given(payload=st.binary(max_size=200))
def test_frames_of_garbage(payload: bytes) -> None:
    try:
        found = codec.scan(payload)
    except (CorruptDataError, UnsupportedFormatError) as error:
        assert error.position is not None
        assert error.position <= len(payload)
        return
    assert 0 <= found.encoded_bytes <= len(payload)


def test_the_position_points_at_the_frame() -> None:
    target, base = pair("BF16", 4096, 1, "weights", "sparse")
    payload = bytearray(codec.encode(target, base, dtype="BF16", frame_size_bytes=1024))
    found = codec.frames(payload)
    assert {frame.mode for frame in found} == {"learned"}
    begin = sum(frame.encoded_bytes for frame in found[:4])
    payload[begin + found[4].encoded_bytes - 1] ^= 0x80
    with pytest.raises(CorruptDataError, match="at byte") as caught:
        codec.decode_into(payload, bytearray(len(target)), base, threads=2)
    assert caught.value.position is not None
    assert begin <= caught.value.position <= begin + found[4].encoded_bytes


@pytest.mark.parametrize(
    "payload",
    [
        bytes([0x11, 2, 0x83, 0x00]) + b"abc" * 20,
        bytes([0x10, 2]) + b"\x80\x80\x80\x80\x80\x01" + bytes(20),
        bytes([0x13, 2, 0x80, 0x00]) + bytes(20),
    ],
    ids=["size of raw", "long size", "size of a delta"],
)
def test_a_malformed_header_is_not_taken_for_one_cut_short(payload: bytes) -> None:
    """A reader of a stream waits for more when a header is cut short; waiting for these would be for ever."""
    with pytest.raises(CorruptDataError):
        codec.scan(payload)


@pytest.mark.parametrize("change", ["sparse", "dense", "wide", "other"])
@pytest.mark.parametrize("dtype", ["U8", "BF16", "F32", "F64"])
def test_good_frames_at_the_edge_of_memory(dtype: str, change: str) -> None:
    """Valid input of every length, all buffers against a forbidden page, both ways."""
    for count in (1, 31, 32, 33, 65, 300, 1025, 4099 // TYPES[dtype].size * 2):
        target, base = pair(dtype, count, count, "weights", change)
        for isa in ISAS:
            payloads = []
            with forced(isa):
                for prior in (BASE.place(base), None):
                    room = PAYLOAD.room(codec.encode_bound(len(target)))
                    written = codec.encode_into(OUT.place(target), room, prior, dtype=dtype)
                    payloads.append(room[:written].tobytes())
            assert agreed(payloads[0], len(target), base, with_oracle=False) == target
            assert agreed(payloads[1], len(target), None, with_oracle=False) == target
