"""Mark, condemn, sentence, sweep: how unused objects go beside pushes that may want them.

Each step is right whoever else is at work, also another collector: all that decides is in `garbage.json`, and every
change of it is on the condition that it is as it was when the reading that led to the change began.
`docs/decisions/0019-collecting-beside-writers.md` has the argument, `tests/garbage/model.py` walks through it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock

from textnlp_fast.contents.windows import Progress, ProgressCallback
from textnlp_fast.errors import ConflictError, MissingObjectError, StorageUnavailableError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.objectstore.conditional import Backoff
from textnlp_fast.storage.extents import object_key
from textnlp_fast.storage.garbage.document import (
    MAX_CONDEMNED,
    Garbage,
    Seen,
    change_garbage,
    read_garbage,
    swap_garbage,
)
from textnlp_fast.storage.garbage.intents import Intent, remove_intent
from textnlp_fast.storage.garbage.usage import UsageReader, digest_of, stored_objects
from textnlp_fast.storage.publication import Publication
from textnlp_fast.storage.version_manager import VersionManager
from textnlp_fast.telemetry import adopting

__all__ = ["Sweeper", "Swept"]

_DELETERS = 16
_TRIES = 32


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did: objects deleted, and those that wait for their grace to end, with bytes."""

    objects: int = 0
    bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    next_due_s: float | None = None

    def and_then(self, later: Swept) -> Swept:
        return replace(later, objects=self.objects + later.objects, bytes=self.bytes + later.bytes)


class Sweeper:
    """Deletes what nothing uses.

    An object goes once it was found unused for `grace_s`, by the clocks of whoever collected; a push that has said
    what it is about to publish is taken for dead after `push_grace_s`. Neither is what makes it safe.
    """

    def __init__(
        self,
        store: ObjectStore,
        versions: VersionManager,
        *,
        grace_s: float,
        push_grace_s: float,
        clock: Callable[[], float],
        progress: ProgressCallback | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._versions = versions
        self._grace_s = grace_s
        self._push_grace_s = push_grace_s
        self._clock = clock
        self._progress = progress
        self._alive = alive
        self.reader = UsageReader(store, versions)

    def run(self) -> Swept:
        """Everything that is due. Raises what a store raises; what was begun then is finished by the next run."""
        done = self.finish(read_garbage(self._store).garbage)
        self.settle_pushes()
        while True:
            step = self._round()
            done = done.and_then(step)
            if not step.objects:
                return done

    # --- pushes that were killed -------------------------------------------------------------------------------

    def settle_pushes(self) -> None:
        """Removes intents of pushes that are over, and ends those that have been at their last step for too long."""
        intents = self.reader.scan().intents
        if not intents and not read_garbage(self._store).garbage.pushes:
            return
        now = int(self._clock())
        ids = {intent.id for intent in intents}

        def note(garbage: Garbage) -> Garbage:
            return replace(garbage, pushes={each: min(now, garbage.pushes.get(each, now)) for each in ids})

        first_seen = change_garbage(self._store, note).garbage.pushes
        for intent in intents:
            since = first_seen.get(intent.id, now)
            self._settle(intent, is_dead=now - since >= self._push_grace_s)

    def _settle(self, intent: Intent, *, is_dead: bool) -> None:
        """Moves the version's key on before the intent of a dead push goes: its manifest can never come after."""
        for _ in Backoff(_TRIES).tries():
            publication = Publication(self._store, self._versions, intent.model, intent.version)
            existing = publication.existing
            is_over = existing is not None and existing.write_id == intent.id
            if not is_over and not is_dead:
                return
            try:
                if existing is None:
                    publication.retire()
                elif existing.write_id == intent.replaces:
                    # It waits for this manifest: the same again, under another id.
                    publication.publish(replace(existing, write_id=secrets.token_hex(16)), action="gc.fence")
            except ConflictError:
                continue
            remove_intent(self._store, intent.id)
            return
        raise StorageUnavailableError(f"the key of {intent.model}@{intent.version} changes all the time")

    # --- rounds ------------------------------------------------------------------------------------------------

    def _round(self) -> Swept:
        """Condemns what is unused, sentences what has been so for long enough, and deletes that."""
        for _ in Backoff(_TRIES).tries():
            self._alive()
            try:
                return self._try_round()
            except ConflictError:
                continue  # a push took something out of the document, or another collector is at work: look again
        raise StorageUnavailableError("the repository changes all the time; nothing could be collected")

    def _try_round(self) -> Swept:
        seen = read_garbage(self._store)
        if seen.garbage.sentenced:
            return self.finish(seen.garbage)
        sizes = {digest_of(meta): meta.size for meta in stored_objects(self._store)}
        unused = sizes.keys() - self.reader.scan().objects
        now = int(self._clock())
        chosen = self._oldest(unused, seen.garbage, now)
        seen = self._swap(seen, replace(seen.garbage, condemned=chosen))
        due = {digest for digest, since in chosen.items() if now - since >= self._grace_s}
        if not due:
            left = sum(sizes[digest] for digest in unused)
            next_due = min(chosen.values()) + self._grace_s if chosen else None
            return Swept(0, 0, len(unused), left, next_due)
        # Read again, now that whoever comes from here on sees them condemned.
        verdict = due - self.reader.scan().objects
        kept = {digest: since for digest, since in chosen.items() if digest not in due}
        after = replace(seen.garbage, condemned=kept, sentenced=seen.garbage.sentenced | verdict)
        self._swap(seen, after)
        return self._delete({digest: sizes[digest] for digest in verdict})

    def _oldest(self, unused: Iterable[str], garbage: Garbage, now: int) -> dict[str, int]:
        """What is condemned, and since when: first those that were before."""
        since = {digest: min(now, garbage.condemned.get(digest, now)) for digest in unused}
        return dict(sorted(since.items(), key=lambda pair: (pair[1], pair[0]))[:MAX_CONDEMNED])

    def _swap(self, seen: Seen, after: Garbage) -> Seen:
        return seen if after == seen.garbage else swap_garbage(self._store, seen, after)

    # --- deleting ----------------------------------------------------------------------------------------------

    def finish(self, garbage: Garbage) -> Swept:
        """Deletes what a collector that was killed has sentenced."""
        if not garbage.sentenced:
            return Swept()
        with ThreadPoolExecutor(_DELETERS, initializer=adopting()) as pool:
            ordered = sorted(garbage.sentenced)
            sizes = dict(zip(ordered, pool.map(self._size, ordered), strict=True))
        return self._delete(sizes)

    def _size(self, digest: str) -> int:
        try:
            return self._store.head(object_key(digest)).size
        except MissingObjectError:
            return 0

    def _delete(self, sizes: dict[str, int]) -> Swept:
        """Deletes sentenced objects and remembers their names."""
        total, done, lock = sum(sizes.values()), 0, Lock()

        def delete(digest: str) -> None:
            nonlocal done
            self._alive()
            self._store.delete(object_key(digest))
            with lock:
                done += sizes[digest]
                if self._progress is not None:
                    self._progress(Progress("gc", done, total))

        with ThreadPoolExecutor(_DELETERS, initializer=adopting()) as pool:
            for _ in pool.map(delete, sorted(sizes)):
                pass
        if sizes:
            change_garbage(self._store, lambda garbage: garbage.with_swept(garbage.sentenced & sizes.keys()))
        return Swept(len(sizes), total)
