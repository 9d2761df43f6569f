"""What frames are made of, read slowly: bytes, bits, tables of shares, and lanes that take symbols from words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

LANES: Final = 32
STATE_FLOOR: Final = 1 << 16
MAX_SEGMENTS: Final = 16


class CorruptFrame(ValueError):
    """The bytes break the format."""


class UnsupportedFrame(ValueError):
    """The version, the mode or the element type is unknown."""


class MissingBase(ValueError):
    """A same, delta or sparse frame without a base."""


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


def elements(data: bytes, size: int) -> list[int]:
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def to_bytes(values: Iterable[int], size: int) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


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
            shares[symbol] = shares[source] + signed(code)
        require(0 <= shares[symbol] <= 1 << table_log, "a share out of range")
    shares[implied] = (1 << table_log) - sum(shares)
    require(shares[implied] >= 0, "the shares sum to too much")
    require(shares[-1] > 0, "the last symbol does not occur")
    return Table(shares, table_log)


EVEN_LAST_ORDER: Final = 1
EVEN_DOMINANT_ORDER: Final = 0


def share_at(level: int) -> int:
    """Every share up to 8, then four to an octave."""
    if level < 8:
        return level
    octave, quarter = divmod(level - 8, 4)
    return (4 + quarter) << (octave + 1)


def level_of(share: int) -> int:
    """The last level that is not above the share."""
    level = 0
    while share_at(level + 1) <= share:
        level += 1
    return level


@dataclass(slots=True)
class EvenTables:
    """The even tables of a frame: each is told by what has changed since the last."""

    order: int | None = None
    last: int = 0
    levels: list[int] = field(default_factory=lambda: [0] * 64)

    def read(self, bits: Bits, limit: int, table_log: int) -> Table:
        if self.order is None:
            self.order = bits.get(2)
        self.last += signed(bits.golomb(EVEN_LAST_ORDER))
        dominant = bits.golomb(EVEN_DOMINANT_ORDER)
        require(self.last >= 1 and 2 * self.last + 1 <= limit, "the last bucket out of range")
        require(dominant <= self.last, "the dominant bucket is none")
        left = 1 << (table_log - 1)
        most = level_of(left)
        buckets = [0] * (self.last + 1)
        for bucket in range(self.last + 1):
            if bucket == dominant:
                continue
            level = self.levels[bucket] + signed(bits.golomb(self.order))
            require(0 <= level <= most, "a level out of range")
            require(level > 0 or bucket < self.last, "the last bucket does not occur")
            self.levels[bucket] = level
            buckets[bucket] = share_at(level)
            left -= buckets[bucket]
            require(left > 0, "nothing is left for the dominant bucket")
        buckets[dominant] = left
        self.levels[dominant] = level_of(left)
        return Table(even_shares(buckets), table_log)


def signed(code: int) -> int:
    return -(code + 1) // 2 if code % 2 else code // 2


def even_shares(buckets: Sequence[int]) -> list[int]:
    """The tokens' shares: a bucket's is that of either sign, and zero has no sign."""
    return [2 * buckets[0], *(share for share in buckets[1:] for _ in range(2))]


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
