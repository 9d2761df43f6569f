"""The cheapest bases for a sequence whose sizes are all known: exact, by dynamic programming.

A version's base is its predecessor, a version below the predecessor in its chain, or none: the bases that the
predecessor's manifest locates. So the versions below any one in the tree are a stretch of consecutive numbers,
and stretches are what is tabulated. What a stretch costs grows with the cost `x` of reaching its first version, by as
many dollars a dollar as there are readers who must: for each tree a line in x, for all trees a concave lower
envelope. Reads of a version by those who hold an ancestor are charged in full and credited at the ancestor, whose own
cost is x. Envelopes are kept whole, hence the result is exact; n versions take O(n^3) sums of envelopes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.anchor_costs import (
    MAX_VERSIONS,
    Prices,
    Readers,
    VersionSizes,
    check_bases,
    links_to,
)

__all__ = ["Continuation", "LinkCost", "cheapest_bases", "continuations"]

LinkCost = Callable[[int, "int | None"], tuple[float, float]]
"""Of (version, base): dollars to store that link, and dollars for each reader who follows it."""

# Trees are kept as nested pairs, shared between lines: (trees before, version, base, tree below).
_Line = tuple[float, float, Any]
_NOTHING: Final[list[_Line]] = [(0.0, 0.0, None)]


def _lowest(lines: list[_Line]) -> list[_Line]:
    """Those lines that are lowest at some x >= 0, in the order of x."""
    lines.sort(key=lambda line: (-line[0], line[1]))
    kept: list[_Line] = []
    for line in lines:
        slope, height, _ = line
        if kept and kept[-1][0] == slope:
            continue
        while kept:
            above = kept[-1]
            start = 0.0
            if len(kept) > 1:
                start = (above[1] - kept[-2][1]) / (kept[-2][0] - above[0])
            if slope * start + height > above[0] * start + above[1]:
                break
            kept.pop()
        kept.append(line)
    return kept


def _cross(lines: list[_Line], at: int) -> float:
    """Where the line after `at` takes over."""
    if at + 1 == len(lines):
        return math.inf
    return (lines[at + 1][1] - lines[at][1]) / (lines[at][0] - lines[at + 1][0])


def _joined(
    left: list[_Line], right: list[_Line], further: float, price: float, version: int, base: int
) -> list[_Line]:
    """left(x) + price + right(x + further), trees joined by a link from `version` to `base`."""
    moved = [(slope, height + slope * further, tree) for slope, height, tree in right]
    # After the move some lines lie left of x = 0.
    first = 0
    while _cross(moved, first) <= 0:
        first += 1
    i, j, total = 0, first, []
    while True:
        (a, b, before), (c, d, below) = left[i], moved[j]
        total.append((a + c, b + d + price, (before, version, base, below)))
        next_left, next_right = _cross(left, i), _cross(moved, j)
        if math.isinf(next_left) and math.isinf(next_right):
            return total
        if next_left <= next_right:
            i += 1
        if next_right <= next_left:
            j += 1


def _value(lines: list[_Line], x: float) -> tuple[float, Any]:
    slope, height, tree = min(lines, key=lambda line: line[0] * x + line[1])
    return slope * x + height, tree


def _write(tree: Any, bases: list[int | None]) -> None:
    while tree is not None:
        tree, version, base, below = tree
        bases[version] = base
        _write(below, bases)


@dataclass(frozen=True, slots=True)
class Continuation:
    """The cheapest way on, given the base of the next version. `usd` leaves the versions before it out."""

    base: int | None
    usd: float
    bases: tuple[int | None, ...]
    """Of all versions, the fixed ones included."""


def _stretches(first: int, count: int, link: LinkCost, readers: Readers) -> list[list[list[_Line]]]:
    """[a][b]: the envelope of versions a to b (less `first`) where all are below a; x reaches a."""
    amount = count - first
    table: list[list[list[_Line]]] = [[[] for _ in range(amount)] for _ in range(amount)]
    for a in range(amount - 1, -1, -1):
        costs = [link(first + c, first + a) if c > a else (0.0, 0.0) for c in range(amount)]
        below: list[list[_Line]] = [_NOTHING] * amount  # of a + 1 to b, by b, without a itself
        reads = readers.reads_per_version
        for b in range(a, amount):
            if b > a:
                lines: list[_Line] = []
                for c in range(a + 1, b + 1):
                    price, further = costs[c]
                    lines += _joined(below[c - 1], table[c][b], further, price, first + c, first + a)
                below[b] = _lowest(lines)
                reads -= readers.reads_from(b - a)
            # Rounding of the shares must not turn a line downwards.
            own = max(reads, 0.0)
            # Slopes that differed by rounding alone may be equal now.
            table[a][b] = _lowest([(slope + own, height, tree) for slope, height, tree in below[b]])
    return table


def continuations(
    fixed: Sequence[int | None], count: int, link: LinkCost, readers: Readers
) -> tuple[Continuation, ...]:
    """The cheapest bases of versions len(fixed) to count - 1, once for each base that the first of them may have.

    The bases are those of the last fixed version's chain, newest first, then None.
    """
    first = len(fixed)
    if not 0 <= first < count:
        raise InvalidInputError(f"{first} versions of {count} are fixed; at least one has to be free")
    check_bases(fixed)
    spine: list[int | None] = [None, *reversed(links_to(fixed, first - 1) if first else [])]
    reach = [0.0]
    for base, version in pairwise(spine):
        assert version is not None
        reach.append(reach[-1] + link(version, base)[1])
    table = _stretches(first, count, link, readers)
    amount = count - first
    # credit[s][i]: what readers of version i save in all by holding one of the first s links of the spine.
    credit = [[0.0] * amount]
    for held, usd in zip(spine[1:], reach[1:], strict=True):
        assert held is not None
        credit.append([credit[-1][i] + usd * readers.reads_from(first + i - held) for i in range(amount)])
    best: list[tuple[float, Any]] = [(0.0, None)] * len(spine)
    following = [best]
    ways: list[tuple[float, Any]] = []
    for start in range(amount - 1, -1, -1):
        ways, best = [], []
        for place, base in enumerate(spine):
            price, further = link(first + start, base)
            saved = 0.0
            least: tuple[float, Any] = (math.inf, None)
            for end in range(start, amount):
                saved += credit[place][end]
                usd, below = _value(table[start][end], reach[place] + further)
                later, rest = following[-1 - (end - start)][place]
                usd += price - saved + later
                if usd < least[0]:
                    least = usd, (rest, first + start, base, below)
            ways.append(least)
            # A tie goes to the newer base.
            best.append(least if not best or least[0] <= best[-1][0] else best[-1])
        following.append(best)
    found = []
    for base, (usd, tree) in zip(spine, ways, strict=True):
        bases: list[int | None] = [*fixed, *([None] * amount)]
        _write(tree, bases)
        found.append(Continuation(base, usd, tuple(bases)))
    return tuple(reversed(found))


def cheapest_bases(sizes: Sequence[VersionSizes], prices: Prices, readers: Readers) -> tuple[int | None, ...]:
    """The bases that cost least in all, in the cost model of `chain_cost`.

    Every version needs the sizes of its deltas to all before it; at most 64 versions. InvalidInputError otherwise.
    """
    if len(sizes) > MAX_VERSIONS:
        raise InvalidInputError(
            f"{len(sizes)} versions are too many; the optimum is found for {MAX_VERSIONS}"
        )
    if not sizes:
        return ()

    def link(version: int, base: int | None) -> tuple[float, float]:
        stored = sizes[version].bytes_against(base)
        return prices.store_usd(stored), prices.link_usd(stored, sizes[version].model_bytes)

    ways = continuations((), len(sizes), link, readers)
    return ways[0].bases
