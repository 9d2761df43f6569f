"""Who fetches which piece from whom. Pure, and what the simulator of many nodes runs, too.

Every piece of an object has a home among the nodes: the one that reads it from the origin for all. Homes are dealt out
like cards, by an order of the nodes that the object's digest makes, so that no node has many more than another: the
origin is read once in all, by everybody a part, and then everybody exchanges. The next in the order stands in where a
home is gone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

__all__ = ["STAND_INS", "homes", "node_order", "pick_source", "piece_order"]

#: A piece's home, and those that stand in for it one after the other.
STAND_INS: Final = 3

Node = TypeVar("Node")


def node_order(digest: str, members: Sequence[str]) -> list[str]:
    """The members in an order that is the object's own, whatever order they are given in."""
    salt = bytes.fromhex(digest)[:16]
    return sorted(
        set(members), key=lambda one: (hashlib.blake2b(one.encode(), key=salt, digest_size=8).digest(), one)
    )


def homes(order: Sequence[Node], piece: int) -> list[Node]:
    """Who reads a piece from the origin, the first that is well; `order` is that of `node_order`."""
    count = min(STAND_INS, len(order))
    return [order[(piece + step) % len(order)] for step in range(count)]


def piece_order(
    wanted: Sequence[int], rng: random.Random, holders: Callable[[int], int] = lambda piece: 0
) -> list[int]:
    """The order in which to fetch pieces: rare ones first, by the holders that are known, others at random.

    If all began at the first, all would ask the same node.
    """
    shuffled = list(wanted)
    rng.shuffle(shuffled)
    return sorted(shuffled, key=lambda piece: min(holders(piece), 3))


def pick_source(candidates: Sequence[Node], asked: Mapping[Node, int], rng: random.Random) -> Node:
    """Of those that have a piece, one of which the least is asked already."""
    least = min(asked.get(one, 0) for one in candidates)
    return rng.choice([one for one in candidates if asked.get(one, 0) == least])
