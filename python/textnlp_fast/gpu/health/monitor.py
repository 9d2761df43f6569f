"""Watches machines: reads sources, judges, and tells sinks.

`GPUHealthMonitorManager` is the fleet's public face of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError, TextnlpFastError
from textnlp_fast.gpu.health.engine import Fact, HealthEngine
from textnlp_fast.gpu.health.facts import Finding, Severity
from textnlp_fast.gpu.health.polling import Poller
from textnlp_fast.gpu.health.rules import HealthRules, load_rules
from textnlp_fast.gpu.health.sinks.outbox import Outbox, Sink
from textnlp_fast.gpu.health.sinks.plain import CallbackSink, LogSink
from textnlp_fast.gpu.health.sources import Source
from textnlp_fast.gpu.health.sources.dcgm import DcgmXids
from textnlp_fast.gpu.health.state import HealthState
from textnlp_fast.gpu.health.state_file import read_state, write_state
from textnlp_fast.gpu.health.statuses import MachineStatus, MonitorStatus, SourceStatus
from textnlp_fast.gpu.health.watching import Wanted, checked_machines, sources_for
from textnlp_fast.gpu.providers.contract import Provider

__all__ = ["GPUHealthMonitorManager", "MachineStatus", "MonitorStatus", "SourceStatus"]

_log = logging.getLogger(__name__)
_TICK_S: Final = 1.0
_CLOUD_ONLY: Final = (
    "no GPU of it is read, only what its cloud says: name its agent (agents=) or dcgm-exporter (dcgm=)"
)


@dataclass(slots=True)
class _Watch:
    poller: Poller
    provider: str
    task: asyncio.Task[None] | None = None


class GPUHealthMonitorManager:
    """Watches machines until it is told to stop. For one event loop; not thread-safe.

    `rules` is a set of rules or the path of a file with what differs from those that ship (else the setting
    `gpu_health_rules` names it). `state_file` makes it go on after a restart where it stood: what is open, what
    repeats, what waits for sinks. `sinks` are told of findings; so are functions given to `on_finding`.
    """

    def __init__(
        self,
        *,
        rules: HealthRules | str | Path | None = None,
        sinks: Sequence[Sink] | None = None,
        state_file: str | Path | None = None,
        save_s: float = 10.0,
        failures_told: int = 2,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(rules, HealthRules):
            rules = load_rules(rules if rules is not None else _rules_of_settings())
        self._rules = rules
        self._state_file = Path(state_file) if state_file is not None else None
        self._save_s = save_s
        self._failures_told = failures_told
        self._clock = clock
        self._sinks: list[Sink] = [LogSink()] if sinks is None else list(sinks)
        names = [sink.name for sink in self._sinks]
        if len(set(names)) != len(names):
            raise InvalidInputError(f"two sinks have one name: {', '.join(sorted(names))}")
        document = read_state(self._state_file) if self._state_file is not None else None
        state = HealthState.of(document["engine"]) if document is not None else HealthState()
        self._engine = HealthEngine(self._rules, state)
        self._restored: dict[str, Any] = document or {}
        self._xids: dict[str, DcgmXids] = {
            str(name): DcgmXids(one) for name, one in dict(self._restored.get("dcgm", {})).items()
        }
        self._watches: list[_Watch] = []
        self._outboxes: dict[str, Outbox] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._callbacks = 0
        self._facts = 0
        self._dirty = False
        self._closed = False

    # --- what users call ----------------------------------------------------------------------------------

    async def start_monitoring(
        self,
        provider: str | Provider,
        instance_ids: Sequence[str],
        *,
        region: str | None = None,
        agents: Mapping[str, str] | None = None,
        dcgm: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        on_machine: bool = False,
        endpoint_url: str | None = None,
        metadata_url: str | None = None,
        sources: Sequence[Source] = (),
        interval_s: float | None = None,
        first_round_s: float = 30.0,
    ) -> None:
        """Begins to watch machines, and returns when each source was asked once, or after `first_round_s`.

        `aws` asks EC2 for the status of the instances; `local` reads this machine's GPUs; a `Provider` tells whether
        they run. `agents` and `dcgm` map machines to URLs of their agent or dcgm-exporter, and `headers` go along;
        `on_machine` asks the metadata service of the cloud that this runs in. Without an agent or exporter only what
        the cloud says is known of a machine: `status()` says so. A machine that does not exist is a finding.

        Raises InvalidInputError for what cannot be watched, MissingPackageError without an SDK that it takes,
        AuthenticationError where a cloud refuses the credentials; then nothing of it is watched.
        """
        wanted = Wanted(
            provider=provider,
            machines=checked_machines(instance_ids),
            region=region if region is not None else _region_of(provider),
            endpoint_url=endpoint_url,
            agents=dict(agents or {}),
            dcgm=dict(dcgm or {}),
            on_machine=on_machine,
            metadata_url=metadata_url,
            interval_s=interval_s,
            sources=tuple(sources),
            headers=dict(headers or {}),
        )
        watched = {machine for watch in self._watches for machine in watch.poller.source.machines}
        twice = [machine for machine in wanted.machines if machine in watched]
        if twice:
            raise InvalidInputError(
                f"{twice[0]!r} is monitored already", hint="Stop that first: stop_monitoring([...])."
            )
        # boto3 reads files and loads models for a while; an event loop has better things to do.
        made = await asyncio.to_thread(sources_for, wanted, clock=self._clock, xids=self._xids_of)
        name = provider if isinstance(provider, str) else provider.name
        watches = [
            _Watch(Poller(source, self._take, failures_told=self._failures_told, clock=self._clock), name)
            for source in made
        ]
        self._begin()
        self._watches += watches
        firsts = [asyncio.ensure_future(watch.poller.once()) for watch in watches]
        done, late = await asyncio.wait(firsts, timeout=first_round_s)
        for one in late:
            one.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for watch, first in zip(watches, firsts, strict=True):
            if first in late:
                watch.poller.late(first_round_s)
        refused = next((watch.poller.error for watch in watches if _is_callers(watch.poller.error)), None)
        if refused is not None:
            await self._drop(watches)
            if not self._watches:
                await self.stop_monitoring()
            raise refused
        for watch, first in zip(watches, firsts, strict=True):
            pause_s = first.result() if first in done else 0.0
            watch.task = asyncio.create_task(watch.poller.run(pause_s), name=watch.poller.source.name)

    async def stop_monitoring(
        self, instance_ids: Sequence[str] | None = None, *, drain_s: float = 5.0
    ) -> None:
        """Stops watching some machines, or all.

        After all, sinks get up to `drain_s` for what waits, and the state is kept.
        """
        if instance_ids is not None:
            names = set(checked_machines(instance_ids))
            unknown = names - {name for watch in self._watches for name in watch.poller.source.machines}
            if unknown:
                raise InvalidInputError(f"{sorted(unknown)[0]!r} is not monitored")
            await self._drop([one for one in self._watches if set(one.poller.source.machines) <= names])
            for watch in self._watches:  # what is watched together with others is watched without it
                source = watch.poller.source
                source.machines = tuple(name for name in source.machines if name not in names)
            for name in names:
                self._engine.forget_machine(name)
            self._dirty = True
            return
        await self._drop(list(self._watches))
        if self._outboxes:
            await asyncio.gather(*(one.drained(drain_s) for one in self._outboxes.values()))
        await _cancelled(self._tasks)
        self._tasks.clear()
        for outbox in self._outboxes.values():
            await outbox.sink.close()
        await self._save()
        self._restored = self._document()
        self._outboxes.clear()

    def status(self) -> MonitorStatus:
        """What is watched, by what, and how it does."""
        machines: dict[str, list[_Watch]] = {}
        for watch in self._watches:
            for machine in watch.poller.source.machines:
                machines.setdefault(machine, []).append(watch)
        counts = dict.fromkeys((severity.value for severity in Severity), 0)
        for finding in self._engine.findings():
            counts[finding.severity.value] += 1
        return MonitorStatus(
            running=bool(self._watches),
            machines=tuple(
                MachineStatus(
                    machine=machine,
                    provider=watches[0].provider,
                    sources=tuple(_status_of(watch.poller) for watch in watches),
                    note="" if any(one.poller.source.reads_gpus for one in watches) else _CLOUD_ONLY,
                    gpus=len(state.gpus) if (state := self._engine.state.machines.get(machine)) else 0,
                )
                for machine, watches in machines.items()
            ),
            open=counts,
            sinks={name: outbox.status() for name, outbox in self._outboxes.items()},
            facts=self._facts,
            ignored=self._engine.state.ignored,
        )

    def findings(self, machine: str | None = None) -> list[Finding]:
        """What is open, the worst first."""
        order = {severity: -rank for rank, severity in enumerate(Severity)}
        found = [one for one in self._engine.findings() if machine in (None, one.machine)]
        return sorted(found, key=lambda one: (order[one.severity], one.machine, one.gpu or "", one.rule))

    def on_finding(
        self, function: Callable[[Finding], Awaitable[None] | None], *, name: str | None = None
    ) -> None:
        """Calls a function, or a coroutine function, with each finding that opens, changes or ends from now on."""
        self._callbacks += 1
        sink = CallbackSink(function, name=name or f"callback-{self._callbacks}")
        if sink.name in {one.name for one in self._sinks}:
            raise InvalidInputError(f"there is a sink {sink.name!r} already")
        self._sinks.append(sink)
        if self._tasks:
            self._open_outbox(sink)

    def resolve(self, machine: str, *, gpu: str | None = None, rule: str | None = None) -> int:
        """Ends findings because somebody repaired it. Returns how many; what is still wrong is found again."""
        count = self._engine.resolve(machine, gpu=gpu, rule=rule, at_s=self._clock())
        self._tell(self._engine.tick(now_s=self._clock()))
        return count

    async def __aenter__(self) -> GPUHealthMonitorManager:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_monitoring()

    # --- inside -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._tasks:
            return
        for sink in self._sinks:
            self._open_outbox(sink)
        self._tasks.append(asyncio.create_task(self._ticking(), name="health ticks"))

    def _open_outbox(self, sink: Sink) -> None:
        outbox = self._outboxes[sink.name] = Outbox(sink)
        waiting = dict(self._restored.get("waiting", {})).get(sink.name, [])
        outbox.restore(waiting)
        if sink.wants_open:
            outbox.put(self._engine.findings())
        self._tasks.append(asyncio.create_task(outbox.run(), name=f"sink {sink.name}"))

    async def _ticking(self) -> None:
        saved_s = repeated_s = time.monotonic()
        last: dict[str, float] = {}
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                self._tell(self._engine.tick(now_s=self._clock()))
                now_s = time.monotonic()
                for name, outbox in self._outboxes.items():
                    every_s = outbox.sink.repeats_s
                    if every_s is not None and now_s - last.get(name, repeated_s) >= every_s:
                        last[name] = now_s
                        outbox.put(self._engine.findings())
                if self._dirty and now_s - saved_s >= self._save_s:
                    saved_s = now_s
                    await self._save()
            except TextnlpFastError as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001
                _log.exception("the health monitor goes on after an error of its own")

    def _take(self, facts: Sequence[Fact]) -> None:
        self._facts += len(facts)
        self._dirty = True
        self._tell(self._engine.observe(facts, now_s=self._clock()))

    def _tell(self, changes: Sequence[Finding]) -> None:
        if changes:
            self._dirty = True
            for outbox in self._outboxes.values():
                outbox.put(changes)

    def _xids_of(self, name: str) -> DcgmXids:
        return self._xids.setdefault(name, DcgmXids())

    def _document(self) -> dict[str, Any]:
        waiting = dict(self._restored.get("waiting", {}))
        waiting |= {name: outbox.document() for name, outbox in self._outboxes.items()}
        return {
            "engine": self._engine.state.document(),
            "dcgm": {name: one.document() for name, one in self._xids.items()},
            "waiting": waiting,
        }

    async def _save(self) -> None:
        if self._state_file is None:
            return
        self._dirty = False
        await asyncio.to_thread(write_state, self._state_file, self._document())

    async def _drop(self, watches: Sequence[_Watch]) -> None:
        tasks = [watch.task for watch in watches if watch.task is not None]
        await _cancelled(tasks)
        for watch in watches:
            if watch.task is None:
                await watch.poller.source.close()
            self._watches.remove(watch)
        left = {name for watch in self._watches for name in watch.poller.source.machines}
        for watch in watches:
            if watch.task is None:  # it never began: nothing of it stays
                for machine in set(watch.poller.source.machines) - left:
                    self._engine.forget_machine(machine)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    pending = set(tasks)
    while pending:
        # Again and again: before Python 3.12 `wait_for` may lose a cancellation that comes as its answer does.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)


def _is_callers(error: BaseException | None) -> bool:
    """Whether the caller has to mend it: asking again does not help."""
    from textnlp_fast.errors import AuthenticationError, MissingPackageError, NotAllowedError  # noqa: PLC0415

    return isinstance(error, AuthenticationError | NotAllowedError | MissingPackageError)


def _status_of(poller: Poller) -> SourceStatus:
    return SourceStatus(
        name=poller.source.name,
        reads_gpus=poller.source.reads_gpus,
        heard_s=poller.heard_s,
        failures=poller.failures,
        error=poller.trouble,
    )


def _rules_of_settings() -> Path | None:
    from textnlp_fast.config import load_settings  # noqa: PLC0415

    return load_settings().gpu_health_rules


def _region_of(provider: str | Provider) -> str | None:
    """The region that the settings name for AWS; boto3 knows others from its own files."""
    if provider != "aws":
        return None
    from textnlp_fast.config import load_settings  # noqa: PLC0415

    return load_settings().aws_region
