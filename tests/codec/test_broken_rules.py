"""One rule of the format broken at a time: the core and the reference refuse the same frames."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest

from codec.verdicts import agreed
from reference.codec import DELTA, DIFFERENCE, LEARNED, PLANES, RAW, SAME, SPARSE
from reference.codec_writer import (
    frame,
    golomb,
    number_bits,
    pack_bits,
    unsigned,
    varint,
)
from textnlp_fast.delta import codec
from textnlp_fast.errors import UnsupportedFormatError

STATES: Final = (1 << 16).to_bytes(4, "little") * 32


def bits(*fields: tuple[int, int]) -> bytes:
    """Fields of (value, width), lowest bit first, as bytes."""
    return pack_bits([value >> place & 1 for value, width in fields for place in range(width)])


def delta(
    *,
    table_log: int = 11,
    scheme: int = 3 << 2 | 2,
    context_base: int = 0,
    contexts: int = 1,
    tables: bytes = bits((0, 2)),
    segments: bytes = b"\x01\x00" + STATES,
    dtype: str = "U8",
    size: int = 512,
) -> bytes:
    """A delta of no changes, to be spoilt in one place."""
    body = bytes([table_log, scheme]) + varint(context_base) + bytes([contexts]) + tables + segments
    return frame(DELTA, dtype, size, body)


def planes(
    *,
    mode: int = PLANES,
    dtype: str = "U8",
    table_log: int = 12,
    table: bytes = bits((0, 8)),
    kind: int = 2,
    segments: bytes = b"\x01\x00" + STATES,
) -> bytes:
    """A plane of zeros."""
    return frame(mode, dtype, 512, bytes([kind, table_log]) + table + segments)


def two_shares(second: int) -> bytes:
    """A table of two symbols, the first implied."""
    return pack_bits([*number_bits(1, 8), 0, *number_bits(0, 2), *number_bits(12, 4), *golomb(second, 12)])


def own(*fields: tuple[int, int]) -> bytes:
    return bits((2, 2), *fields)


def even(last: int, dominant: int, *levels: tuple[int, int]) -> bytes:
    """An even table, whose levels are (change, order), for a context that no element has."""
    told = [0, 0, 1, 1, *number_bits(levels[0][1] if levels else 0, 2)]
    told += golomb(unsigned(last), 1) + golomb(dominant, 0)
    return pack_bits(told + [bit for change, order in levels for bit in golomb(unsigned(change), order)])


def states(**changed: int) -> bytes:
    values = [1 << 16] * 32
    for lane, value in changed.items():
        values[int(lane[1:])] = value
    return b"".join(value.to_bytes(4, "little") for value in values)


GOOD: Final[dict[str, bytes]] = {
    "nothing changes": delta(),
    "a table of one token": delta(tables=own((0, 8))),
    "table log 8": delta(table_log=8),
    "table log 15": delta(table_log=15),
    "sixteen segments": delta(segments=b"\x10" + (b"\x00" + STATES) * 16, size=4096),
    "an even table": delta(contexts=2, tables=even(1, 0, (7, 1))),
    "an even table of all tokens": delta(contexts=2, tables=even(27, 0, *((0, 1),) * 26, (1, 1))),
    "32 contexts": delta(contexts=32, tables=bytes(8)),
    "a context as before": delta(contexts=2, tables=bits((0, 2), (1, 2))),
    "the highest context base": delta(dtype="F32", context_base=255),
    "a plane of one symbol": planes(),
    "a difference of nothing": planes(mode=DIFFERENCE),
    "bits after the tables are not looked at": delta(tables=b"\xfc"),
}
BAD: Final[dict[str, bytes]] = {
    "table log 7": delta(table_log=7),
    "table log 16": delta(table_log=16),
    "table log 255": delta(table_log=255),
    "no context": delta(contexts=0, tables=b""),
    "33 contexts": delta(contexts=33, tables=bytes(9)),
    "context base of an integer": delta(context_base=1),
    "context base beyond the exponent": delta(dtype="F32", context_base=256),
    "context base of five groups": delta(dtype="F32", context_base=1 << 34),
    "the first context as before": delta(tables=bits((1, 2))),
    "an even table of zero alone": delta(contexts=2, tables=even(0, 0)),
    "an even table with its last bucket before nothing": delta(contexts=2, tables=even(-1, 0)),
    "an even table of more tokens than there are": delta(
        contexts=2, tables=even(28, 0, *((0, 1),) * 27, (1, 1))
    ),
    "a dominant bucket that is none": delta(contexts=2, tables=even(1, 2, (1, 1), (1, 1))),
    "a level below nothing": delta(contexts=2, tables=even(2, 0, (-1, 1), (1, 1))),
    "a level above all": delta(contexts=2, tables=even(2, 0, (1000, 1), (1, 1))),
    "a last bucket without a share": delta(contexts=2, tables=even(1, 0, (0, 1))),
    "shares that leave nothing to the dominant": delta(contexts=2, tables=even(2, 0, (36, 1), (36, 1))),
    "the whole scale in one share": delta(contexts=2, tables=even(1, 0, (40, 1))),
    "more symbols than tokens": delta(tables=own((39, 8), (0, 1), (0, 2), (0, 4)) + bytes(40)),
    "implied symbol that is none": delta(tables=own((1, 8), (1, 1), (2, 8), (0, 2), (0, 4), (1, 1))),
    "predictor 3": delta(tables=own((1, 8), (0, 1), (3, 2), (0, 4), (2, 2))),
    "a share above all": delta(tables=own((1, 8), (0, 1), (0, 2), (12, 4), (1, 1), (2049, 12))),
    "shares that sum to too much": delta(
        tables=own((2, 8), (0, 1), (0, 2), (11, 4), (1, 1), (1500, 11), (1, 1), (1500, 11))
    ),
    "a share below nothing": delta(
        tables=own((2, 8), (0, 1), (1, 2), (4, 4), (1, 1), (3, 4), (1, 1), (15, 4))
    ),
    "a last symbol that never occurs": delta(tables=own((1, 8), (0, 1), (0, 2), (0, 4), (1, 1))),
    "a code of 17 zeros": delta(tables=own((1, 8), (0, 1), (0, 2), (0, 4), (0, 17), (1, 1), (0, 17))),
    "tables cut short": frame(DELTA, "U8", 512, bytes([11, 14, 0, 32]) + bytes(7)),
    "no segment": delta(segments=b"\x00"),
    "17 segments": delta(segments=b"\x11" + (b"\x00" + STATES) * 17, size=8192),
    "255 segments": delta(segments=b"\xff\x00" + STATES),
    "an empty segment": delta(segments=b"\x03" + (b"\x00" + STATES) * 2, size=64 * 5 + 30, dtype="BOOL"),
    "a segment too few": delta(segments=b"\x02\x00" + STATES),
    "a segment too many": delta(segments=b"\x01" + (b"\x00" + STATES) * 2),
    "a state below the floor": delta(segments=b"\x01\x00" + states(l0=0xFFFF)),
    "the last state below the floor": delta(segments=b"\x01\x00" + states(l31=0)),
    "a state that does not come down": delta(segments=b"\x01\x00" + states(l5=(1 << 16) + 1)),
    "a state at the ceiling": delta(segments=b"\x01\x00" + states(l9=(1 << 32) - 1)),
    "a word left over": delta(segments=b"\x01\x01" + STATES + b"\x00\x00"),
    "half a word": delta(segments=b"\x01\x00" + STATES + b"\x00"),
    "words that are not there": delta(segments=b"\x01\x05" + STATES),
    "2^34 words": delta(segments=b"\x01" + varint(1 << 34) + STATES),
    "2^35 - 1 words": delta(segments=b"\x01" + varint((1 << 35) - 1) + STATES),
    "a word count of six groups": delta(segments=b"\x01\x80\x80\x80\x80\x80\x01" + STATES),
    "a needless zero group": delta(segments=b"\x01\x80\x00" + STATES),
    "a body of nothing": frame(DELTA, "U8", 512, b""),
    "half an element": delta(dtype="F32", size=513),
    "plane kind 3": planes(kind=3),
    "plane kind 255": planes(kind=255),
    "plane table log 7": planes(table_log=7),
    "the whole scale of table log 13": planes(table_log=13),
    "a share of 4097": planes(table_log=13, table=two_shares(4097)),
    "plane table log 14": planes(table_log=14, table=two_shares(4096)),
    "a difference of a float": planes(mode=DIFFERENCE, dtype="F8_E4M3"),
    "a difference of two bytes": frame(DIFFERENCE, "U16", 512, b"\x01\x07\x01\x07"),
    "a difference with bytes left over": planes(mode=DIFFERENCE, segments=b"\x01\x00" + STATES + b"\0"),
    "a difference of no planes": frame(DIFFERENCE, "U8", 512, b""),
    "plane table log 32": planes(table_log=32),
    "a raw plane cut short": frame(PLANES, "U8", 512, b"\x00" + bytes(511)),
    "a plane too many": frame(PLANES, "U8", 512, b"\x01\x07\x01\x07"),
    "a plane too few": frame(PLANES, "U16", 512, b"\x01\x07"),
    "a constant plane of nothing": frame(PLANES, "U8", 512, b"\x01"),
    "no planes": frame(PLANES, "U8", 512, b""),
    "half an element in planes": frame(PLANES, "U16", 511, b"\x01\x07\x01\x07"),
    "half an element as it is": frame(SAME, "F16", 511),
    "half an element, raw": frame(RAW, "F64", 12, bytes(12)),
    "a frame of nothing": frame(SAME, "U8", 0),
    "a raw frame of nothing": frame(RAW, "U8", 0),
    "a frame above 16 MiB": frame(SAME, "U8", (1 << 24) + 1),
    "a frame of 2^35 - 1 bytes": frame(SAME, "U8", (1 << 35) - 1),
    "a raw frame above 16 MiB": frame(RAW, "U8", (1 << 24) + 1, bytes(500)),
    "a body larger than the frame": frame(DELTA, "U8", 100, bytes(101)),
    "a body of 2^24 - 1 bytes": bytes([0x13, 2]) + varint(512) + b"\xff\xff\xff" + bytes(512),
    "a size of six groups": bytes([0x10, 2]) + b"\x80\x80\x80\x80\x80\x01",
    "a size with a needless zero group": bytes([0x11, 2, 0x83, 0x00]) + b"abc",
}


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_are_good(name: str) -> None:
    payload = GOOD[name]
    size = sum(found.decoded_bytes for found in codec.frames(payload))
    base = np.random.default_rng(1).bytes(size)
    assert agreed(payload, size, base) == (bytes(size) if payload[0] == 0x12 else base)


def test_differences_wrap_around() -> None:
    base = bytes(range(256))
    for step in (0, 1, 0x80, 0xFF):
        payload = frame(DIFFERENCE, "OPAQUE", 256, bytes([1, step]))
        assert agreed(payload, 256, base) == base[step:] + base[:step]


def announced(payload: bytes) -> int:
    """The decoded size in the header, within reason."""
    groups = [byte & 0x7F for byte in payload[2:7]]
    more = next((place for place, byte in enumerate(payload[2:7]) if byte < 0x80), 0)
    return min(sum(group << 7 * place for place, group in enumerate(groups[: more + 1])), 1 << 14)


@pytest.mark.parametrize("name", BAD)
def test_each_rule_is_enforced(name: str) -> None:
    payload = BAD[name]
    size = announced(payload)
    assert agreed(payload, size, bytes(size)) == "corrupt"


@pytest.mark.parametrize("first", [0x00, 0x03, 0x17, 0x1F, 0x20, 0x23, 0xFF])
def test_unknown_versions_and_modes(first: int) -> None:
    payload = bytes([first, 2, 4, 4, 0, 0]) + b"abcd"
    assert agreed(payload, 4, b"abcd") == "unsupported"
    with pytest.raises(UnsupportedFormatError, match="Upgrade"):
        codec.frames(payload)


@pytest.mark.parametrize("dtype", [16, 17, 128, 255])
def test_unknown_element_types(dtype: int) -> None:
    for mode in (SAME, RAW, PLANES, DELTA, SPARSE, DIFFERENCE, LEARNED):
        payload = bytes([0x10 | mode, dtype, 4, 4, 0, 0]) + b"abcd"
        assert agreed(payload, 4, b"abcd") == "unsupported"
    later = frame(RAW, "U8", 4, b"abcd") + bytes([0x11, dtype, 4]) + b"abcd"
    with pytest.raises(UnsupportedFormatError, match="Upgrade") as caught:
        codec.frames(later)
    assert caught.value.position == 8
