"""Sparse frames written slowly: any split, any hazards, any coder, and tellings that say more than they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import pack
from typing import Final

from reference.codec import (
    AS_STEPS,
    IN_LANES,
    NAMES,
    PAIRED,
    SPARSE,
    STEP_TYPES,
    TYPES,
    ElementType,
    context,
)
from reference.codec_sparse import (
    BLOCK,
    GROUP,
    HAZARDS,
    PAIR_FLOOR,
    PLACE_LOG,
    Chance,
    PlaceChances,
    Spread,
    block_hazards,
    step_outcomes,
)
from reference.codec_streams import Table, elements, to_bytes
from reference.codec_writer import (
    DeltaForm,
    delta_tables,
    frame,
    in_lanes,
    number_bits,
    pack_bits,
    tokens_of,
    varint,
)

USUAL_CODING: Final = DeltaForm(table_log=10)


@dataclass(frozen=True, slots=True)
class SparseForm:
    """Any valid way to write a sparse frame.

    ``coding``: the contexts too, and with tables their form. ``hazards``: codes, by context in turn; a cold
    context that changes gets 1 at least. ``idle``: every so many of the cold elements that stayed are told all
    the same, as are that many needless exceptions to steps; 0 for none. ``awake``: blocks are told to be alive
    though nothing in them changes.
    """

    coder: int = PAIRED
    coding: DeltaForm = USUAL_CODING
    listed: int = 0
    hazards: tuple[int, ...] = (12,)
    step: float = 0.001
    idle: int = 0
    awake: bool = False


@dataclass(slots=True)
class PairWriter:
    """Notes what a reader will take, in the reader's order; `pack` then codes it from end to front."""

    notes: list[tuple[int, int, int]] = field(default_factory=list)  # start, share, log

    def symbol(self, symbol: int, table: Table) -> None:
        self.notes.append((table.starts[symbol], table.shares[symbol], table.log))

    def bits(self, value: int, count: int) -> None:
        for low in range(0, count, 16):
            width = min(16, count - low)
            self.notes.append(((value >> low) % (1 << width), 1, width))

    def learned(self, bit: bool, chance: Chance) -> None:
        one = chance.share()
        self.notes.append((0, one, 16) if bit else (one, (1 << 16) - one, 16))
        chance.learn(bit)

    def pack(self) -> bytes:
        states = [PAIR_FLOOR] * 2
        words: list[int] = []
        for number, (start, share, log) in reversed(list(enumerate(self.notes))):
            state = states[number % 2]
            if state >= share << (63 - log):
                words.append(state & 0xFFFFFFFF)
                state >>= 32
            states[number % 2] = (state // share << log) + start + state % share
        words.reverse()
        return to_bytes(states, 8) + varint(len(words)) + to_bytes(words, 4)


def encode_sparse(dtype: str, target: bytes, base: bytes, form: SparseForm) -> bytes:
    """Raises ValueError where the form does not do: no context for a change, nothing told, no steps of the type."""
    element = TYPES[dtype]
    if form.coder == AS_STEPS and dtype not in STEP_TYPES:
        raise ValueError("a type without steps")
    new, old = elements(target, element.size), elements(base, element.size)
    contexts = [context(value, element, form.coding.context_base) for value in old]
    codes = hazard_codes(contexts, [a != b for a, b in zip(new, old, strict=True)], form)
    pair = PairWriter()
    often, rarely = write_places(pair, contexts, codes, new, old, form)
    places = often + rarely
    if not places:
        raise ValueError("a sparse frame must tell something")
    told = [new[place] for place in places], [old[place] for place in places]

    body = bytes([form.coder]) + varint(form.coding.context_base) + bytes([form.coding.contexts, form.listed])
    body += pack_bits([bit for code in codes[form.listed :] for bit in number_bits(code, 5)])
    if form.coder == AS_STEPS:
        body += pack("<f", form.step)
        ups = write_steps(pair, *told, element, events=len(rarely), form=form)
        return frame(SPARSE, dtype, len(target), body + pair.pack() + ups)
    coded = tokens_of(*told, element, form.coding)
    tables, bits = delta_tables(coded, form.coding.scheme.limit(element.bits), form.coding)
    scheme = form.coding.scheme
    body += bytes([form.coding.table_log, scheme.direct << 2 | scheme.mantissa]) + pack_bits(bits)
    if form.coder == IN_LANES:
        return frame(SPARSE, dtype, len(target), body + pair.pack() + in_lanes(coded, tables, form.coding))
    for number, token, raw in coded:
        pair.symbol(token, tables[number])
        pair.bits(raw, scheme.raw_bits(token))
    return frame(SPARSE, dtype, len(target), body + pair.pack())


def hazard_codes(contexts: Sequence[int], changed: Sequence[bool], form: SparseForm) -> list[int]:
    """By context, 0 for the listed ones."""
    moving = {number for number, change in zip(contexts, changed, strict=True) if change}
    if max(moving, default=0) >= form.coding.contexts:
        raise ValueError("something changes that has no context")
    wanted = [form.hazards[number % len(form.hazards)] for number in range(form.coding.contexts)]
    return [0 if number < form.listed else max(code, number in moving) for number, code in enumerate(wanted)]


def write_places(
    pair: PairWriter,
    contexts: Sequence[int],
    codes: Sequence[int],
    new: Sequence[int],
    old: Sequence[int],
    form: SparseForm,
) -> tuple[list[int], list[int]]:
    """Tells which elements changed; returns the listed ones and the others."""
    chances = PlaceChances()
    hazards = [HAZARDS[code] for code in codes]
    all_listed: list[int] = []
    all_events: list[int] = []
    idle = 0
    for begin in range(0, len(old), BLOCK):
        here = contexts[begin : begin + BLOCK]
        if form.listed:
            alive = form.awake or old[begin : begin + BLOCK] != new[begin : begin + BLOCK]
            pair.learned(alive, chances.alive[chances.before])
            chances.before = alive
            if not alive:
                continue
        all_listed += [begin + place for place, number in enumerate(here) if number < form.listed]
        cold = block_hazards(here, hazards)
        events = []
        for number, (place, _) in enumerate(cold):
            idle += 1
            if old[begin + place] != new[begin + place] or (form.idle and idle % form.idle == 0):
                events.append(number)
        if cold:
            write_events(pair, chances, cold, events)
            all_events += [begin + cold[number][0] for number in events]
    return all_listed, all_events


def write_events(
    pair: PairWriter, chances: PlaceChances, cold: Sequence[tuple[int, int]], events: Sequence[int]
) -> None:
    """``events``: which of ``cold``."""
    total = sum(hazard for _, hazard in cold)
    for number in range(len(events) + 1):
        pair.learned(number < len(events), chances.another(total, number))
    first = 0
    for number, event in enumerate(events):
        spread = Spread(sum(hazard for _, hazard in cold[first:]), len(events) - number)
        before = sum(hazard for _, hazard in cold[first:event])
        start = spread.reach(before)
        pair.notes.append((start, spread.reach(before + cold[event][1]) - start, PLACE_LOG))
        first = event + 1


def write_steps(
    pair: PairWriter,
    new: Sequence[int],
    old: Sequence[int],
    element: ElementType,
    *,
    events: int,
    form: SparseForm,
) -> bytes:
    """Tells what is no step; returns the directions."""
    outcomes = step_outcomes(old, NAMES[element.number], form.step)
    ups: list[int] = []
    odd: list[bool] = []
    for index, (value, before, outcome) in enumerate(zip(new, old, outcomes, strict=True)):
        odd.append(value not in outcome or (form.idle > 0 and index % form.idle == 0))
        if outcome != (before, before):
            ups.append(value == outcome[0])
    in_group, here, stayed = Chance(), Chance(), Chance()
    for index, (value, before) in enumerate(zip(new, old, strict=True)):
        group = odd[index - index % GROUP :][:GROUP]
        if index % GROUP == 0:
            pair.learned(any(group), in_group)
        if not any(group):
            continue
        pair.learned(odd[index], here)
        if not odd[index]:
            continue
        stays = value == before
        if outcomes[index] != (before, before) and index < len(new) - events:
            pair.learned(stays, stayed)
            if stays:
                continue
        pair.bits(value, element.bits)
    return pack_bits(ups)
