"""Sparse frames written slowly: any split, any hazards, any coder, and tellings that say more than they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from struct import pack
from typing import Final

from reference.codec import AS_STEPS, BY_BITS, IN_LANES, LEARNED, PAIRED, SPARSE, STEP_TYPES
from reference.codec_elements import NAMES, TYPES, ElementType, context, residual
from reference.codec_learned import MOST_ELEMENTS, SIGNS_IN_A_STATE, ChangeChances
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
    """Any valid way to write a sparse or, where the coder is ``BY_BITS``, a learned frame.

    ``coding``: the contexts too, and with tables their form. ``hazards``: codes, by context in turn; a cold
    context that changes gets 1 at least. ``idle``: every so many of the cold elements that stayed are told all
    the same, as are that many needless exceptions to steps; 0 for none, as always in learned frames. ``awake``:
    blocks are told to be alive though nothing in them changes. ``held``: signs that the states of a learned
    frame may hold.
    """

    coder: int = PAIRED
    coding: DeltaForm = USUAL_CODING
    listed: int = 0
    hazards: tuple[int, ...] = (12,)
    step: float = 0.001
    idle: int = 0
    awake: bool = False
    held: int = 2 * SIGNS_IN_A_STATE


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

    def pack(self, held: int = 0) -> bytes:
        """``held``: up to 62 bits for the states to begin with, the lower half in that whose turn comes next."""
        below = (1 << SIGNS_IN_A_STATE) - 1
        states = [PAIR_FLOOR | held & below, PAIR_FLOOR | held >> SIGNS_IN_A_STATE]
        if len(self.notes) % 2:
            states.reverse()
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
    if form.coder == BY_BITS:
        form = replace(form, idle=0)
    often, rarely = write_places(pair, contexts, codes, new, old, form)
    places = often + rarely
    if not places:
        raise ValueError("a sparse frame must tell something")
    told = [new[place] for place in places], [old[place] for place in places]

    body = b"" if form.coder == BY_BITS else bytes([form.coder])
    body += varint(form.coding.context_base) + bytes([form.coding.contexts, form.listed])
    body += pack_bits([bit for code in codes[form.listed :] for bit in number_bits(code, 5)])
    if form.coder == BY_BITS:
        packed_scheme = form.coding.scheme.direct << 2 | form.coding.scheme.mantissa
        changes = write_changes(pair, *told, element, [contexts[place] for place in places], form)
        return frame(LEARNED, dtype, len(target), body + bytes([packed_scheme]) + changes)
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


def write_changes(
    pair: PairWriter,
    new: Sequence[int],
    old: Sequence[int],
    element: ElementType,
    contexts: Sequence[int],
    form: SparseForm,
) -> bytes:
    """The pair, places included, and the signs behind it."""
    if len(new) > MOST_ELEMENTS:
        raise ValueError("more elements than a learned frame tells")
    scheme = form.coding.scheme
    chances = ChangeChances(form.listed)
    changes = [residual(value, before, element) for value, before in zip(new, old, strict=True)]
    for first in range(0, len(new), GROUP):
        group = range(first, min(first + GROUP, len(new)))
        for index in group:
            if contexts[index] < form.listed:
                pair.learned(changes[index] != 0, chances.of_change(contexts[index]))
        for index in group:
            if changes[index]:
                pair.learned(abs(changes[index]) > 1, chances.of_larger(contexts[index]))
        for index in group:
            if abs(changes[index]) > 1:
                token, raw = scheme.split(abs(changes[index]))
                last, bucket = scheme.last_bucket(element.bits), (token + 1) // 2
                if bucket > last:
                    raise ValueError("the scheme has no bucket for a change")
                for lower in range(2, min(bucket + 1, last)):
                    pair.learned(lower < bucket, chances.of_further(contexts[index]))
                pair.bits(raw, scheme.raw_bits(token))
    signs = [change < 0 for change in changes if change]
    behind = min(-(-max(0, len(signs) - form.held) // 8), len(signs) // 8)
    held = sum(sign << number for number, sign in enumerate(signs[8 * behind :]))
    return pair.pack(held) + pack_bits(signs[: 8 * behind])
