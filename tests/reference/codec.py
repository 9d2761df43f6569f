"""The frame format, read slowly: a decoder written from docs/format.md.

Plain integers and loops; nothing here is shared with the core. It accepts and refuses exactly what the format
says a reader must.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

VERSION: Final = 1
SAME, RAW, PLANES, DELTA = range(4)
MAX_FRAME_SIZE: Final = 1 << 24
LANES: Final = 32
STATE_FLOOR: Final = 1 << 16
MAX_SEGMENTS: Final = 16
MAX_CONTEXTS: Final = 32
MAX_TOKENS: Final = 128
RAW_PLANE, CONSTANT_PLANE, CODED_PLANE = range(3)
ZERO_ONLY, AS_BEFORE, OWN_TABLE = range(3)


@dataclass(frozen=True, slots=True)
class ElementType:
    """``size`` in bytes; ``exponent`` in bits, 0 for what is not floating point."""

    number: int
    size: int
    exponent: int

    @property
    def bits(self) -> int:
        return 8 * self.size

    @property
    def rotates(self) -> bool:
        return self.exponent != 0 and self.size > 1


TYPES: Final[dict[str, ElementType]] = {
    "OPAQUE": ElementType(0, 1, 0),
    "BOOL": ElementType(1, 1, 0),
    "U8": ElementType(2, 1, 0),
    "I8": ElementType(3, 1, 0),
    "F8_E4M3": ElementType(4, 1, 4),
    "F8_E5M2": ElementType(5, 1, 5),
    "U16": ElementType(6, 2, 0),
    "I16": ElementType(7, 2, 0),
    "F16": ElementType(8, 2, 5),
    "BF16": ElementType(9, 2, 8),
    "U32": ElementType(10, 4, 0),
    "I32": ElementType(11, 4, 0),
    "F32": ElementType(12, 4, 8),
    "U64": ElementType(13, 8, 0),
    "I64": ElementType(14, 8, 0),
    "F64": ElementType(15, 8, 11),
}
BY_NUMBER: Final = {element.number: element for element in TYPES.values()}


class CorruptFrame(ValueError):
    """The bytes break the format."""


class UnsupportedFrame(ValueError):
    """The version, the mode or the element type is unknown."""


class MissingBase(ValueError):
    """A same or delta frame without a base."""


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise CorruptFrame(reason)


# --- bytes and bits -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Bytes:
    """A cursor over ``data[at:end]``."""

    data: bytes
    at: int
    end: int

    def take(self, count: int) -> bytes:
        require(count <= self.end - self.at, "cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for group in range(5):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * group)
            if byte < 0x80:
                require(group == 0 or byte != 0, "a number has a needless zero group")
                return value
        raise CorruptFrame("a number has more than five groups")


@dataclass(slots=True)
class Bits:
    """Bits of ``source`` from its cursor on, lowest bit of a byte first."""

    source: Bytes
    used: int = 0

    def get(self, count: int) -> int:
        value = 0
        for place in range(count):
            at = self.source.at + self.used // 8
            require(at < self.source.end, "the tables are cut short")
            value |= (self.source.data[at] >> (self.used % 8) & 1) << place
            self.used += 1
        return value

    def golomb(self, order: int) -> int:
        zeros = 0
        while self.get(1) == 0:
            zeros += 1
            require(zeros <= 16, "a code has more than 16 leading zeros")
        return (1 << (order + zeros)) + self.get(order + zeros) - (1 << order)

    def finish(self) -> None:
        self.source.take((self.used + 7) // 8)


# --- elements and residuals ---------------------------------------------------------------------------------


def elements(data: bytes, size: int) -> list[int]:
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def to_bytes(values: Iterable[int], size: int) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


def ordered(value: int, element: ElementType) -> int:
    """An integer that grows with the number that the bits stand for; integers are taken as they are."""
    top = 1 << (element.bits - 1)
    if element.exponent == 0:
        return value
    return 2 * top - 1 - value if value & top else value + top


def from_ordered(value: int, element: ElementType) -> int:
    top = 1 << (element.bits - 1)
    if element.exponent == 0:
        return value
    return value - top if value & top else 2 * top - 1 - value


@dataclass(frozen=True, slots=True)
class Scheme:
    """``direct``: the largest residual with a token of its own; ``mantissa``: leading bits of a bucket."""

    direct: int
    mantissa: int

    def limit(self, bits: int) -> int:
        return min(MAX_TOKENS, 2 * self.direct + 1 + (bits - self.mantissa << self.mantissa))

    def raw_bits(self, token: int) -> int:
        first = 2 * self.direct + 1
        return 0 if token < first else (token - first >> self.mantissa) + 1

    def split(self, residual: int) -> tuple[int, int]:
        """Token and raw bits of a signed residual."""
        size = abs(residual)
        if size <= self.direct:
            return (0 if size == 0 else 2 * size - (residual > 0)), 0
        shifted = size - self.direct - 1 + (1 << self.mantissa)
        low = shifted.bit_length() - 1 - self.mantissa
        lead = (shifted >> low) - (1 << self.mantissa)
        place = shifted % (1 << low)
        return 2 * self.direct + 1 + (low << self.mantissa) + lead, 2 * place + (residual < 0)

    def join(self, token: int, raw: int) -> int:
        """The residual, to be taken modulo the element's range."""
        first = 2 * self.direct + 1
        if token < first:
            return (token + 1) // 2 if token % 2 else -(token // 2)
        low, lead = divmod(token - first, 1 << self.mantissa)
        implicit = 1 << self.mantissa
        size = (implicit + lead << low) + raw // 2 - implicit + self.direct + 1
        return -size if raw % 2 else size


# --- tables -------------------------------------------------------------------------------------------------


class Table:
    """Shares of 2**table_log, symbol by symbol, and where each begins."""

    def __init__(self, shares: Sequence[int], table_log: int) -> None:
        self.shares = list(shares)
        self.starts = [0, *accumulate(shares)]
        self.log = table_log
        assert self.starts[-1] == 1 << table_log

    def at(self, slot: int) -> int:
        """The symbol whose share holds ``slot``: the last that begins at or before it, empty shares apart."""
        return bisect_right(self.starts, slot) - 1


def predicted_from(symbol: int, predictor: int, implied: int) -> int | None:
    """The symbol that another's share is coded as a difference to."""
    source = None
    if symbol > 0 and (predictor == 1 or (predictor == 2 and symbol % 2 == 0)):
        source = symbol - 1
    return None if source == implied else source


def read_table(bits: Bits, limit: int, table_log: int) -> Table:
    symbols = bits.get(8) + 1
    require(symbols <= limit, "more symbols than there can be")
    if symbols == 1:
        return Table([1 << table_log], table_log)
    implied = bits.get(8) if bits.get(1) else 0
    predictor, order = bits.get(2), bits.get(4)
    require(implied < symbols and predictor < 3, "a table header out of range")
    shares = [0] * symbols
    for symbol in range(symbols):
        if symbol == implied:
            continue
        code = bits.golomb(order)
        source = predicted_from(symbol, predictor, implied)
        if source is None:
            shares[symbol] = code
        else:
            shares[symbol] = shares[source] + (-(code + 1) // 2 if code % 2 else code // 2)
        require(0 <= shares[symbol] <= 1 << table_log, "a share out of range")
    shares[implied] = (1 << table_log) - sum(shares)
    require(shares[implied] >= 0, "the shares sum to too much")
    require(shares[-1] > 0, "the last symbol does not occur")
    return Table(shares, table_log)


# --- lanes --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Lanes:
    """The reader of one segment: 32 states, one stream of words."""

    states: list[int]
    words: list[int]
    at: int = 0

    def refill(self, lane: int, state: int) -> None:
        if state < STATE_FLOOR:
            require(self.at < len(self.words), "the words run out")
            state = state << 16 | self.words[self.at]
            self.at += 1
        self.states[lane] = state

    def symbol(self, lane: int, table: Table) -> int:
        high, slot = divmod(self.states[lane], 1 << table.log)
        symbol = table.at(slot)
        self.refill(lane, table.shares[symbol] * high + slot - table.starts[symbol])
        return symbol

    def bits(self, lane: int, count: int) -> int:
        high, value = divmod(self.states[lane], 1 << count)
        self.refill(lane, high)
        return value

    def finish(self) -> None:
        require(self.at == len(self.words), "words are left over")
        require(all(state == STATE_FLOOR for state in self.states), "a lane does not end where it began")


def segment_ranges(count: int, segments: int) -> list[range]:
    even = -(-count // segments)
    length = -(-even // LANES) * LANES
    return [range(begin, min(begin + length, count)) for begin in range(0, count, length)]


def read_segments(reader: Bytes, count: int) -> list[tuple[range, Lanes]]:
    segments = reader.byte()
    require(1 <= segments <= MAX_SEGMENTS, "segment count out of range")
    ranges = segment_ranges(count, segments)
    found = []
    for place in ranges:
        words = reader.varint()
        states = elements(reader.take(4 * LANES), 4)
        found.append((place, Lanes(states, elements(reader.take(2 * words), 2))))
        require(min(states) >= STATE_FLOOR, "a state below the floor")
    require(len(ranges) == segments, "a segment is empty")
    return found


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
    if first >> 4 != VERSION or first & 15 > DELTA:
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
    if header.mode in (SAME, DELTA) and base is None:
        raise MissingBase
    if header.mode == SAME:
        assert base is not None
        return base
    if header.mode == PLANES:
        return decode_planes(reader, header)
    assert base is not None
    return decode_delta(reader, header, base)


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
            require(8 <= table_log <= 12, "table log out of range")
            bits = Bits(reader)
            table = read_table(bits, 256, table_log)
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


def context_field(value: int, element: ElementType) -> int:
    if element.exponent == 0:
        return 0
    return value >> (element.bits - 1 - element.exponent) & ((1 << element.exponent) - 1)


def decode_delta(reader: Bytes, header: Header, base: bytes) -> bytes:
    element = header.element
    prior = elements(base, element.size)
    table_log = reader.byte()
    packed = reader.byte()
    scheme = Scheme(packed >> 2, packed & 3)
    context_base = reader.varint()
    contexts = reader.byte()
    require(8 <= table_log <= 15, "table log out of range")
    require(1 <= contexts <= MAX_CONTEXTS, "context count out of range")
    require(context_base < 1 << element.exponent, "context base out of range")
    tables: list[Table] = []
    bits = Bits(reader)
    for context in range(contexts):
        code = bits.get(2)
        require(code <= OWN_TABLE and (context > 0 or code != AS_BEFORE), "unknown context code")
        if code == ZERO_ONLY:
            tables.append(Table([1 << table_log], table_log))
        elif code == AS_BEFORE:
            tables.append(tables[-1])
        else:
            tables.append(read_table(bits, scheme.limit(element.bits), table_log))
    bits.finish()
    segments = read_segments(reader, len(prior))
    require(reader.at == reader.end, "bytes left over")
    out: list[int] = []
    for places, lanes in segments:
        for step in range(places.start, places.stop, LANES):
            here = range(step, min(step + LANES, places.stop))
            tokens = []
            for lane, index in enumerate(here):
                context = context_field(prior[index], element) - context_base
                context = max(0, min(context, contexts - 1))
                tokens.append(lanes.symbol(lane, tables[context]))
            raws = read_raw_bits(lanes, [scheme.raw_bits(token) for token in tokens])
            for index, token, raw in zip(here, tokens, raws, strict=True):
                value = ordered(prior[index], element) + scheme.join(token, raw)
                out.append(from_ordered(value % (1 << element.bits), element))
        lanes.finish()
    return to_bytes(out, element.size)


def read_raw_bits(lanes: Lanes, widths: Sequence[int]) -> list[int]:
    """Sixteen bits at most from a lane, lane after lane, until every lane has its bits."""
    raws = [0] * len(widths)
    for low in range(0, max(widths), 16):
        for lane, width in enumerate(widths):
            if width > low:
                raws[lane] |= lanes.bits(lane, min(16, width - low)) << low
    return raws
