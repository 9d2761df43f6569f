"""What learned frames add, read slowly: changes told bit by bit under chances, and signs in what is left over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from reference.codec_elements import Scheme
from reference.codec_sparse import GROUP, PAIR_FLOOR, Chance, Pair
from reference.codec_streams import Bytes, require

MOST_ELEMENTS: Final = 1 << 14
SIGNS_IN_A_STATE: Final = 31


@dataclass(slots=True)
class ChangeChances:
    """By context; the cold contexts, from ``listed`` on, share theirs."""

    listed: int
    changed: dict[int, Chance] = field(default_factory=dict)
    larger: dict[int, Chance] = field(default_factory=dict)
    further: dict[int, Chance] = field(default_factory=dict)

    def of_change(self, context: int) -> Chance:
        return self.changed.setdefault(context, Chance())

    def of_larger(self, context: int) -> Chance:
        """Of a size to be more than 1."""
        return self.larger.setdefault(min(context, self.listed), Chance())

    def of_further(self, context: int) -> Chance:
        """Of such a size to lie beyond a bucket."""
        return self.further.setdefault(min(context, self.listed), Chance())


def read_changes(
    pair: Pair, reader: Bytes, contexts: Sequence[int], *, listed: int, scheme: Scheme, bits: int
) -> list[int]:
    """Signed residuals of a row of elements, of which only listed ones may stay; ends pair and body."""
    require(1 <= len(contexts) <= MOST_ELEMENTS, "nothing changes, or too much")
    chances = ChangeChances(listed)
    sizes: list[int] = []
    for first in range(0, len(contexts), GROUP):
        group = contexts[first : first + GROUP]
        moves = [number >= listed or pair.learned(chances.of_change(number)) for number in group]
        larger = [
            move and pair.learned(chances.of_larger(number))
            for number, move in zip(group, moves, strict=True)
        ]
        for number, move, more in zip(group, moves, larger, strict=True):
            sizes.append(read_size(pair, chances.of_further(number), scheme, bits) if more else int(move))
    signs = read_signs(pair, reader, sum(1 for size in sizes if size))
    return [-size if size and next(signs) else size for size in sizes]


def read_size(pair: Pair, further: Chance, scheme: Scheme, bits: int) -> int:
    """More than 1."""
    bucket = 2
    while bucket < scheme.last_bucket(bits) and pair.learned(further):
        bucket += 1
    token = 2 * bucket - 1
    return scheme.join(token, pair.bits(scheme.raw_bits(token)))


def read_signs(pair: Pair, reader: Bytes, count: int) -> Iterator[bool]:
    """The bytes that are left hold the first ones, the states the others."""
    packed = reader.take(reader.end - reader.at)
    require(pair.taken == len(pair.words), "words are left over")
    require(all(PAIR_FLOOR <= state < 2 * PAIR_FLOOR for state in pair.states), "a state ends too high")
    next_state, other = pair.states[pair.turn] - PAIR_FLOOR, pair.states[1 - pair.turn] - PAIR_FLOOR
    held = next_state | other << SIGNS_IN_A_STATE
    in_states = count - 8 * len(packed)
    require(0 <= in_states <= 2 * SIGNS_IN_A_STATE, "as many signs as there are changes")
    require(held < 1 << in_states, "a sign of nothing")
    signs = int.from_bytes(packed, "little") | held << 8 * len(packed)
    return iter([bool(signs >> number & 1) for number in range(count)])
