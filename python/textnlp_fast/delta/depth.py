"""How contents stand on each other: what a base is made of, and that this ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from textnlp_fast.delta.bases import Recipe
from textnlp_fast.delta.moved import Whole
from textnlp_fast.errors import CorruptDataError

__all__ = ["MAX_DEPTH", "Based", "check_depth"]

# Bases that a reader follows.
MAX_DEPTH: Final = 63


class Based(Protocol):
    """A content that may be coded against a base."""

    @property
    def base(self) -> Recipe | None: ...


def check_depth(contents: Mapping[str, Based], *, most_recipes: int = MAX_DEPTH) -> None:
    """Raises CorruptDataError if bases form a cycle, or too many follow each other.

    That is more than `MAX_DEPTH`, or more than `most_recipes` that are other than a whole content. What is not in
    `contents` is there already.
    """
    depths: dict[str, tuple[int, int]] = {}
    entered: set[str] = set()
    for root in contents:
        stack = [root]
        while stack:
            digest = stack[-1]
            if digest in depths:
                stack.pop()
                continue
            base = contents[digest].base
            below = [] if base is None else [name for name in base.source_sizes() if name in contents]
            waiting = [name for name in below if name not in depths]
            if not waiting:
                depths[digest] = _above(base, [depths[name] for name in below])
                if depths[digest][0] > MAX_DEPTH:
                    raise CorruptDataError(f"more than {MAX_DEPTH} bases follow each other below {digest}")
                if depths[digest][1] > most_recipes:
                    raise CorruptDataError(
                        f"more than {most_recipes} recipes follow each other below {digest}"
                    )
                stack.pop()
            elif digest in entered:
                raise CorruptDataError(f"the bases of content {digest} form a cycle")
            else:
                entered.add(digest)
                stack.extend(waiting)


def _above(base: Recipe | None, below: list[tuple[int, int]]) -> tuple[int, int]:
    """Bases, and recipes among them, that follow each other from a content with this base on."""
    if base is None:
        return 0, 0
    bases = 1 + max((bases for bases, _ in below), default=0)
    return bases, (not isinstance(base, Whole)) + max((recipes for _, recipes in below), default=0)
