"""The fleet as its own faces know it: the journal of machines, the watch of their health, the autoscalers' books.

Nothing here asks a cloud. What is not configured is empty, and says so.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from textnlp_fast.config import load_settings
from textnlp_fast.errors import TextnlpFastError
from textnlp_fast.gpu.health.fleet import FleetHealth, verdict_of, watch_fleet
from textnlp_fast.gpu.health.monitor import GPUHealthMonitorManager
from textnlp_fast.gpu.resources.fleet import FleetInstance, fleet_instance
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.resources.ledger import Costs, costs_of, total
from textnlp_fast.gpu.resources.records import LaunchRecord
from textnlp_fast.gpu.scaling.autoscaler.book import Book
from textnlp_fast.gpu.scaling.autoscaler.manager import names_in
from textnlp_fast.gpu.scaling.autoscaler.records import DecisionRecord, State
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.service.autoscaler_views import decision_view
from textnlp_fast.service.config import ServiceConfig

__all__ = ["CostSeries", "DecisionWatch", "FleetReader", "HealthWatch"]

_log = logging.getLogger("textnlp_fast.service.fleet")
_NO_JOURNAL: Final = (
    "no fleet is configured: start the service with --fleet-state, or set TEXTNLP_FAST_FLEET_STATE"
)
_NO_BOOK_STORE: Final = (
    "no autoscaler is known: start the service with --fleet-state, or with --autoscaler-store"
)
_NO_BOOKS: Final = "no autoscaler has written to the store that the service was told of"
_NO_HEALTH: Final = "no machine is watched: start the service with --health-agent NAME=URL"
_POINTS: Final = 60
_MOST_FLEETS: Final = 500
_UTC: Final = datetime.timezone.utc


@dataclass(frozen=True, slots=True)
class CostSeries:
    """What the fleet costs, in all, by provider and over time. `points` are the oldest first."""

    at: datetime.datetime
    total: Costs
    by_provider: tuple[tuple[str, Costs], ...]
    points: tuple[tuple[datetime.datetime, Costs], ...]
    budget_usd_per_hour: float | None
    budget_usd: float | None


class FleetReader:
    """Reads the journal and the autoscalers' books. Thread-safe; every call may block."""

    def __init__(self, config: ServiceConfig) -> None:
        settings = load_settings()
        self.settings = settings
        self._state = config.fleet_state or settings.fleet_state
        self._books = config.autoscaler_store or self._state
        self._lock = threading.Lock()
        self._journal: Journal | None = None
        self._store: ObjectStore | None = None

    @property
    def note(self) -> str:
        """Why there are no machines, where none can be known."""
        return "" if self._state else _NO_JOURNAL

    @property
    def books_note(self) -> str:
        """Why there are no autoscalers, where none can be known."""
        return _NO_BOOKS if self._books else _NO_BOOK_STORE

    def records(self) -> list[LaunchRecord]:
        """All launches. Raises CorruptDataError and what the store raises."""
        if self._state is None:
            return []
        with self._lock:
            if self._journal is None:
                self._journal = Journal.open(self._state)
            journal = self._journal
        return journal.records()

    def instances(self) -> list[FleetInstance]:
        """The machines that are alive by the journal, the newest first."""
        now = datetime.datetime.now(_UTC)
        found = [
            fleet_instance(record, one, {}, now)
            for record in self.records()
            for one in record.instances
            if one.state.alive
        ]
        found.sort(key=lambda one: one.instance_id)
        return sorted(found, key=lambda one: one.instance.launched_at, reverse=True)

    def costs(self) -> CostSeries:
        """What they cost, from the journal alone."""
        now = datetime.datetime.now(_UTC)
        records = self.records()
        providers: dict[str, Costs] = {}
        for record in records:
            providers[record.provider] = providers.get(record.provider, Costs()) + costs_of(record, now)
        return CostSeries(
            at=now,
            total=total(records, now),
            by_provider=tuple(sorted(providers.items())),
            points=tuple(_points(records, now)),
            budget_usd_per_hour=self.settings.gpu_budget_usd_per_hour,
            budget_usd=self.settings.gpu_budget_usd,
        )

    # --- autoscalers --------------------------------------------------------------------------------------------

    def book_names(self) -> list[str]:
        """The fleets that autoscalers have written of."""
        store = self._book_store()
        return [] if store is None else names_in(store)[:_MOST_FLEETS]

    def book(self, name: str) -> Book | None:
        """The book of a fleet; None where no store is configured."""
        store = self._book_store()
        return None if store is None else Book(store, name)

    def book_marks(self) -> dict[str, str]:
        """What the store says of each fleet's state without reading it: another mark, another state."""
        store = self._book_store()
        marks: dict[str, str] = {}
        for meta in store.list("autoscalers") if store is not None else ():
            parts = meta.key.split("/")
            if len(parts) == 3 and parts[2] == "state.json" and len(marks) < _MOST_FLEETS:
                marks[parts[1]] = meta.etag
        return marks

    def _book_store(self) -> ObjectStore | None:
        if self._books is None:
            return None
        with self._lock:
            if self._store is None:
                self._store = open_store(self._books)
            return self._store


def _points(records: Sequence[LaunchRecord], now: datetime.datetime) -> list[tuple[datetime.datetime, Costs]]:
    """What had been spent by each of some moments, evenly spaced since the first launch."""
    begun = [period.began for record in records for one in record.instances for period in one.periods]
    if not begun or min(begun) >= now:
        return []
    first = min(begun)
    step = (now - first) / _POINTS
    moments = [first + step * number for number in range(1, _POINTS)]
    return [
        *((moment, total((_as_of(one, moment) for one in records), moment)) for moment in moments),
        (now, total(records, now)),
    ]


def _as_of(record: LaunchRecord, moment: datetime.datetime) -> LaunchRecord:
    """The record without what had not happened yet."""
    instances = []
    for one in record.instances:
        periods = tuple(
            replace(period, ended=None) if period.ended is not None and period.ended > moment else period
            for period in one.periods
            if period.began <= moment
        )
        instances.append(replace(one, periods=periods))
    return replace(record, instances=tuple(instances))


class DecisionWatch:
    """Finds decisions that were not there at the last look. For one thread at a time."""

    def __init__(self, reader: FleetReader) -> None:
        self._reader = reader
        self._marks: dict[str, str] | None = None
        self._numbers: dict[str, int] = {}

    def new(self) -> list[dict[str, Any]]:
        """Decisions since the last look, as events; the first look finds none. Blocks."""
        marks = self._reader.book_marks()
        changed = [name for name, mark in marks.items() if (self._marks or {}).get(name) != mark]
        found: list[dict[str, Any]] = []
        for name in changed:
            book = self._reader.book(name)
            if book is None:
                continue
            try:
                state: State = book.peek()
            except TextnlpFastError as error:
                _log.warning("the state of autoscaler %s cannot be read: %s", name, error.args[0])
                continue
            known = self._numbers.get(name, 0)
            if self._marks is not None:
                found += [_decision_event(name, one) for one in state.recent if one.number > known]
            self._numbers[name] = max([known, *(one.number for one in state.recent)])
        self._marks = marks
        return found


def _decision_event(name: str, one: DecisionRecord) -> dict[str, Any]:
    return {"fleet": name, **decision_view(one).model_dump(mode="json")}


class HealthWatch:
    """Watches the machines whose agents the configuration names. For one event loop."""

    def __init__(self, config: ServiceConfig) -> None:
        self._agents = dict(config.health_agents)
        self._token = config.agent_token
        self._monitor: GPUHealthMonitorManager | None = None
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""

    @property
    def note(self) -> str:
        """Why nothing is watched, or what went wrong with that."""
        return self._trouble if self._agents else _NO_HEALTH

    async def begin(self) -> None:
        """Begins to ask the agents; what that meets is in `note`."""
        if not self._agents:
            return
        try:
            self._monitor = GPUHealthMonitorManager(sinks=())
            await self._monitor.__aenter__()
        except TextnlpFastError as error:
            self._trouble = f"machines cannot be watched: {error.args[0]}"
            self._monitor = None
            return
        self._task = asyncio.ensure_future(self._watch(self._monitor))

    async def _watch(self, monitor: GPUHealthMonitorManager) -> None:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else None
        try:
            await watch_fleet(monitor, agents=self._agents, headers=headers)
        except TextnlpFastError as error:
            self._trouble = f"machines cannot be watched: {error.args[0]}"
            _log.warning("%s", self._trouble)

    def health(self) -> FleetHealth | None:
        """What is known now; None where nothing is watched."""
        if self._monitor is None:
            return None
        found = verdict_of(self._monitor)
        return found if found.machines else None

    async def end(self) -> None:
        """Stops asking."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._monitor is not None:
            await self._monitor.__aexit__(None, None, None)
