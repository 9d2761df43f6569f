"""A model's older history: blocks of changes, created once, each naming the one before it.

So refs.json stays small for ever and no change is lost. A block is named by its last change and its digest: writers
that make the same block make the same object, and one that was made for nothing harms nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from textnlp_fast.contents.documents import Broken, canonical, parse_document, seal_document, take
from textnlp_fast.errors import CorruptDataError, InvalidInputError, ObjectExistsError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.names import check_name
from textnlp_fast.storage.registry.document import change_document, read_archive, read_change
from textnlp_fast.storage.registry.state import Change, References

__all__ = ["BLOCK_CHANGES", "archived", "every_change", "find_change", "read_block"]

BLOCK_CHANGES: Final = 64
"""Changes of a block; refs.json holds fewer than twice as many."""
_MAX_BLOCK_BYTES: Final = 16 << 20

Archive = tuple[int, str]


def _key(name: str, archive: Archive) -> str:
    last, digest = archive
    return f"models/{check_name(name)}/history/{last:012d}-{digest}.json"


def archived(store: ObjectStore, references: References) -> References:
    """The references with all but the last changes of their history moved into blocks, which this creates."""
    while len(references.history) >= 2 * BLOCK_CHANGES:
        oldest = references.history[:BLOCK_CHANGES]
        previous = references.archive
        document = {
            "format": 1,
            "model": references.model,
            "previous": None if previous is None else list(previous),
            "changes": [change_document(change) for change in oldest],
        }
        archive = (oldest[-1].number, blake3_hex(canonical(document)))
        try:
            store.create(_key(references.model, archive), seal_document(document))
        except ObjectExistsError as error:
            raise CorruptDataError(
                f"{_key(references.model, archive)!r} holds something other than its name says",
                hint="Restore it from a copy of the repository, or remove it: it is made again.",
            ) from error
        references = replace(references, history=references.history[BLOCK_CHANGES:], archive=archive)
    return references


def read_block(store: ObjectStore, name: str, archive: Archive) -> tuple[list[Change], Archive | None]:
    """The changes of a block, the oldest first, and the name of the block before it.

    Raises MissingObjectError and CorruptDataError.
    """
    key = _key(name, archive)
    document = parse_document(store.get(key, limit_bytes=_MAX_BLOCK_BYTES), key)
    if blake3_hex(canonical(document)) != archive[1]:
        raise CorruptDataError(f"{key!r} holds something other than its name says")
    try:
        previous = read_archive(document.get("previous"))
        changes = [read_change(value) for value in take(document, "changes", list, key)]
        first = 1 if previous is None else previous[0] + 1
        numbers = [change.number for change in changes]
        if not numbers or numbers != list(range(first, archive[0] + 1)):
            raise Broken(f"its changes are not those from {first} to {archive[0]}")
    except (Broken, InvalidInputError) as error:
        raise CorruptDataError(f"{key!r} is not valid: {error.args[0]}") from None
    return changes, previous


def every_change(store: ObjectStore, references: References) -> Iterator[Change]:
    """All changes there ever were, the newest first; reads blocks as far as they are asked for."""
    yield from reversed(references.history)
    archive = references.archive
    while archive is not None:
        changes, archive = read_block(store, references.model, archive)
        yield from reversed(changes)


def find_change(store: ObjectStore, references: References, number: int) -> Change | None:
    """The change of this number, None if there have been fewer."""
    if not 1 <= number <= references.revision:
        return None
    return next((change for change in every_change(store, references) if change.number == number), None)
