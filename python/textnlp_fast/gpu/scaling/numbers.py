"""Numbers that are to be believed, of snapshots and observations: one that is none poisons all later ones."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

__all__ = ["is_number", "number", "number_or_none", "numbers", "whole"]


def is_number(value: object) -> TypeGuard[int | float]:
    """A finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: object) -> float:
    """A finite number. Raises ValueError for anything else."""
    if not is_number(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def number_or_none(value: object) -> float | None:
    return None if value is None else number(value)


def numbers(values: Any, count: int) -> list[float]:
    """So many finite numbers."""
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ValueError(f"not {count} numbers")
    return [number(one) for one in values]


def whole(value: Any, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r} is no whole number of at least {least}")
    return value
