"""The frame format, read slowly: a decoder written from docs/format.md.

Plain integers and loops; nothing here is shared with the core. It accepts and refuses exactly what the format
says a reader must.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import unpack
from typing import Final

from reference.codec_elements import BY_NUMBER, NAMES, ElementType, Scheme, context, moved
from reference.codec_learned import read_changes
from reference.codec_sparse import (
    HAZARD_CODES,
    HAZARDS,
    Pair,
    read_pair,
    read_places,
    read_steps,
    step_outcomes,
)
from reference.codec_streams import (
    LANES,
    Bits,
    Bytes,
    EvenTables,
    Lanes,
    MissingBase,
    Table,
    UnsupportedFrame,
    elements,
    read_segments,
    read_table,
    require,
    to_bytes,
)

VERSION: Final = 1
SAME, RAW, PLANES, DELTA, SPARSE, DIFFERENCE, LEARNED = range(7)
MAX_FRAME_SIZE: Final = 1 << 24
MAX_CONTEXTS: Final = 32
RAW_PLANE, CONSTANT_PLANE, CODED_PLANE = range(3)
ZERO_ONLY, AS_BEFORE, OWN_TABLE, EVEN_TABLE = range(4)
PAIRED, IN_LANES, AS_STEPS = range(3)
BY_BITS: Final = 3  # no coder of sparse frames: those of learned frames
STEP_TYPES: Final = ("F16", "BF16", "F32")


# --- frames: reading ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    mode: int
    element: ElementType
    size: int
    body: int
    body_size: int


def read_header(reader: Bytes) -> Header:
    first = reader.byte()
    if first >> 4 != VERSION or first & 15 > LEARNED:
        raise UnsupportedFrame("version or mode")
    mode = first & 15
    number = reader.byte()
    if number not in BY_NUMBER:
        raise UnsupportedFrame("element type")
    size = reader.varint()
    body_size = {SAME: 0, RAW: size}.get(mode)
    if body_size is None:
        body_size = int.from_bytes(reader.take(3), "little")
    require(1 <= size <= MAX_FRAME_SIZE, "decoded size out of range")
    require(size % BY_NUMBER[number].size == 0, "a piece of an element")
    require(body_size <= size, "body larger than what it decodes to")
    return Header(mode, BY_NUMBER[number], size, reader.at, body_size)


def decode(payload: bytes, size: int, base: bytes | None = None) -> bytes:
    """The ``size`` bytes that whole frames stand for."""
    reader = Bytes(payload, 0, len(payload))
    headers = []
    left = size
    while reader.at < len(payload):
        header = read_header(reader)
        reader.take(header.body_size)
        require(header.size <= left, "more bytes than asked for")
        left -= header.size
        headers.append(header)
    require(left == 0, "fewer bytes than asked for")
    out = b""
    for header in headers:
        part = None if base is None else base[len(out) : len(out) + header.size]
        out += decode_frame(payload, header, part)
    return out


def decode_frame(payload: bytes, header: Header, base: bytes | None) -> bytes:
    reader = Bytes(payload, header.body, header.body + header.body_size)
    if header.mode == RAW:
        return reader.take(header.size)
    if header.mode == PLANES:
        return decode_planes(reader, header)
    if base is None:
        raise MissingBase
    if header.mode == SAME:
        return base
    if header.mode == DIFFERENCE:
        return decode_difference(reader, header, base)
    if header.mode == DELTA:
        return decode_delta(reader, header, base)
    return (decode_sparse if header.mode == SPARSE else decode_learned)(reader, header, base)


def decode_planes(reader: Bytes, header: Header) -> bytes:
    element = header.element
    count = header.size // element.size
    plain: list[bytes] = []
    coded: list[tuple[int, Table, list[tuple[range, Lanes]]]] = []
    for plane in range(element.size):
        kind = reader.byte()
        if kind == RAW_PLANE:
            plain.append(reader.take(count))
        elif kind == CONSTANT_PLANE:
            plain.append(reader.take(1) * count)
        else:
            require(kind == CODED_PLANE, "unknown kind of plane")
            table_log = reader.byte()
            require(8 <= table_log <= 13, "table log out of range")
            bits = Bits(reader)
            table = read_table(bits, 256, table_log)
            require(max(table.shares) <= 4096, "a share too large")
            bits.finish()
            plain.append(b"")
            coded.append((plane, table, read_segments(reader, count)))
    require(reader.at == reader.end, "bytes left over")
    for plane, table, segments in coded:
        for places, lanes in segments:
            plain[plane] += bytes(lanes.symbol((index - places.start) % LANES, table) for index in places)
            lanes.finish()
    values = [int.from_bytes(bytes(parts), "big") for parts in zip(*plain, strict=True)]
    if element.rotates:
        values = [value >> 1 | (value & 1) << (element.bits - 1) for value in values]
    return to_bytes(values, element.size)


def decode_difference(reader: Bytes, header: Header, base: bytes) -> bytes:
    require(header.element.size == 1 and header.element.exponent == 0, "no integer of one byte")
    steps = decode_planes(reader, header)
    return bytes((old + step) % 256 for old, step in zip(base, steps, strict=True))


@dataclass(frozen=True, slots=True)
class Coding:
    """How residuals are told: in tokens under the table that the base's context picks."""

    scheme: Scheme
    tables: list[Table]
    context_base: int

    def table(self, base: int, element: ElementType) -> Table:
        return self.tables[min(context(base, element, self.context_base), len(self.tables) - 1)]


def require_contexts(element: ElementType, context_base: int, contexts: int) -> None:
    require(1 <= contexts <= MAX_CONTEXTS, "context count out of range")
    require(context_base < 1 << element.exponent, "context base out of range")


def read_scheme(reader: Bytes) -> tuple[int, Scheme]:
    """Table log and token scheme."""
    table_log, scheme = reader.byte(), scheme_of(reader.byte())
    require(8 <= table_log <= 15, "table log out of range")
    return table_log, scheme


def scheme_of(packed: int) -> Scheme:
    return Scheme(packed >> 2, packed & 3)


def read_tables(reader: Bytes, contexts: int, limit: int, table_log: int) -> list[Table]:
    tables: list[Table] = []
    evens = EvenTables()
    bits = Bits(reader)
    for number in range(contexts):
        code = bits.get(2)
        require(number > 0 or code != AS_BEFORE, "the first context has none before")
        if code == ZERO_ONLY:
            tables.append(Table([1 << table_log], table_log))
        elif code == AS_BEFORE:
            tables.append(tables[-1])
        elif code == OWN_TABLE:
            tables.append(read_table(bits, limit, table_log))
        else:
            tables.append(evens.read(bits, limit, table_log))
    bits.finish()
    return tables


def decode_delta(reader: Bytes, header: Header, base: bytes) -> bytes:
    element = header.element
    prior = elements(base, element.size)
    table_log, scheme = read_scheme(reader)
    context_base, contexts = reader.varint(), reader.byte()
    require_contexts(element, context_base, contexts)
    tables = read_tables(reader, contexts, scheme.limit(element.bits), table_log)
    out = in_lanes(reader, prior, element, Coding(scheme, tables, context_base))
    return to_bytes(out, element.size)


def in_lanes(reader: Bytes, prior: Sequence[int], element: ElementType, coding: Coding) -> list[int]:
    """The new numbers, whose segments end the body."""
    segments = read_segments(reader, len(prior))
    require(reader.at == reader.end, "bytes left over")
    out: list[int] = []
    for places, lanes in segments:
        for step in range(places.start, places.stop, LANES):
            here = prior[step : min(step + LANES, places.stop)]
            tokens = [lanes.symbol(lane, coding.table(old, element)) for lane, old in enumerate(here)]
            raws = read_raw_bits(lanes, [coding.scheme.raw_bits(token) for token in tokens])
            for old, token, raw in zip(here, tokens, raws, strict=True):
                out.append(moved(old, coding.scheme.join(token, raw), element))
        lanes.finish()
    return out


def read_raw_bits(lanes: Lanes, widths: Sequence[int]) -> list[int]:
    """Sixteen bits at most from a lane, lane after lane, until every lane has its bits."""
    raws = [0] * len(widths)
    for low in range(0, max(widths), 16):
        for lane, width in enumerate(widths):
            if width > low:
                raws[lane] |= lanes.bits(lane, min(16, width - low)) << low
    return raws


def read_split(reader: Bytes, element: ElementType) -> tuple[int, int, list[int]]:
    """First field, listed contexts, and the hazards of all contexts."""
    context_base, contexts, listed = reader.varint(), reader.byte(), reader.byte()
    require_contexts(element, context_base, contexts)
    require(listed <= contexts, "more contexts listed than there are")
    bits = Bits(reader)
    codes = [0] * listed + [bits.get(5) for _ in range(listed, contexts)]
    require(max(codes) < HAZARD_CODES, "unknown hazard")
    bits.finish()
    return context_base, listed, [HAZARDS[code] for code in codes]


def decode_sparse(reader: Bytes, header: Header, base: bytes) -> bytes:
    element = header.element
    new = elements(base, element.size)
    coder = reader.byte()
    require(coder <= AS_STEPS, "unknown coder")
    context_base, listed, hazards = read_split(reader, element)
    if coder == AS_STEPS:
        step = read_step_size(reader, element)
    else:
        table_log, scheme = read_scheme(reader)
        tables = read_tables(reader, len(hazards), scheme.limit(element.bits), table_log)
        coding = Coding(scheme, tables, context_base)
    pair = read_pair(reader)

    own_contexts = [context(old, element, context_base) for old in new]
    often, rarely = read_places(pair, own_contexts, listed, hazards)
    places = often + rarely
    require(len(places) > 0, "nothing changes")
    prior = [new[place] for place in places]
    if coder == AS_STEPS:
        outcomes = step_outcomes(prior, NAMES[element.number], step)
        found = read_steps(pair, prior, outcomes, reader, events=len(rarely), bits=element.bits)
    elif coder == IN_LANES:
        found = in_lanes(reader, prior, element, coding)
    else:
        found = [one_by_one(pair, old, element, coding) for old in prior]
    pair.finish()
    require(reader.at == reader.end, "bytes left over")
    for place, value in zip(places, found, strict=True):
        new[place] = value
    return to_bytes(new, element.size)


def decode_learned(reader: Bytes, header: Header, base: bytes) -> bytes:
    element = header.element
    new = elements(base, element.size)
    context_base, listed, hazards = read_split(reader, element)
    scheme = scheme_of(reader.byte())
    pair = read_pair(reader)
    contexts = [context(old, element, context_base) for old in new]
    often, rarely = read_places(pair, contexts, listed, hazards)
    told = [contexts[place] for place in often + rarely]
    changes = read_changes(pair, reader, told, listed=listed, scheme=scheme, bits=element.bits)
    require(reader.at == reader.end, "bytes left over")
    for place, steps in zip(often + rarely, changes, strict=True):
        new[place] = moved(new[place], steps, element)
    return to_bytes(new, element.size)


def read_step_size(reader: Bytes, element: ElementType) -> float:
    size: float = unpack("<f", reader.take(4))[0]
    require(NAMES[element.number] in STEP_TYPES, "a type without steps")
    require(2.0**-126 <= size < 2.0**128, "a step that is no positive normal number")
    return size


def one_by_one(pair: Pair, old: int, element: ElementType, coding: Coding) -> int:
    token = pair.symbol(coding.table(old, element))
    return moved(old, coding.scheme.join(token, pair.bits(coding.scheme.raw_bits(token))), element)
