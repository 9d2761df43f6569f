"""Long lists in parts: `limit` and `cursor` of a request, `next_cursor` of its answer."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

from fastapi import Query

from textnlp_fast.errors import InvalidInputError

__all__ = ["MOST_ITEMS", "Cursor", "Limit", "numbered_page", "page_after"]

Item = TypeVar("Item")
MOST_ITEMS: Final = 1000
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="Items of one answer, at most")]
Cursor = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=400,
        pattern=r"^[A-Za-z0-9._:/@+-]+$",
        description="`next_cursor` of the answer before",
    ),
]


def page_after(
    items: Sequence[Item], cursor: str | None, limit: int, key: Callable[[Item], str]
) -> tuple[Sequence[Item], str | None]:
    """The items behind the cursor, of a list in the order of `key`, and the cursor of what follows them.

    An item that came or went meanwhile moves no other.
    """
    start = 0 if cursor is None else bisect.bisect_right(items, cursor, key=key)
    found = items[start : start + limit]
    return found, key(found[-1]) if found and start + limit < len(items) else None


def numbered_page(items: Sequence[Item], cursor: str | None, limit: int) -> tuple[Sequence[Item], str | None]:
    """The same of a list that does not change, by its places. Raises InvalidInputError for an odd cursor."""
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 12):
        raise InvalidInputError("the cursor is none that an answer gave", hint="Begin without one.")
    start = 0 if cursor is None else int(cursor)
    found = items[start : start + limit]
    return found, str(start + limit) if start + limit < len(items) else None
