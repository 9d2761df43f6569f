"""A model's history in pages: what its references hold, then older blocks, each of which is read once and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.service.reading.snapshot import ModelView
from textnlp_fast.storage.registry.history import read_block
from textnlp_fast.storage.registry.state import Change

if TYPE_CHECKING:
    from textnlp_fast.service.state import Service

__all__ = ["changes_before"]

Block = tuple[tuple[Change, ...], tuple[int, str] | None]
_CHANGE_BYTES: Final = 800
# Of one answer: whoever looks for what is rare reads on from the cursor.
_MOST_BLOCKS: Final = 64


async def changes_before(
    service: Service,
    view: ModelView,
    cursor: str | None,
    limit: int,
    wanted: Callable[[Change], bool] = lambda _change: True,
) -> tuple[list[Change], str | None]:
    """Changes older than the one that the cursor numbers, the newest first, and the cursor of what follows them.

    Raises InvalidInputError for a cursor that is no number.
    """
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 12):
        raise InvalidInputError("the cursor is none that an answer gave", hint="Begin without one.")
    before = int(cursor) if cursor is not None else view.references.revision + 1
    found: list[Change] = []
    block: Block = (view.references.history, view.references.archive)
    last = before
    for _ in range(_MOST_BLOCKS):
        for change in reversed(block[0]):
            if change.number >= before:
                continue
            if len(found) == limit:
                return found, str(last)
            last = change.number
            if wanted(change):
                found.append(change)
        if block[1] is None:
            return found, None
        block = await _block(service, view.name, block[1])
    return found, str(last) if last > 1 else None


async def _block(service: Service, name: str, archive: tuple[int, str]) -> Block:
    key = ("changes", name, archive)

    async def read() -> Block:
        changes, previous = await service.blocking.run(read_block, service.store, name, archive)
        made: Block = (tuple(changes), previous)
        service.answers.put(key, made, len(changes) * _CHANGE_BYTES)
        return made

    kept = service.answers.get(key)
    if isinstance(kept, tuple):
        return kept[0], kept[1]
    return await service.flights.run(key, read)
