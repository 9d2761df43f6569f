"""The one way to change a model's references: read, decide, compare and swap; again if another writer was first.

A lost answer is no riddle. Every write becomes the change that follows the revision it was decided on, and carries an
id: whoever hears "conflict", or nothing, reads the change of that number and knows by its id whether it was his own.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from textnlp_fast.errors import ConflictError, InvalidInputError, StorageUnavailableError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.names import now_utc
from textnlp_fast.storage.registry.document import serialize_references
from textnlp_fast.storage.registry.grammar import check_actor
from textnlp_fast.storage.registry.history import archived, find_change
from textnlp_fast.storage.registry.references import read_versioned, references_key
from textnlp_fast.storage.registry.state import Change, References

__all__ = ["Edit", "Event", "Written", "change_references"]

# Half of what readers take: a writer that cannot write must still be able to read.
_MAX_WRITTEN_BYTES: Final = 8 << 20
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 1.0
_UNSURE = "The change may have been made or not: look, and make it again if it was not."


@dataclass(frozen=True, slots=True)
class Event:
    """What a change is called and what it is about; becomes a `Change` once it is written."""

    action: str
    detail: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Edit:
    """References as they are to be, and the events that make them so: none, if they are so already."""

    references: References
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """References before and after a change, and what changed (nothing: they were so already)."""

    before: References
    after: References
    changes: tuple[Change, ...]


def change_references(
    store: ObjectStore,
    name: str,
    decide: Callable[[References], Edit],
    *,
    by: str,
    timeout_s: float = 120.0,
) -> Written:
    """Makes a change that `decide` makes of the references as they are, once, whoever else writes.

    `decide` is asked again with the new state whenever another writer was first; what it raises ends the attempt and
    nothing is changed. Raises ConflictError if other writers were first for `timeout_s` seconds.
    """
    check_actor(by)
    identity = secrets.token_hex(16)
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    tried: References | None = None
    while True:
        references, version = read_versioned(store, name)
        if tried is not None:
            made = _made_after_all(store, tried, references, identity)
            if made is not None:
                return made
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"other writers kept changing the references of {name} for {timeout_s:g} s",
                    hint="Nothing was changed. Try again when fewer write at once.",
                )
        edit = decide(references)
        if not edit.events:
            return Written(references, references, ())
        new, changes = _stamped(references, edit, identity, by)
        data = serialize_references(archived(store, new))
        if len(data) > _MAX_WRITTEN_BYTES:
            raise InvalidInputError(
                f"the references of {name} would take {len(data)} bytes; at most {_MAX_WRITTEN_BYTES} are written",
                hint="Remove tags and aliases that nobody needs.",
            )
        try:
            store.compare_and_swap(references_key(name), data, version)
        except ConflictError:
            tried = references  # whether this was our own write that others followed shows in what they wrote
        except StorageUnavailableError as error:
            error.hint = _UNSURE
            raise
        else:
            return Written(references, new, changes)
        time.sleep(random.uniform(0, pause_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _made_after_all(store: ObjectStore, tried: References, now: References, identity: str) -> Written | None:
    """What was written on top of `tried`, if it was this writer's: the answer was lost, and others went on."""
    found = find_change(store, now, tried.revision + 1)
    if found is None or found.id != identity:
        return None
    changes = [found]
    while (
        following := find_change(store, now, changes[-1].number + 1)
    ) is not None and following.id == identity:
        changes.append(following)
    return Written(tried, now, tuple(changes))


def _stamped(
    references: References, edit: Edit, identity: str, by: str
) -> tuple[References, tuple[Change, ...]]:
    at = now_utc()
    changes = tuple(
        Change(number, identity, at, by, event.action, dict(event.detail))
        for number, event in enumerate(edit.events, references.revision + 1)
    )
    new = replace(
        edit.references,
        revision=references.revision + len(changes),
        history=references.history + changes,
        archive=references.archive,
    )
    return new, changes
