"""Keeps the snapshot: who reads gets one that is young enough, and one listing at a time renews it for all."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from textnlp_fast.errors import StorageUnavailableError, TextnlpFastError
from textnlp_fast.service.blocking import Blocking
from textnlp_fast.service.caching import SingleFlight
from textnlp_fast.service.reading.manifests import BoundedVersionManager
from textnlp_fast.service.reading.scan import scan, scan_model
from textnlp_fast.service.reading.snapshot import ModelView, Snapshot

__all__ = ["Catalog"]

_log = logging.getLogger(__name__)
# How long a repository is read in the first place, and how long stale answers do while the store is away.
_FIRST_S = 3600.0
_AWAY_S = 120.0


class Catalog:
    """The repository as it was a moment ago. For one event loop.

    Answers are made of a snapshot that is at most `stale_s` old (longer only while the store does not answer, and up
    to two minutes then); from `fresh_s` on it is renewed beside them. Listings take at most `listing_share` of the
    time: of a repository whose listing takes 2 s there is one in 10 s, and both ages grow with that. What this process
    changed itself shows at once, what others changed within that time.
    """

    def __init__(
        self,
        versions: BoundedVersionManager,
        blocking: Blocking,
        *,
        fresh_s: float,
        stale_s: float,
        listing_share: float = 0.2,
    ) -> None:
        self._versions = versions
        self._blocking = blocking
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._share = listing_share
        self._flight = SingleFlight()
        self._snapshot: Snapshot | None = None
        self._took_s = 0.0
        self._changed_s: dict[str, float] = {}
        self._failed_s = float("-inf")
        self._listeners: list[Callable[[Snapshot | None, Snapshot], None]] = []

    @property
    def snapshot(self) -> Snapshot | None:
        """What is known now, however old; None before the first reading."""
        return self._snapshot

    @property
    def age_s(self) -> float | None:
        """The age of what is known."""
        return None if self._snapshot is None else time.monotonic() - self._snapshot.made_s

    def listen(self, listener: Callable[[Snapshot | None, Snapshot], None]) -> None:
        """Tells `listener` of each new snapshot and the one before, on the loop. Views that stayed are the same."""
        self._listeners.append(listener)

    def begin(self) -> None:
        """Begins to read the repository, so that the first who asks waits less."""
        self._flight.start("scan", self._scan)

    async def current(self) -> Snapshot:
        """A snapshot that is young enough. Raises StorageUnavailableError and what the store raises."""
        now, snapshot = time.monotonic(), self._snapshot
        pause_s = self._took_s * (1 / self._share - 1)
        if snapshot is None:
            return await self._renewed()
        age_s = now - snapshot.made_s
        if age_s <= max(self._fresh_s, pause_s):
            return snapshot
        if age_s <= max(self._stale_s, 2 * pause_s):
            self._flight.start("scan", self._scan)
            return snapshot
        try:
            if now - self._failed_s < self._fresh_s:  # it was asked a moment ago, and did not answer
                raise StorageUnavailableError("the store did not answer a moment ago")
            return await self._renewed()
        except StorageUnavailableError:
            if age_s <= self._stale_s + _AWAY_S:
                return snapshot
            raise

    async def model(self, name: str) -> ModelView:
        """A model. Raises ModelNotFoundError; looks again before it does, for it may just have been pushed."""
        snapshot = await self.current()
        if name not in snapshot.models and (self.age_s or 0) > min(1.0, self._fresh_s):
            snapshot = await self._renewed()
        return snapshot.model(name)

    async def changed(self, name: str) -> ModelView | None:
        """The model as it is now that this process has changed it; None if it is gone."""
        began_s = time.monotonic()
        self._changed_s[name] = began_s
        before = self._snapshot.models.get(name) if self._snapshot is not None else None
        view = await self._blocking.run(scan_model, self._versions, name, before)
        if self._snapshot is not None and self._changed_s.get(name) == began_s:
            self._changed_s[name] = time.monotonic()
            models = {key: each for key, each in self._snapshot.models.items() if key != name}
            if view is not None:
                models[name] = view
            ordered = {key: models[key] for key in sorted(models)}
            self._take(replace(self._snapshot, models=ordered))
        return view

    async def _renewed(self) -> Snapshot:
        task = self._flight.start("scan", self._scan)
        try:
            return await asyncio.wait_for(asyncio.shield(task), 30.0)
        except asyncio.TimeoutError:
            if task.done():
                return task.result()
            raise StorageUnavailableError(
                "the repository is still being read", hint="Ask again in a few seconds."
            ) from None

    async def _scan(self) -> Snapshot:
        began_s = time.monotonic()
        try:
            found = await self._blocking.run(scan, self._versions, self._snapshot, timeout_s=_FIRST_S)
        except TextnlpFastError as error:
            self._failed_s = time.monotonic()
            _log.warning("the repository cannot be read: %s", error.args[0])
            raise
        self._took_s = time.monotonic() - began_s
        if self._snapshot is None:
            gc.freeze()  # all that was read stays: a collection that looked through it would stop the loop
        # What was changed here since the listing began is known better than the listing says.
        mine = {name for name, at_s in self._changed_s.items() if at_s >= began_s}
        self._changed_s = {name: at_s for name, at_s in self._changed_s.items() if name in mine}
        if mine and self._snapshot is not None:
            models = {name: view for name, view in found.models.items() if name not in mine}
            models |= {name: view for name, view in self._snapshot.models.items() if name in mine}
            found = replace(found, models={name: models[name] for name in sorted(models)})
        self._take(found)
        return found

    def _take(self, snapshot: Snapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        for listener in self._listeners:
            listener(before, snapshot)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being read."""
        return self._blocking.is_idle

    def close(self) -> None:
        """Reads nothing any more."""
        self._blocking.close()
