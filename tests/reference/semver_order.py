"""Precedence of semantic versions, written from item 11 of the specification (2.0.0)."""

from __future__ import annotations

from functools import cmp_to_key
from itertools import zip_longest

__all__ = ["SPEC_ORDER", "compare", "in_order"]

# The chain that the specification itself gives, and what it says of the three numbers.
SPEC_ORDER = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
]


def compare(left: str, right: str) -> int:
    """-1, 0 or 1."""
    (core, _, mine), (other, _, yours) = left.partition("-"), right.partition("-")
    a, b = [int(part) for part in core.split(".")], [int(part) for part in other.split(".")]
    if a != b:
        return -1 if a < b else 1
    if not mine or not yours:
        return (not mine) - (not yours)
    for x, y in zip_longest(mine.split("."), yours.split(".")):
        if x == y:
            continue
        if x is None or y is None:
            return -1 if x is None else 1
        if x.isdigit() and y.isdigit():
            if int(x) != int(y):
                return -1 if int(x) < int(y) else 1
        elif x.isdigit() != y.isdigit():
            return -1 if x.isdigit() else 1
        else:
            return -1 if x.encode() < y.encode() else 1
    return 0


def in_order(versions: list[str]) -> list[str]:
    return sorted(versions, key=cmp_to_key(compare))
