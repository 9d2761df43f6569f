"""What sparse frames add, read slowly: two states that take turns, bits that are learned, places, and steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from reference.codec_streams import LANES, Bytes, Table, elements, require

PAIR_FLOOR: Final = 1 << 31
BLOCK: Final = 512
HAZARD_CODES: Final = 24
HAZARDS: Final = (0, *(round(2 ** (half / 2)) for half in range(HAZARD_CODES - 1)))
PLACE_LOG: Final = 24
MOST_POWER: Final = 12
GROUP: Final = 32


# --- symbols that come one by one ---------------------------------------------------------------------------


@dataclass(slots=True)
class Pair:
    """Two states of 63 bits that take turns, and one stream of words of 32 bits."""

    states: list[int]
    words: list[int]
    taken: int = 0
    turn: int = 0

    def slot(self, log: int) -> int:
        return self.states[self.turn] % (1 << log)

    def advance(self, start: int, share: int, log: int) -> None:
        high, slot = divmod(self.states[self.turn], 1 << log)
        state = share * high + slot - start
        if state < PAIR_FLOOR:
            require(self.taken < len(self.words), "the words run out")
            state = state << 32 | self.words[self.taken]
            self.taken += 1
        self.states[self.turn] = state
        self.turn = 1 - self.turn

    def symbol(self, table: Table) -> int:
        symbol = table.at(self.slot(table.log))
        self.advance(table.starts[symbol], table.shares[symbol], table.log)
        return symbol

    def bits(self, count: int) -> int:
        """Sixteen at a time, the lowest first."""
        value = 0
        for low in range(0, count, 16):
            width = min(16, count - low)
            part = self.slot(width)
            self.advance(part, 1, width)
            value |= part << low
        return value

    def learned(self, chance: Chance) -> bool:
        """A bit under a chance, which then learns it."""
        one = chance.share()
        bit = self.slot(16) < one
        self.advance(0 if bit else one, one if bit else (1 << 16) - one, 16)
        chance.learn(bit)
        return bit

    def finish(self) -> None:
        require(self.taken == len(self.words), "words are left over")
        require(self.states == [PAIR_FLOOR] * 2, "a state does not end where it began")


def read_pair(reader: Bytes) -> Pair:
    states = elements(reader.take(16), 8)
    words = elements(reader.take(4 * reader.varint()), 4)
    require(all(PAIR_FLOOR <= state < 1 << 63 for state in states), "a state out of range")
    return Pair(states, words)


@dataclass(slots=True)
class Chance:
    """How likely a bit is to be 1, in 2**16, by the bits before."""

    one: int = 1 << 15
    seen: int = 0

    def share(self) -> int:
        return min(max(self.one, 32), (1 << 16) - 32)

    def learn(self, bit: bool) -> None:
        rate = (1 << 16) // (self.seen + 2)
        if bit:
            self.one += (0xFFFF - self.one) * rate >> 16
        else:
            self.one -= self.one * rate >> 16
        self.seen = min(self.seen + 1, 254)


# --- places -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class PlaceChances:
    """Of a block to be alive, by whether the one before was; of one event more, by summed hazard and number."""

    alive: dict[bool, Chance] = field(default_factory=lambda: {False: Chance(), True: Chance()})
    before: bool = True
    more: dict[tuple[int, int], Chance] = field(default_factory=dict)

    def another(self, total: int, events: int) -> Chance:
        return self.more.setdefault((total.bit_length(), min(events, 3)), Chance())


@dataclass(frozen=True, slots=True)
class Spread:
    """``events`` that fall evenly on ``rest`` units of hazard."""

    rest: int
    events: int

    def reach(self, place: int) -> int:
        """The chance that the first falls before ``place``, in 2**24, no unit without a chance."""
        scale = 1 << PLACE_LOG
        inverse = -(-(1 << 40) // self.rest)
        behind = min((self.rest - place) * inverse >> 16, scale)
        all_behind = behind
        for _ in range(min(self.events, MOST_POWER) - 1):
            all_behind = all_behind * behind >> PLACE_LOG
        return place + ((scale - self.rest) * (scale - all_behind) >> PLACE_LOG)


def by_columns(count: int) -> list[int]:
    """The places of a block of ``count`` elements in rows of 32, column after column."""
    return [place for column in range(LANES) for place in range(column, count, LANES)]


def block_hazards(contexts: Sequence[int], hazards: Sequence[int]) -> list[tuple[int, int]]:
    """Place and hazard of all that can change by itself, in the order in which events are told."""
    found = ((place, contexts[place]) for place in by_columns(len(contexts)))
    cold = [(place, hazards[context]) for place, context in found if context < len(hazards)]
    return [(place, hazard) for place, hazard in cold if hazard]


def read_places(
    pair: Pair, contexts: Sequence[int], listed: int, hazards: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Which elements are listed, and which others changed. ``hazards``: by context, none for the listed."""
    chances = PlaceChances()
    all_listed: list[int] = []
    all_events: list[int] = []
    for begin in range(0, len(contexts), BLOCK):
        here = contexts[begin : begin + BLOCK]
        if listed:
            chances.before = pair.learned(chances.alive[chances.before])
            if not chances.before:
                continue
        all_listed += [begin + place for place, context in enumerate(here) if context < listed]
        cold = block_hazards(here, hazards)
        if cold:
            all_events += [begin + place for place in read_events(pair, chances, cold)]
    return all_listed, all_events


def read_events(pair: Pair, chances: PlaceChances, cold: list[tuple[int, int]]) -> list[int]:
    total = sum(hazard for _, hazard in cold)
    count = 0
    while pair.learned(chances.another(total, count)):
        count += 1
        require(count <= BLOCK, "more events than elements")
    events = []
    at, rest = 0, total
    for told in range(count):
        require(at < len(cold), "more events than can be")
        spread = Spread(rest, count - told)
        slot = pair.slot(PLACE_LOG)
        before = 0
        while spread.reach(before + cold[at][1]) <= slot:
            before += cold[at][1]
            at += 1
        start = spread.reach(before)
        pair.advance(start, spread.reach(before + cold[at][1]) - start, PLACE_LOG)
        events.append(cold[at][0])
        rest -= before + cold[at][1]
        at += 1
    return events


# --- steps --------------------------------------------------------------------------------------------------


def step_outcomes(values: Sequence[int], dtype: str, size: float) -> list[tuple[int, int]]:
    """Each number plus and minus ``size``, added in single precision and rounded to the nearest, ties to even.

    Infinities and NaNs stay.
    """
    words = np.array(values, dtype=np.uint32)
    single = as_single(words, dtype)
    finite = np.isfinite(single)
    with np.errstate(all="ignore"):
        both = [
            np.where(finite, from_single(moved, dtype), words).tolist()
            for moved in (single + np.float32(size), single - np.float32(size))
        ]
    return list(zip(*both, strict=True))


def as_single(words: npt.NDArray[np.uint32], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "F16":
        return words.astype(np.uint16).view(np.float16).astype(np.float32)
    return (words << np.uint32(16 if dtype == "BF16" else 0)).view(np.float32)


def from_single(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.uint32]:
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16).astype(np.uint32)
    bits = values.view(np.uint32)
    if dtype == "F32":
        return bits
    kept, lost = bits >> np.uint32(16), bits & np.uint32(0xFFFF)
    up = (lost > 0x8000) | ((lost == 0x8000) & (kept % 2 == 1))
    out: npt.NDArray[np.uint32] = kept + up.astype(np.uint32)
    return out


def read_steps(
    pair: Pair,
    prior: Sequence[int],
    outcomes: Sequence[tuple[int, int]],
    ups: Bytes,
    *,
    events: int,
    bits: int,
) -> list[int]:
    """New numbers: the last ``events`` of them known to have changed. ``ups``: the directions, a bit each."""
    movable = [outcome != (old, old) for outcome, old in zip(outcomes, prior, strict=True)]
    packed = int.from_bytes(ups.take((sum(movable) + 7) // 8), "little")
    found = []
    for outcome, moves in zip(outcomes, movable, strict=True):
        found.append(outcome[0] if packed & 1 else outcome[1])
        packed >>= moves
    in_group, here, stayed = Chance(), Chance(), Chance()
    for index in range(len(prior)):
        if index % GROUP == 0:
            odd = pair.learned(in_group)
        if odd and pair.learned(here):
            may_stay = movable[index] and index < len(prior) - events
            found[index] = prior[index] if may_stay and pair.learned(stayed) else pair.bits(bits)
    return found
