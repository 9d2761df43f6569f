"""In which order tensors can be overwritten when new ones are made of old ones.

A tensor whose old bytes others still need waits for these; where that goes in a circle (two tensors that change
places), the old bytes of one are kept aside.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from textnlp_fast.delta.making import Coded
from textnlp_fast.delta.recipe import Whole

__all__ = ["Needs", "Turn", "chain_to", "in_order", "needs_of"]


@dataclass(frozen=True, slots=True)
class Needs:
    """Contents in memory that a content is made of.

    ``aligned`` is the one of which each window makes the same window, if there is one; ``elsewhere`` are those of
    which any part can be needed at any time.
    """

    aligned: str | None
    elsewhere: frozenset[str]


def needs_of(contents: Mapping[str, Coded], digest: str, held: Container[str]) -> Needs:
    """What the bytes of a content are made of that nothing makes, or that is `held` already."""
    elsewhere: set[str] = set()
    aligned: str | None = digest
    waiting: list[str] = []
    while aligned is not None and aligned not in held and aligned in contents:
        base = contents[aligned].base
        if isinstance(base, Whole):
            aligned = base.digest
            continue
        aligned = None
        if base is not None:
            waiting += base.source_sizes()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        stored = contents.get(name)
        if name in held or stored is None:
            elsewhere.add(name)
        elif stored.base is not None:
            waiting += stored.base.source_sizes()
    return Needs(aligned, frozenset(elsewhere))


def chain_to(
    contents: Mapping[str, Coded], digest: str, held: Container[str]
) -> tuple[list[str], str | None] | None:
    """The contents that windows of `digest` are decoded through, the last to be decoded last, and the one held that
    they start from (None: they start from nothing). None if a recipe makes something of several contents on the way.
    """
    chain: list[str] = []
    following: str | None = digest
    while following is not None and following not in held:
        stored = contents.get(following)
        if stored is None or not isinstance(stored.base, Whole | None):
            return None
        chain.append(following)
        following = None if stored.base is None else stored.base.digest
    chain.reverse()
    return chain, following


@dataclass(frozen=True, slots=True)
class Turn:
    """One tensor to overwrite, by its number; its old bytes are kept aside before if ``keep``."""

    number: int
    keep: bool


def in_order(old: Sequence[str], needs: Sequence[Needs], sizes: Sequence[int]) -> list[list[Turn]]:
    """Turns for tensors that have the contents ``old`` and are made of ``needs``, numbered as these, in groups.

    ``old`` are digests; several tensors may have one. Those of a group may be overwritten at the same time: whatever
    each needs is in its own memory, in that of tensors that are not in the group and come later or never, or kept.
    """
    remaining = set(range(len(old)))
    kept: set[str] = set()
    users: dict[str, set[int]] = {}
    for number, need in enumerate(needs):
        for digest in need.elsewhere | ({need.aligned} if need.aligned is not None else set()):
            users.setdefault(digest, set()).add(number)
    holders: dict[str, set[int]] = {}
    for number, digest in enumerate(old):
        holders.setdefault(digest, set()).add(number)

    def is_missed(number: int) -> bool:
        """Whether its old bytes would be, if this tensor went now."""
        digest = old[number]
        if digest in kept or holders[digest] != {number}:
            return False
        others = users.get(digest, set()) & remaining
        # Its own use is no hindrance where each window makes its own successor.
        return bool(others - {number}) or (number in others and digest in needs[number].elsewhere)

    groups: list[list[Turn]] = []
    while remaining:
        free: dict[str, int] = {}
        for number in sorted(remaining):
            # One of each content: the others still have it for whoever needs it meanwhile.
            if old[number] not in free and not is_missed(number):
                free[old[number]] = number
        group = [Turn(number, keep=False) for number in free.values()]
        if not group:
            smallest = min(remaining, key=lambda number: (sizes[number], number))
            group = [Turn(smallest, keep=True)]
            kept.add(old[smallest])
        for turn in group:
            remaining.discard(turn.number)
            holders[old[turn.number]].discard(turn.number)
        groups.append(group)
    return groups
