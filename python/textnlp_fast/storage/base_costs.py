"""What it takes a reader to make a content: how many bases, how many recipes, how much decoding. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from textnlp_fast.delta.recipe import Cast, Recipe, Transposed, Whole
from textnlp_fast.storage.manifest import MAX_RECIPES, Content

__all__ = ["MAX_TURNED_WINDOWS", "BaseCost", "cost_above", "cost_of"]

#: A matrix of more windows is not turned: for each window of the result all of them would be read.
MAX_TURNED_WINDOWS: Final = 4
# Pieces begin and end inside frames, which are decoded whole.
_PIECES_WORK: Final = 2
# The columns that a window cuts at its two ends are turned apart from the others.
_TURNS: Final = 3
# The smallest frame counts for this.
_LEAST_WORK_BYTES: Final = 1 << 12


@dataclass(frozen=True, slots=True)
class BaseCost:
    """`bases` that follow each other below a content, `recipes` among them; bytes decoded for each of its bytes."""

    bases: int
    recipes: int
    work: float

    def within(self, *, most_bases: int, most_work: float) -> bool:
        """Whether a writer may ask this of readers."""
        return self.bases <= most_bases and self.recipes <= MAX_RECIPES and self.work <= most_work


def cost_of(
    contents: Mapping[str, Content], digest: str, known: dict[str, BaseCost] | None = None
) -> BaseCost:
    """The cost of a content; `contents` are closed and without cycles. `known` remembers what was found."""
    known = {} if known is None else known
    stack = [digest]
    while stack:
        content = contents[stack[-1]]
        waiting = [name for name in content.bases if name not in known]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        if content.base is None:
            known[content.digest] = BaseCost(0, 0, 1.0)
        else:
            known[content.digest] = _above(content.base, known)
    return known[digest]


def cost_above(
    contents: Mapping[str, Content], base: Recipe, known: dict[str, BaseCost] | None = None
) -> BaseCost:
    """The cost of a content that would be coded against `base`."""
    known = {} if known is None else known
    for digest in base.source_sizes():
        cost_of(contents, digest, known)
    return _above(base, known)


def _above(base: Recipe, known: Mapping[str, BaseCost]) -> BaseCost:
    sources = base.source_sizes()
    below = [known[digest] for digest in sources]
    bases = 1 + max((cost.bases for cost in below), default=0)
    recipes = max((cost.recipes for cost in below), default=0)
    work = max((cost.work for cost in below), default=0.0)
    if isinstance(base, Whole):
        return BaseCost(bases, recipes, 1 + work)
    if isinstance(base, Cast):
        work *= max(1.0, sum(sources.values()) / base.size_bytes)
    elif isinstance(base, Transposed):
        work *= _TURNS * MAX_TURNED_WINDOWS
    else:
        work *= _PIECES_WORK + _LEAST_WORK_BYTES * len(sources) / base.size_bytes
    return BaseCost(bases, recipes + 1, 1 + work)
