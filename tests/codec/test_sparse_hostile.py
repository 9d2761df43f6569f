"""Sparse and learned frames from an enemy: the core and the reference agree on each, on every instruction set."""

from __future__ import annotations

from struct import pack
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amounts import bits_to_flip, examples
from codec.inputs import DTYPES, coders, pair, stepped
from codec.verdicts import agreed
from reference.codec import AS_STEPS, BY_BITS, IN_LANES, LEARNED, PAIRED, SPARSE
from reference.codec_elements import Scheme
from reference.codec_learned import MOST_ELEMENTS, ChangeChances
from reference.codec_sparse import Chance, PlaceChances
from reference.codec_sparse_writer import PairWriter, SparseForm, encode_sparse
from reference.codec_writer import DeltaForm, EvenForm, TableForm, frame, number_bits, pack_bits, varint
from textnlp_fast.delta import codec


def samples() -> dict[str, tuple[bytes, bytes, bytes]]:
    """Payload, target, base: of every coder, by the core and by hand."""
    found: dict[str, tuple[bytes, bytes, bytes]] = {}
    for dtype, count, change in (
        ("BF16", 700, "rare"),
        ("BF16", 600, "sparse"),
        ("I8", 1500, "some_blocks"),
        ("F32", 400, "sparse"),
        ("U64", 150, "sparse"),
    ):
        target, base = pair(dtype, count, 1, "weights", change)
        found[f"{dtype} {change}"] = codec.encode(target, base, dtype=dtype), target, base
    for dtype, size in (("BF16", 1e-3), ("F16", 1e-4), ("F32", 1e-5)):
        _, base = pair(dtype, 600, 2, "weights", "same")
        target = stepped(dtype, base, size, 1, stay=0.02, odd=0.01)
        found[f"{dtype} step"] = codec.encode(target, base, dtype=dtype), target, base
    target, base = pair("BF16", 1100, 4, "weights", "some_blocks")
    coding = DeltaForm(
        9, Scheme(1, 1), 104, 20, 2, frozenset({5}), TableForm(1, 2, 1), 0, EvenForm(frozenset({12, 14}))
    )
    for name, coder, listed in (
        ("lanes", IN_LANES, 13),
        ("pair", PAIRED, 10),
        ("events", PAIRED, 0),
        ("bits", BY_BITS, 11),
        ("bits of events", BY_BITS, 0),
    ):
        form = SparseForm(coder, coding, listed, (3, 23, 14, 1), idle=90, awake=True)
        found[f"foreign {name}"] = encode_sparse("BF16", target, base, form), target, base
    target = stepped("F16", base, 0.003, 5, stay=0.2, odd=0.02, still=0.5)
    form = SparseForm(AS_STEPS, DeltaForm(context_base=0, contexts=32), 16, (20, 22), step=0.003, idle=50)
    found["foreign step"] = encode_sparse("F16", target, base, form), target, base
    return found


SAMPLES: Final = samples()


def test_the_samples_have_every_coder() -> None:
    assert {coder for payload, _, _ in SAMPLES.values() for coder in coders(payload)} == {
        PAIRED,
        IN_LANES,
        AS_STEPS,
        BY_BITS,
    }


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_good(name: str) -> None:
    payload, target, base = SAMPLES[name]
    assert agreed(payload, len(target), base) == target


@pytest.mark.parametrize("name", SAMPLES)
def test_cut_anywhere(name: str) -> None:
    """The payload cut short, and the body alone, with a header that says so."""
    payload, target, base = SAMPLES[name]
    body = payload[len(payload) - int.from_bytes(payload[4:7], "little") :]
    assert payload[:7] + body == payload
    for end in range(len(payload)):
        assert agreed(payload[:end], len(target), base) == "corrupt"
    for end in range(len(body)):
        short = payload[:4] + end.to_bytes(3, "little") + body[:end]
        assert agreed(short, len(target), base, with_oracle=end % 5 == 0 or end < 60) == "corrupt"


@pytest.mark.parametrize("name", SAMPLES)
def test_a_bit_flipped_anywhere(name: str) -> None:
    payload, target, base = SAMPLES[name]
    rng = np.random.default_rng(1)
    for bit in bits_to_flip(len(payload), 40):
        broken = bytearray(payload)
        broken[bit // 8] ^= 1 << bit % 8
        agreed(bytes(broken), len(target), base, with_oracle=bit < 8 * 40 or rng.random() < 0.1)


@pytest.mark.parametrize("name", SAMPLES)
def test_bytes_replaced_inserted_or_dropped(name: str) -> None:
    payload, target, base = SAMPLES[name]
    rng = np.random.default_rng(2)
    for at in range(1, len(payload)):
        for byte in (0, 255, int(rng.integers(1, 255))):
            agreed(
                payload[:at] + bytes([byte]) + payload[at + 1 :], len(target), base, with_oracle=at % 8 == 0
            )
        agreed(payload[:at] + payload[at + 1 :], len(target), base, with_oracle=False)
        agreed(payload[:at] + b"\0" + payload[at:], len(target), base, with_oracle=False)


@pytest.mark.parametrize("name", SAMPLES)
def test_another_base_or_type(name: str) -> None:
    """Where the base is another the places are, too; every other type of the size reads the same bytes."""
    payload, target, base = SAMPLES[name]
    rng = np.random.default_rng(3)
    assert agreed(payload, len(target), None) == "no base"
    for other in (
        bytes(len(base)),
        b"\xff" * len(base),
        rng.bytes(len(base)),
        base[::-1],
        base[8:] + base[:8],
    ):
        agreed(payload, len(target), other)
    for number in range(len(DTYPES)):
        agreed(payload[:1] + bytes([number]) + payload[2:], len(target), base)


@settings(max_examples=examples(300), deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    coder=st.integers(0, 3),
    contexts=st.integers(1, 32),
    listed=st.integers(0, 32),
    body=st.binary(max_size=300),
    seed=st.integers(0, 255),
)
def test_garbage_behind_a_good_rule(
    dtype: str, *, coder: int, contexts: int, listed: int, body: bytes, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    listed = min(listed, contexts)
    codes = [bit for code in rng.integers(0, 24, contexts - listed) for bit in number_bits(int(code), 5)]
    told = b"" if coder == BY_BITS else bytes([coder])
    told += bytes([0, contexts, listed]) + pack_bits(codes)
    if coder == BY_BITS:
        told += bytes([seed])
    elif coder == AS_STEPS:
        told += pack("<f", 10.0 ** rng.integers(-30, 30))
    else:
        told += bytes([10, 3 << 2 | 1]) + bytes((2 * contexts + 7) // 8)
    if seed % 2:
        told += rng.integers(1 << 31, 1 << 62, 2).tobytes() + varint(len(body) // 4)
        body = body[: len(body) // 4 * 4]
    size = -(-(len(told) + len(body)) // 8) * 8 + 1024
    base = rng.bytes(size) if seed % 3 else bytes(size)
    agreed(frame(LEARNED if coder == BY_BITS else SPARSE, dtype, size, told + body), size, base)


# --- one rule broken at a time ------------------------------------------------------------------------------


def one_event(**extra: int) -> PairWriter:
    """The places of a base of zeros of 64 bytes, all cold with a hazard of 1: how many events the bits say."""
    pair_writer, chances = PairWriter(), PlaceChances()
    for number in range(extra.get("events", 1)):
        pair_writer.learned(True, chances.another(64, number))
    pair_writer.learned(False, chances.another(64, extra.get("events", 1)))
    return pair_writer


def sparse(
    *,
    coder: int = PAIRED,
    context_base: bytes = b"\0",
    contexts: int = 1,
    listed: int = 1,
    hazards: bytes = b"",
    coding: bytes = bytes([10, 13, 0]),
    places: bytes | None = None,
    rest: bytes = b"",
    dtype: str = "U8",
    size: int = 64,
) -> bytes:
    """All elements listed, one alive block, and nothing changes; to be spoilt in one place."""
    if places is None:
        alive = PairWriter()
        alive.learned(True, Chance())
        places = alive.pack()
    body = bytes([coder]) + context_base + bytes([contexts, listed]) + hazards + coding + places + rest
    return frame(SPARSE, dtype, size, body)


def states(first: int = 1 << 31, second: int = 1 << 31, words: bytes = b"\0") -> bytes:
    return first.to_bytes(8, "little") + second.to_bytes(8, "little") + words


def dead() -> bytes:
    still = PairWriter()
    still.learned(False, Chance())
    return still.pack()


LANES_AT_REST: Final = b"\x01\x00" + (1 << 16).to_bytes(4, "little") * 32


def step(size: bytes, **changed: str) -> bytes:
    """A step that moves 32 zeros down."""
    return sparse(
        coder=AS_STEPS, coding=size, places=steps_places(), rest=bytes(4), dtype=changed.get("dtype", "BF16")
    )


def steps_places() -> bytes:
    told = PairWriter()
    told.learned(True, Chance())  # alive
    told.learned(False, Chance())  # no exception in the only group
    return told.pack()


def learned(
    notes: PairWriter | None = None,
    *,
    head: bytes = b"\0\1\1",
    scheme: int = 13,
    places: bytes | None = None,
    held: int = 0,
    rest: bytes = b"",
    size: int = 64,
    dtype: str = "U8",
) -> bytes:
    """All elements listed, one alive block, and nothing changes; to be spoilt in one place."""
    if places is None:
        places = (notes or told_bits(0, size)).pack(held)
    return frame(LEARNED, dtype, size, head + bytes([scheme]) + places + rest)


def told_bits(changes: int, count: int = 64) -> PairWriter:
    """One alive block, the first ``changes`` of whose elements change, each by 1."""
    told, chances = PairWriter(), ChangeChances(1)
    told.learned(True, Chance())
    for first in range(0, count, 32):
        group = range(first, min(first + 32, count))
        for index in group:
            told.learned(index < changes, chances.of_change(0))
        for index in group:
            if index < changes:
                told.learned(False, chances.of_larger(0))
    return told


def many_listed(count: int) -> PairWriter:
    told, chances, alive = PairWriter(), ChangeChances(1), Chance()
    for _ in range(0, count, 512):
        told.learned(True, alive)
    for index in range(count):
        told.learned(index == 0, chances.of_change(0))
        if index % 32 == 31 and index < 32:
            told.learned(False, chances.of_larger(0))
    return told


GOOD: Final[dict[str, bytes]] = {
    "learned, nothing changes": learned(),
    "learned, the highest context base": learned(
        told_bits(0), head=varint(255) + b"\1\1", dtype="F32", size=256
    ),
    "learned, 32 contexts": learned(head=bytes([0, 32, 32])),
    "nothing changes": sparse(),
    "in lanes": sparse(coder=IN_LANES, rest=LANES_AT_REST, size=256),
    "the highest context base": sparse(context_base=varint(255), dtype="F32"),
    "bits after the hazards": sparse(contexts=2, hazards=b"\xe0", coding=bytes([10, 13, 0])),
    "the last hazard": sparse(contexts=2, hazards=bytes([23])),
    "32 contexts": sparse(contexts=32, hazards=bytes(20), coding=bytes([10, 13]) + bytes(8)),
    "all contexts listed": sparse(contexts=32, listed=32, coding=bytes([10, 13]) + bytes(8)),
}
BAD: Final[dict[str, bytes]] = {
    "learned, no context": learned(head=b"\0\0\0"),
    "learned, 33 contexts": learned(head=bytes([0, 33, 33])),
    "learned, more listed than there are": learned(head=b"\0\1\2"),
    "learned, context base of an integer": learned(head=b"\1\1\1"),
    "learned, hazard 24": learned(head=b"\0\2\1" + bytes([24])),
    "learned, a state below the floor": learned(places=states((1 << 31) - 1)),
    "learned, a state of 64 bits": learned(places=states(second=1 << 63)),
    "learned, words that are not there": learned(places=states(words=b"\x05")),
    "learned, a sign of nothing": learned(held=1),
    "learned, a sign too many": learned(told_bits(3), held=8),
    "learned, a sign too many in the other state": learned(told_bits(40), held=1 << 40),
    "learned, a byte of signs of nothing": learned(rest=b"\0"),
    "learned, more bytes of signs than signs": learned(told_bits(7), rest=b"\0"),
    "learned, signs cut short": learned(told_bits(63, 100), size=100),
    "learned, no block alive": learned(places=dead()),
    "learned, nothing can change": learned(head=b"\0\1\0\0", places=states()),
    "learned, no event": learned(head=b"\0\1\0\1", places=one_event(events=0).pack()),
    "learned, more events than elements": learned(head=b"\0\1\0\1", places=one_event(events=65).pack()),
    "learned, too many elements": learned(many_listed(MOST_ELEMENTS + 1), size=MOST_ELEMENTS + 1),
    "coder 3": sparse(coder=3),
    "coder 255": sparse(coder=255),
    "no context": sparse(contexts=0, listed=0, coding=bytes([10, 13])),
    "33 contexts": sparse(contexts=33, listed=33, coding=bytes([10, 13]) + bytes(9)),
    "more listed than there are": sparse(listed=2),
    "context base of an integer": sparse(context_base=b"\1"),
    "context base beyond the exponent": sparse(context_base=varint(256), dtype="F32"),
    "context base with a needless group": sparse(context_base=b"\x80\0", dtype="F32"),
    "hazard 24": sparse(contexts=2, hazards=bytes([24])),
    "hazard 31": sparse(contexts=2, hazards=bytes([31])),
    "table log 7": sparse(coding=bytes([7, 13, 0])),
    "table log 16": sparse(coding=bytes([16, 13, 0])),
    "the first context as before": sparse(coding=bytes([10, 13, 1])),
    "a state below the floor": sparse(places=states((1 << 31) - 1)),
    "a second state below the floor": sparse(places=states(second=0)),
    "a state of 64 bits": sparse(places=states(1 << 63)),
    "a second state of 64 bits": sparse(places=states(second=(1 << 64) - 1)),
    "states that do not come down": sparse(places=states(second=(1 << 31) + 1)),
    "words that are not there": sparse(places=states(words=b"\x05")),
    "2^35 - 1 words": sparse(places=states(words=varint((1 << 35) - 1))),
    "a word left over": sparse(places=PairWriter([(0, 1 << 15, 16)]).pack()[:16] + b"\x01" + bytes(4)),
    "half a word": sparse(rest=b"\0\0"),
    "bytes left over": sparse(rest=b"\0"),
    "no block alive": sparse(places=dead()),
    "nothing can change": sparse(listed=0, hazards=b"\0", places=states()),
    "no event": sparse(listed=0, hazards=b"\1", places=one_event(events=0).pack()),
    "more events than elements": sparse(listed=0, hazards=b"\1", places=one_event(events=65).pack()),
    "more events than a block has": sparse(
        listed=0, hazards=b"\1", places=one_event(events=600).pack(), size=2048
    ),
    "lanes that are not there": sparse(coder=IN_LANES, size=256),
    "no lanes": sparse(coder=IN_LANES, rest=b"\0", size=256),
    "17 segments": sparse(coder=IN_LANES, rest=b"\x11" + LANES_AT_REST[1:] * 17, size=4096),
    "bytes left over after the lanes": sparse(coder=IN_LANES, rest=LANES_AT_REST + b"\0", size=256),
    "a step of nothing": step(bytes(4)),
    "a negative step": step(pack("<f", -1.0)),
    "a subnormal step": step((0x7FFFFF).to_bytes(4, "little")),
    "an infinite step": step(pack("<f", np.inf)),
    "a step that is no number": step(pack("<f", np.nan)),
    "a negative step that is no number": step(b"\1\0\x80\xff"),
    "a step of integers": step(pack("<f", 0.5), dtype="U16"),
    "a step of doubles": step(pack("<f", 0.5), dtype="F64"),
    "directions cut short": sparse(
        coder=AS_STEPS, coding=pack("<f", 0.5), places=steps_places(), rest=bytes(3), dtype="BF16"
    ),
    "directions too many": sparse(
        coder=AS_STEPS, coding=pack("<f", 0.5), places=steps_places(), rest=bytes(5), dtype="BF16"
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_are_good(name: str) -> None:
    payload = GOOD[name]
    size = codec.frames(payload)[0].decoded_bytes
    base = bytes(size)
    assert agreed(payload, size, base) == base


@pytest.mark.parametrize("name", BAD)
def test_each_rule_is_enforced(name: str) -> None:
    payload = BAD[name]
    size = codec.frames(payload)[0].decoded_bytes
    assert agreed(payload, size, bytes(size)) == "corrupt"


def test_changes_and_their_signs() -> None:
    """The first bytes of signs lie behind the pair, the others are in the states."""
    ups_and_downs = [1, 255, 255, 1] * 16
    expected = bytes(ups_and_downs[:63]) + bytes(37)
    bits = sum(1 << number for number, change in enumerate(ups_and_downs[:63]) if change == 255)
    payload = learned(told_bits(63, 100), held=bits >> 8, rest=bytes([bits & 255]), size=100)
    assert agreed(payload, 100, bytes(100)) == expected
    payload = learned(told_bits(62, 100), held=bits & (1 << 62) - 1, size=100)
    assert agreed(payload, 100, bytes(100)) == expected[:62] + bytes(38)
    payload = learned(told_bits(8, 100), rest=bytes([bits & 255]), size=100)
    assert agreed(payload, 100, bytes(100)) == expected[:8] + bytes(92)


def test_the_last_bucket_has_no_bit_behind_it() -> None:
    """Of scheme (0, 0) bytes have eight buckets: 128 and on, to the seven raw bits 0."""
    told, chances = PairWriter(), ChangeChances(1)
    told.learned(True, Chance())
    for index in range(32):
        told.learned(index == 5, chances.of_change(0))
    told.learned(True, chances.of_larger(0))
    for _ in range(2, 8):
        told.learned(True, chances.of_further(0))
    told.bits(1, 7)
    for _ in range(32):
        told.learned(False, chances.of_change(0))
    payload = learned(told, scheme=0)
    assert agreed(payload, 64, bytes(64)) == bytes([*bytes(5), 129, *bytes(58)])


def test_as_many_as_a_learned_frame_tells() -> None:
    payload = learned(many_listed(MOST_ELEMENTS), size=MOST_ELEMENTS)
    assert agreed(payload, MOST_ELEMENTS, bytes(MOST_ELEMENTS)) == b"\1" + bytes(MOST_ELEMENTS - 1)


def test_a_step_without_exceptions() -> None:
    payload = step(pack("<f", 0.5))
    assert agreed(payload, 64, bytes(64)) == b"\x00\xbf" * 32
    assert agreed(payload[:-4] + b"\xff" * 4, 64, bytes(64)) == b"\x00\x3f" * 32


@pytest.mark.parametrize("seed", range(4))
def test_many_faults(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for payload, target, base in SAMPLES.values():
        for _ in range(60):
            broken = bytearray(payload)
            for at in rng.integers(
                0, min(len(payload), int(rng.choice([30, 100, 10_000]))), rng.integers(1, 6)
            ):
                broken[at] = int(rng.integers(0, 256))
            agreed(bytes(broken), len(target), base)
