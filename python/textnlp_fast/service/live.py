"""What the live side keeps running: jobs, the broadcaster, and the looks at what others did while anybody listens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from fastapi import Request

from textnlp_fast.errors import TextnlpFastError
from textnlp_fast.service.autoscaler_views import fleet_view
from textnlp_fast.service.events import Broadcaster
from textnlp_fast.service.fleet_reading import DecisionWatch, FleetReader, HealthWatch
from textnlp_fast.service.jobs import Job, JobBook, JobRunner, Work
from textnlp_fast.service.live_schemas import AutoscalerFleet
from textnlp_fast.service.problems import OverloadedError
from textnlp_fast.service.reading.snapshot import ModelView, Snapshot
from textnlp_fast.service.recent import Recent
from textnlp_fast.service.state import Service
from textnlp_fast.service.transfer_views import transfer_view

__all__ = ["Live", "live_of", "running"]

_log = logging.getLogger("textnlp_fast.service.live")
_REMEMBERED: Final = 4096
_MOST_CHANGES: Final = 200
_FLEET_S: Final = 3.0
"""What was read of the fleet is shown for so long."""


class Live:
    """One object an application, from its beginning to its end."""

    def __init__(self, service: Service) -> None:
        config = service.config
        self.service = service
        self.broadcaster = Broadcaster(most_streams=config.most_streams)
        self.work = Work(service.store, service.roots, service.repository.options)
        self.runner = JobRunner(
            JobBook(service.store),
            self.work,
            told=self._job_changed,
            watched=lambda: self.broadcaster.streams > 0,
            workers=config.job_workers,
            lease_s=config.job_lease_s,
            poll_s=config.job_poll_s,
        )
        self.fleet = FleetReader(config)
        self.instances = Recent(lambda: service.blocking.run(self.fleet.instances), _FLEET_S)
        self.costs = Recent(lambda: service.heavy.run(self.fleet.costs), _FLEET_S)
        self.autoscalers = Recent(lambda: service.blocking.run(self._fleets), _FLEET_S)
        self.health = HealthWatch(config)
        self._decisions = DecisionWatch(self.fleet)
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._loop = asyncio.get_running_loop()

    # --- what has happened --------------------------------------------------------------------------------------

    def _job_changed(self, job: Job) -> None:
        """On the runner's threads."""
        if not self._loop.is_closed():
            with suppress(RuntimeError):  # it was closed just now
                self._loop.call_soon_threadsafe(self._tell_job, job)

    def _tell_job(self, job: Job) -> None:
        if self._ended.get(job.id) == job.created_s:
            return  # threads overtake each other: an end is the last that is told
        if job.state.ended:
            self._ended[job.id] = job.created_s
            if len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
            if job.kind == "push" and job.model is not None:
                model = job.model
                self.service.flights.start(("look", model), lambda: self._look_again(model))
        name = "progress" if job.standing is not None and str(job.state) == "running" else "state"
        data = transfer_view(job).model_dump_json()
        self.broadcaster.publish("transfer", data, topic=job.id, topic_name=name)

    async def _look_again(self, model: str) -> None:
        """What was published here shows at once."""
        with suppress(TextnlpFastError):
            await self.service.catalog.changed(model)

    def _registry_changed(self, before: Snapshot | None, now: Snapshot) -> None:
        """On the loop, with each look at the repository, whoever asked for it."""
        if before is None:
            return
        changes: list[dict[str, Any]] = []
        for name in {**before.models, **now.models}:
            old, new = before.models.get(name), now.models.get(name)
            if old is not new:
                changes += _model_changes(name, old, new)
        for change in changes[:_MOST_CHANGES]:
            self.broadcaster.publish("registry", change)
        if len(changes) > _MOST_CHANGES:
            self.broadcaster.publish("resync", {"reason": f"{len(changes)} changes at once"})

    async def _look(self) -> None:
        """While anybody listens, what others change is looked for, once for all who listen."""
        pause_s = max(0.2, self.service.config.fresh_s)
        while True:
            await asyncio.sleep(pause_s)
            if not self.broadcaster.streams:
                continue
            try:
                await self.service.catalog.current()
                for decision in await self.service.blocking.run(self._decisions.new):
                    self.broadcaster.publish("decision", decision)
            except TextnlpFastError as error:
                _log.info("a look at what others did failed: %s", error.args[0])

    def _fleets(self) -> list[AutoscalerFleet]:
        """Blocks."""
        found = []
        for name in self.fleet.book_names():
            book = self.fleet.book(name)
            if book is not None:
                state = book.peek()
                last = state.recent[-1] if state.recent else next(book.decisions(), None)
                found.append(fleet_view(name, state, last, time.time()))
        return found

    # --- its life -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Runs until the block ends; then streams end, and jobs that run are given back."""
        self.service.catalog.listen(self._registry_changed)
        self.runner.start()
        await self.health.begin()
        tasks = [asyncio.ensure_future(self._look()), asyncio.ensure_future(self._end_streams())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.broadcaster.close()
            await asyncio.to_thread(self.runner.stop)
            await self.health.end()

    async def _end_streams(self) -> None:
        """The process was told to end: a server waits for its answers, and these would go on for ever.

        Jobs are given back at once, too: another replica may go on while requests here are still answered.
        """
        await self.service.stopping.wait()
        await self.broadcaster.close()
        await asyncio.to_thread(self.runner.stop)


def _model_changes(name: str, old: ModelView | None, new: ModelView | None) -> list[dict[str, Any]]:
    """What became of a model, as events."""
    before = {} if old is None else old.versions
    after = {} if new is None else new.versions
    found: list[dict[str, Any]] = [
        {"model": name, "version": version, "kind": "published"} for version in after if version not in before
    ]
    found += [
        {"model": name, "version": version, "kind": "deleted"} for version in before if version not in after
    ]
    known = max((change.number for change in old.references.history), default=0) if old is not None else 0
    for change in new.references.history if new is not None else ():
        if change.number > known:
            found.append(
                {
                    "model": name,
                    "version": change.detail.get("version"),
                    "kind": change.action,
                    "actor": change.by,
                    "at": change.at,
                    "number": change.number,
                }
            )
    return found or [{"model": name, "version": None, "kind": "changed"}]


# --- how routes get at it ---------------------------------------------------------------------------------------


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """The live side of a service, for as long as the block lasts."""
    live = Live(service)
    service.live = live
    try:
        async with live.alive():
            yield
    finally:
        service.live = None


def live_of(request: Request) -> Live:
    """The live side of the service that a request is for; a dependency."""
    live = request.app.state.service.live
    if not isinstance(live, Live):
        raise OverloadedError("the service has not begun, or is ending")
    return live
