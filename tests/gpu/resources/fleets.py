"""Managers over a cloud in memory, with a clock of their own, and a way to die at any step."""

from __future__ import annotations

import datetime
import functools
import uuid
from dataclasses import dataclass, field
from typing import Any

from gpu.providers.memory import MemoryCloud, MemoryProvider
from textnlp_fast.config import Settings
from textnlp_fast.gpu import Catalog
from textnlp_fast.gpu.providers.contract import Provider
from textnlp_fast.gpu.resources import GPUResourceManager
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.objectstore import ObjectStore, open_store

__all__ = ["Clock", "Crash", "Fleet", "Steps"]


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.time = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.timezone.utc)

    def __call__(self) -> datetime.datetime:
        return self.time

    def forward(self, **by: float) -> None:
        self.time += datetime.timedelta(**by)


class Crash(BaseException):
    """The process dies here: nothing of ours may catch it."""


class Steps:
    """Counts the steps of stores and providers, before and after each, and dies at one of them."""

    def __init__(self, die_at: int | None = None) -> None:
        self.die_at = die_at
        self.names: list[str] = []

    def step(self, name: str) -> None:
        self.names.append(name)
        if self.die_at is not None and len(self.names) > self.die_at:
            raise Crash(name)

    def around(self, thing: Any, verbs: tuple[str, ...]) -> Any:
        return _Watched(thing, self, verbs)


class _Watched:
    def __init__(self, thing: Any, steps: Steps, verbs: tuple[str, ...]) -> None:
        self._thing, self._steps, self._verbs = thing, steps, verbs

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, name)
        if name not in self._verbs:
            return value

        def watched(*arguments: Any, **options: Any) -> Any:
            self._steps.step(f"before {name}")
            result = value(*arguments, **options)
            self._steps.step(f"after {name}")
            return result

        return watched


STORE_VERBS = ("create", "compare_and_swap", "put_object", "delete", "get", "get_versioned", "list")
PROVIDER_VERBS = ("launch", "terminate", "stop", "start", "describe", "list_instances", "zones")


@dataclass
class Fleet:
    """One cloud, one journal, one clock; managers come and go like processes."""

    cloud: MemoryCloud = field(default_factory=MemoryCloud)
    clock: Clock = field(default_factory=Clock)
    state: str = field(default_factory=lambda: f"memory://fleet-{uuid.uuid4().hex}")
    regions: tuple[str, ...] = ("here",)

    def __post_init__(self) -> None:
        self.cloud.now = self.clock

    @property
    def store(self) -> ObjectStore:
        return open_store(self.state)

    def manager(self, *, steps: Steps | None = None, **options: Any) -> GPUResourceManager:
        chosen: dict[str, Any] = {
            "state": self.state,
            "owner": "fleet-a",
            "settings": Settings(),
            "now": self.clock,
            "catalog": _catalog(),
        }
        manager = GPUResourceManager(**{**chosen, **options})
        for region in self.regions:
            provider: Provider = MemoryProvider(region, cloud=self.cloud, price_of=_price)
            manager.add_provider(steps.around(provider, PROVIDER_VERBS) if steps else provider)
        if steps:
            # Where the journal and the memory of failures write.
            watched = steps.around(manager.journal.store, STORE_VERBS)
            manager.journal.store = watched
            manager._failures._store = watched
        return manager

    def journal(self) -> Journal:
        return Journal(self.store)

    def recorded(self) -> set[str]:
        """The instances that are alive by the journal."""
        return {
            one.instance_id
            for record in self.journal().records()
            for one in record.instances
            if one.state.alive
        }


@functools.lru_cache(maxsize=1)
def _catalog() -> Catalog:
    return Catalog.load("/nonexistent")


def _price(kind: str, market: object) -> float:
    return {"t4.1": 1.0, "t4.4": 4.0}[kind]
