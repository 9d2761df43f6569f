"""`garbage.json`: what is condemned, sentenced and swept. One document, written by compare-and-swap only.

*Condemned* objects are those that a collector found unused; whoever needs one takes it out again. *Sentenced* ones are
being deleted, by whoever comes by, and never used again; *swept* ones were. Their names do not come back, for a
delete may be on its way still: what they held is stored under another name. `docs/decisions/0019` says why.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from textnlp_fast.contents.documents import (
    Broken,
    check_digest,
    parse_document,
    seal_document,
    take,
    take_size,
)
from textnlp_fast.errors import ConflictError, CorruptDataError, MissingObjectError, StorageUnavailableError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.objectstore.backend import Version
from textnlp_fast.objectstore.conditional import Backoff

__all__ = [
    "GARBAGE_KEY",
    "MAX_CONDEMNED",
    "MAX_SWEPT",
    "Garbage",
    "Seen",
    "change_garbage",
    "read_garbage",
    "short",
    "swap_garbage",
]

GARBAGE_KEY: Final = "garbage.json"
# What is more waits for the next round.
MAX_CONDEMNED: Final = 1 << 15
# Names that are remembered; more, and all of them are forgotten and a new era begins.
MAX_SWEPT: Final = 1 << 14
_LIMIT_BYTES: Final = 32 << 20
# Of a swept object's name. That two begin alike costs one needless suffix.
_SHORT: Final = 24
_TRIES: Final = 64


def short(digest: str) -> str:
    """How the name of a swept object is remembered."""
    return digest[:_SHORT]


@dataclass(frozen=True, slots=True)
class Garbage:
    """What the document says. Times are whole seconds since 1970 by the clock of the collector that wrote them.

    `era` counts how often the names of swept objects were forgotten. `pushes` are those that a collector met before
    they had published, by id, with the time.
    """

    era: int = 0
    condemned: Mapping[str, int] = field(default_factory=dict)
    sentenced: frozenset[str] = frozenset()
    swept: frozenset[str] = frozenset()
    pushes: Mapping[str, int] = field(default_factory=dict)

    def is_gone(self, digest: str) -> bool:
        """Whether nobody may rely on the object any more, be it there or not."""
        return digest in self.sentenced or short(digest) in self.swept

    def with_swept(self, digests: Iterable[str]) -> Garbage:
        """The document once these sentenced objects are deleted."""
        done = frozenset(digests)
        swept = self.swept | {short(digest) for digest in done}
        after = replace(self, sentenced=self.sentenced - done, swept=swept)
        return after if len(swept) <= MAX_SWEPT else replace(after, era=self.era + 1, swept=frozenset())


@dataclass(frozen=True, slots=True)
class Seen:
    """The document as it was read; `version` is what a swap compares with, None if there is no document yet."""

    garbage: Garbage
    version: Version | None


def read_garbage(store: ObjectStore) -> Seen:
    """What the repository's document says now. Raises CorruptDataError and its kinds."""
    try:
        data, version = store.get_versioned(GARBAGE_KEY, limit_bytes=_LIMIT_BYTES)
    except MissingObjectError:
        return Seen(Garbage(), None)
    document = parse_document(data, GARBAGE_KEY)
    try:
        return Seen(_build(document), version)
    except Broken as error:
        raise CorruptDataError(f"{GARBAGE_KEY} is not valid: {error}") from None


def swap_garbage(store: ObjectStore, seen: Seen, after: Garbage) -> Seen:
    """Writes the document if it still is as `seen`. Raises ConflictError if it is not."""
    data = seal_document(
        {
            "condemned": dict(after.condemned),
            "era": after.era,
            "format": 1,
            "pushes": dict(after.pushes),
            "sentenced": sorted(after.sentenced),
            "swept": sorted(after.swept),
            "write_id": secrets.token_hex(16),
        }
    )
    return Seen(after, store.compare_and_swap(GARBAGE_KEY, data, seen.version))


def change_garbage(store: ObjectStore, change: Callable[[Garbage], Garbage]) -> Seen:
    """Applies `change` to the document as it is, again and again until nobody came between.

    Only for changes that are right whatever has happened meanwhile.
    """
    for _ in Backoff(_TRIES, longest_pause_s=1.0).tries():
        seen = read_garbage(store)
        after = change(seen.garbage)
        if after == seen.garbage:
            return seen
        try:
            return swap_garbage(store, seen, after)
        except ConflictError:
            continue
    raise StorageUnavailableError(
        f"{GARBAGE_KEY} in {store.url} changes all the time; gave up after {_TRIES} tries"
    )


def _build(document: Mapping[str, Any]) -> Garbage:
    pushes = take(document, "pushes", dict, GARBAGE_KEY)
    return Garbage(
        era=take_size(document, "era", GARBAGE_KEY, (1 << 32) - 1),
        condemned=_times(take(document, "condemned", dict, GARBAGE_KEY), digests=True),
        sentenced=frozenset(
            check_digest(each, "sentenced") for each in take(document, "sentenced", list, GARBAGE_KEY)
        ),
        swept=frozenset(_texts(take(document, "swept", list, GARBAGE_KEY))),
        pushes=_times(pushes, digests=False),
    )


def _times(values: dict[str, Any], *, digests: bool) -> dict[str, int]:
    for key in values:
        take_size(values, key, GARBAGE_KEY)
        if digests:
            check_digest(key, "condemned")
    return values


def _texts(values: list[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise Broken("swept holds something other than text")
    return values
