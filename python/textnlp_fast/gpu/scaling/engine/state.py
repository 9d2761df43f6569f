"""Numbers of a snapshot: what is none is refused, for it would poison every later decision."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["number", "number_or_none", "numbers", "whole"]


def number(value: Any) -> float:
    """A finite number. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def number_or_none(value: Any) -> float | None:
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
