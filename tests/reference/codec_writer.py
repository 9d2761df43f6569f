"""Frames written slowly, with any choice the format allows.

They make streams that the core's encoder never would (other table sizes, token schemes, contexts, segment
counts, uneven shares), so that its decoder is tested on the format and not on the encoder's habits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from reference.codec import (
    AS_BEFORE,
    CODED_PLANE,
    CONSTANT_PLANE,
    DELTA,
    DIFFERENCE,
    EVEN_TABLE,
    LEARNED,
    OWN_TABLE,
    PLANES,
    RAW_PLANE,
    SPARSE,
    VERSION,
    ZERO_ONLY,
)
from reference.codec_elements import TYPES, ElementType, Scheme, context, residual
from reference.codec_streams import (
    EVEN_DOMINANT_ORDER,
    EVEN_LAST_ORDER,
    LANES,
    STATE_FLOOR,
    Table,
    elements,
    even_shares,
    level_of,
    predicted_from,
    segment_ranges,
    share_at,
    to_bytes,
)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def golomb(value: int, order: int) -> list[int]:
    shifted = value + (1 << order)
    below = shifted.bit_length() - 1
    return [0] * (below - order) + [1] + number_bits(shifted - (1 << below), below)


def number_bits(value: int, count: int) -> list[int]:
    return [value >> place & 1 for place in range(count)]


def pack_bits(bits: Sequence[int]) -> bytes:
    return bytes(
        sum(bit << place for place, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8)
    )


def unsigned(change: int) -> int:
    """Zigzag: small changes of either sign as small numbers."""
    return -2 * change - 1 if change < 0 else 2 * change


@dataclass(frozen=True, slots=True)
class TableForm:
    """How a table is written: any form gives the same shares."""

    implied: int = 0
    predictor: int = 0
    order: int = 4


USUAL_TABLE: Final = TableForm()


def write_table(shares: Sequence[int], form: TableForm) -> list[int]:
    symbols = max(symbol for symbol, share in enumerate(shares) if share) + 1
    bits = number_bits(symbols - 1, 8)
    if symbols == 1:
        return bits
    implied = form.implied % symbols
    bits += [1, *number_bits(implied, 8)] if implied else [0]
    bits += number_bits(form.predictor, 2) + number_bits(form.order, 4)
    for symbol in range(symbols):
        if symbol == implied:
            continue
        source = predicted_from(symbol, form.predictor, implied)
        code = shares[symbol]
        if source is not None:
            code = unsigned(shares[symbol] - shares[source])
        bits += golomb(code, form.order)
    return bits


def table_of(counts: Sequence[int], table_log: int) -> Table:
    """Shares of at least one for each symbol that occurs. Not the best ones: any will do."""
    left = (1 << table_log) - sum(1 for count in counts if count)
    total = sum(counts)
    shares = [1 + count * left // total if count else 0 for count in counts]
    shares[max(range(len(counts)), key=lambda symbol: counts[symbol])] += (1 << table_log) - sum(shares)
    return Table(shares, table_log)


@dataclass(slots=True)
class LaneWriter:
    """Notes what a reader will take, in the reader's order; `pack` then codes it from end to front."""

    notes: list[tuple[int, int, int, int]] = field(default_factory=list)  # lane, start, share, log

    def symbol(self, lane: int, symbol: int, table: Table) -> None:
        self.notes.append((lane, table.starts[symbol], table.shares[symbol], table.log))

    def bits(self, lane: int, value: int, count: int) -> None:
        self.notes.append((lane, value, 1, count))

    def pack(self) -> bytes:
        states = [STATE_FLOOR] * LANES
        words: list[int] = []
        for lane, start, share, log in reversed(self.notes):
            state = states[lane]
            if state >= share << (32 - log):
                words.append(state & 0xFFFF)
                state >>= 16
            states[lane] = (state // share << log) + start + state % share
        words.reverse()
        return varint(len(words)) + to_bytes(states, 4) + to_bytes(words, 2)


def frame(mode: int, dtype: str, size: int, body: bytes = b"") -> bytes:
    head = bytes([VERSION << 4 | mode, TYPES[dtype].number]) + varint(size)
    return (
        head
        + (len(body).to_bytes(3, "little") if mode in (PLANES, DELTA, SPARSE, DIFFERENCE, LEARNED) else b"")
        + body
    )


@dataclass(frozen=True, slots=True)
class PlaneForm:
    kind: int = CODED_PLANE
    table_log: int = 12
    segments: int = 1
    table: TableForm = USUAL_TABLE


def encode_planes(dtype: str, target: bytes, forms: Sequence[PlaneForm]) -> bytes:
    """A planes frame; ``forms`` says how each plane, from the top, is to be written."""
    element = TYPES[dtype]
    values = elements(target, element.size)
    if element.rotates:
        top = element.bits - 1
        values = [(value << 1 | value >> top) % (1 << element.bits) for value in values]
    body = b""
    split = [value.to_bytes(element.size, "big") for value in values]
    for place, form in enumerate(forms):
        plane = bytes(parts[place] for parts in split)
        body += bytes([form.kind])
        if form.kind == RAW_PLANE:
            body += plane
        elif form.kind == CONSTANT_PLANE:
            if len(set(plane)) > 1:
                raise ValueError("not a constant plane")
            body += plane[:1]
        else:
            body += coded_plane(plane, form)
    return frame(PLANES, dtype, len(target), body)


def encode_difference(dtype: str, target: bytes, base: bytes, form: PlaneForm) -> bytes:
    """A difference frame of single bytes."""
    steps = bytes((new - old) % 256 for new, old in zip(target, base, strict=True))
    return frame(DIFFERENCE, dtype, len(target), bytes([form.kind]) + coded_plane(steps, form))


def coded_plane(plane: bytes, form: PlaneForm) -> bytes:
    table = table_of([plane.count(symbol) for symbol in range(max(plane) + 1)], form.table_log)
    body = bytes([form.table_log]) + pack_bits(write_table(table.shares, form.table))
    ranges = segment_ranges(len(plane), form.segments)
    body += bytes([len(ranges)])
    for places in ranges:
        lanes = LaneWriter()
        for index in places:
            lanes.symbol((index - places.start) % LANES, plane[index], table)
        body += lanes.pack()
    return body


USUAL_SCHEME: Final = Scheme(3, 2)


@dataclass(frozen=True, slots=True)
class EvenForm:
    """Which contexts have even tables, and how these are told. ``dominant`` is taken modulo the buckets."""

    contexts: frozenset[int] = frozenset()
    order: int = 1
    dominant: int = 0


NO_EVEN: Final = EvenForm()


@dataclass(slots=True)
class EvenWriter:
    form: EvenForm
    first: bool = True
    last: int = 0
    levels: list[int] = field(default_factory=lambda: [0] * 64)

    def write(self, counts: Sequence[int], table_log: int) -> tuple[Table, list[int]]:
        """A table that has a share for every token that occurs, or for its twin."""
        last = max((token + 1) // 2 for token, count in enumerate(counts) if count)
        padded = [*counts, 0, 0]
        sizes = [padded[0], *(padded[2 * size - 1] + padded[2 * size] for size in range(1, last + 1))]
        dominant = self.form.dominant % (last + 1)
        used = sum(1 for size in sizes if size)
        left = 1 << (table_log - 1)
        room = left - used - 1
        bits = [] if not self.first else number_bits(self.form.order, 2)
        bits += golomb(unsigned(last - self.last), EVEN_LAST_ORDER) + golomb(dominant, EVEN_DOMINANT_ORDER)
        self.first, self.last = False, last
        buckets = [0] * (last + 1)
        for bucket in range(last + 1):
            if bucket == dominant:
                continue
            level = level_of(1 + sizes[bucket] * room // sum(sizes)) if sizes[bucket] else 0
            bits += golomb(unsigned(level - self.levels[bucket]), self.form.order)
            self.levels[bucket] = level
            buckets[bucket] = share_at(level)
            left -= buckets[bucket]
        buckets[dominant] = left
        self.levels[dominant] = level_of(left)
        return Table(even_shares(buckets), table_log), bits


@dataclass(frozen=True, slots=True)
class DeltaForm:
    """Any valid way to write a delta. ``joined``: contexts that share the table of the one before."""

    table_log: int = 11
    scheme: Scheme = USUAL_SCHEME
    context_base: int = 0
    contexts: int = 1
    segments: int = 1
    joined: frozenset[int] = frozenset()
    table: TableForm = USUAL_TABLE
    spare: int = 0  # added to every token's count: shares for what never occurs
    even: EvenForm = NO_EVEN


Coded = tuple[int, int, int]  # context, token, raw bits


def encode_delta(dtype: str, target: bytes, base: bytes, form: DeltaForm) -> bytes:
    element = TYPES[dtype]
    coded = tokens_of(elements(target, element.size), elements(base, element.size), element, form)
    tables, bits = delta_tables(coded, form.scheme.limit(element.bits), form)
    body = bytes([form.table_log, form.scheme.direct << 2 | form.scheme.mantissa])
    body += varint(form.context_base) + bytes([form.contexts]) + pack_bits(bits)
    return frame(DELTA, dtype, len(target), body + in_lanes(coded, tables, form))


def tokens_of(new: Sequence[int], prior: Sequence[int], element: ElementType, form: DeltaForm) -> list[Coded]:
    half = 1 << (element.bits - 1)
    coded = []
    for value, old in zip(new, prior, strict=True):
        steps = residual(value, old, element)
        number = min(context(old, element, form.context_base), form.contexts - 1)
        # Half the range is its own negative, and the lower token of the two is the positive one's.
        coded.append((number, *form.scheme.split(half if steps == -half else steps)))
    if max(token for _, token, _ in coded) >= form.scheme.limit(element.bits):
        raise ValueError("the scheme has no token for a residual")
    return coded


def in_lanes(coded: Sequence[Coded], tables: Sequence[Table], form: DeltaForm) -> bytes:
    ranges = segment_ranges(len(coded), form.segments)
    body = bytes([len(ranges)])
    for places in ranges:
        lanes = LaneWriter()
        for step in range(places.start, places.stop, LANES):
            here = coded[step : min(step + LANES, places.stop)]
            for lane, (number, token, _) in enumerate(here):
                lanes.symbol(lane, token, tables[number])
            widths = [form.scheme.raw_bits(token) for _, token, _ in here]
            for low in range(0, max(widths), 16):
                for lane, (_, _, raw) in enumerate(here):
                    if widths[lane] > low:
                        width = min(16, widths[lane] - low)
                        lanes.bits(lane, (raw >> low) % (1 << width), width)
        body += lanes.pack()
    return body


def delta_tables(coded: Sequence[Coded], limit: int, form: DeltaForm) -> tuple[list[Table], list[int]]:
    """The table of every context, and the bits that say so."""
    owner = list(range(form.contexts))
    for number in range(1, form.contexts):
        if number in form.joined:
            owner[number] = owner[number - 1]
    counts = [[form.spare] * limit for _ in range(form.contexts)]
    for number, token, _ in coded:
        counts[owner[number]][token] += 1
    evens = EvenWriter(form.even)
    tables: list[Table] = []
    bits: list[int] = []
    for number, own in enumerate(counts):
        last = max((token + 1) // 2 for token, count in enumerate([1, *own[1:]]) if count)
        if owner[number] != number:
            bits += number_bits(AS_BEFORE, 2)
            tables.append(tables[-1])
        elif not any(own[1:]):
            bits += number_bits(ZERO_ONLY, 2)
            tables.append(Table([1 << form.table_log], form.table_log))
        elif number in form.even.contexts and 2 * last + 1 <= limit:
            table, told = evens.write(own, form.table_log)
            tables.append(table)
            bits += number_bits(EVEN_TABLE, 2) + told
        else:
            tables.append(table_of(own, form.table_log))
            bits += number_bits(OWN_TABLE, 2) + write_table(tables[-1].shares, form.table)
    return tables, bits
