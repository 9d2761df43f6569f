"""The autoscaler's public face: fleets that follow their load until they are told to stop."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError, NotAllowedError
from textnlp_fast.gpu.resources.journal import default_state
from textnlp_fast.gpu.scaling.actuators.contract import Actuator
from textnlp_fast.gpu.scaling.actuators.opening import open_actuator
from textnlp_fast.gpu.scaling.autoscaler.book import Book
from textnlp_fast.gpu.scaling.autoscaler.explaining import Explanation, explain, moment
from textnlp_fast.gpu.scaling.autoscaler.period import FleetLoop
from textnlp_fast.gpu.scaling.autoscaler.records import DecisionRecord
from textnlp_fast.gpu.scaling.autoscaler.running import Runner
from textnlp_fast.gpu.scaling.decision import Alert
from textnlp_fast.gpu.scaling.policy import Policy, ScalingPolicy
from textnlp_fast.gpu.scaling.signals.contract import Observer
from textnlp_fast.gpu.scaling.signals.replicas import ReplicaScraper
from textnlp_fast.objectstore import ObjectStore, open_store

__all__ = ["FleetStatus", "GPUAutoscalerManager", "our_policy"]

_log = logging.getLogger("textnlp_fast.gpu.autoscaler")
_FIRST_S: Final = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetStatus:
    """How one fleet stands."""

    name: str
    role: str
    """active; standby: another process scales it; waiting: see `trouble`."""
    trouble: str | None
    target: int | None
    ready: int | None
    starting: int
    alerts: tuple[Alert, ...]
    cold_start_s: float
    """What the policy counts on, as it was measured or set."""


def our_policy(settings: ScalingPolicy) -> Policy:
    """The policy that this package brings, by these settings."""
    from textnlp_fast.gpu.scaling.engine import LLMPolicy  # noqa: PLC0415 - only where nobody brings another

    return LLMPolicy(settings)


class GPUAutoscalerManager:
    """Scales fleets until it is told to stop. For one event loop; not thread-safe.

    Each fleet has one policy, actuator and observer; those given here are for fleets that bring none. `store` is a
    folder or URL, or an open store, for leases, states and logs (default: where the fleet's journal is). Processes that
    share a store share the work: one scales, the others stand by. `make_policy` makes a policy of settings, ours by
    default. `on_alert` is called with a fleet's name and each alert of a period.
    """

    def __init__(
        self,
        *,
        policy: ScalingPolicy | None = None,
        actuator: Actuator | None = None,
        observer: Observer | None = None,
        store: ObjectStore | str | os.PathLike[str] | None = None,
        make_policy: Callable[[ScalingPolicy], Policy] | None = None,
        on_alert: Callable[[str, Alert], None] | None = None,
        lease_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._actuator = actuator
        self._observer = observer
        self._store = store if isinstance(store, ObjectStore) else None
        self._place = None if isinstance(store, ObjectStore) else store
        self._make_policy = make_policy or our_policy
        self._on_alert = on_alert
        self._lease_s = lease_s
        self._clock = clock
        self._runners: dict[str, Runner] = {}
        self._on_decision: Callable[[FleetLoop, DecisionRecord], None] | None = None

    # --- what users call ------------------------------------------------------------------------------------

    async def start_autoscaling(
        self,
        target: str,
        *,
        policy: ScalingPolicy | None = None,
        actuator: Actuator | None = None,
        observer: Observer | None = None,
        name: str | None = None,
        first_period_s: float = _FIRST_S,
        **options: Any,
    ) -> str:
        """Begins to scale a fleet, and returns its name after the first decision, or after `first_period_s`.

        `target` is a fleet as `open_actuator` takes it (`aws-asg:NAME?region=us-east-1`), or a provider's name: then
        plain machines of it are rented and given back, of the settings' GPU type and region. `options` are the
        actuator's. Without an observer, /metrics of each ready replica is read at port 8000. `name` tells fleets apart
        in the store (default: made of the target).

        Raises NotAllowedError where the setting `gpu_autoscaling` is false, InvalidInputError for a fleet that is
        scaled already or cannot be named, MissingPackageError without an SDK that it takes.
        """
        loop = await asyncio.to_thread(
            self.prepared, target, policy=policy, actuator=actuator, observer=observer, name=name, **options
        )
        name = loop.book.name
        if name in self._runners:
            raise InvalidInputError(
                f"{name!r} is scaled already", hint="Stop that first: stop_autoscaling(name)."
            )
        runner = Runner(loop, holder=_holder(), lease_s=self._lease_s, told=self._told)
        self._runners[name] = runner
        runner.start()
        try:
            await asyncio.wait_for(runner.settled.wait(), first_period_s)
        except (TimeoutError, asyncio.TimeoutError):
            _log.warning("%s: no decision within %.0f s; it goes on", name, first_period_s)
        return name

    async def stop_autoscaling(self, name: str | None = None) -> None:
        """Stops scaling one fleet, or all. They stay as they are; another process may go on at once."""
        if name is not None and name not in self._runners:
            raise InvalidInputError(
                f"{name!r} is not scaled here", hint=f"There are: {', '.join(self._runners)}."
            )
        names = [name] if name is not None else list(self._runners)
        runners = [self._runners.pop(one) for one in names]
        await asyncio.gather(*(one.stop() for one in runners))

    def status(self) -> Sequence[FleetStatus]:
        """How each fleet stands, as of its last period."""
        return [_status(one) for one in self._runners.values()]

    async def decisions(self, name: str | None = None, *, limit: int = 100) -> Sequence[DecisionRecord]:
        """Decisions from the log, the newest first, whoever made them. `name` may be left out where one fleet is."""
        book = await asyncio.to_thread(self.book, name)

        def read() -> list[DecisionRecord]:
            return [one for _, one in zip(range(limit), book.decisions(), strict=False)]

        return await asyncio.to_thread(read)

    async def explain(
        self, at: str | datetime.datetime | float | None = None, *, name: str | None = None
    ) -> Explanation:
        """Why there were so many replicas at `at` ("14:02" in UTC, a datetime, seconds since the epoch; None: now).

        Raises ObjectNotFoundError where the log has no decision of that time.
        """
        book = await asyncio.to_thread(self.book, name)
        return await asyncio.to_thread(explain, book, moment(at, self._clock()))

    async def __aenter__(self) -> GPUAutoscalerManager:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_autoscaling()

    # --- what the command line and metrics call -------------------------------------------------------------

    def prepared(
        self,
        target: str,
        *,
        policy: ScalingPolicy | None = None,
        actuator: Actuator | None = None,
        observer: Observer | None = None,
        name: str | None = None,
        dry_run: bool = False,
        **options: Any,
    ) -> FleetLoop:
        """The loop of a fleet, which nobody runs yet. Arguments and errors are those of `start_autoscaling`."""
        from textnlp_fast.config import load_settings  # noqa: PLC0415

        if not load_settings().gpu_autoscaling:
            raise NotAllowedError(
                "autoscaling is turned off by the setting gpu_autoscaling", hint="Set GPU_AUTOSCALING=true."
            )
        if not isinstance(target, str) or not target:
            raise InvalidInputError(f"{target!r:.100} names no fleet", hint="Give aws, or aws-asg:NAME.")
        settings = policy or self._policy or ScalingPolicy()
        actuator = actuator or self._actuator or _opened(target, options)
        return FleetLoop(
            settings=settings,
            make_policy=self._make_policy,
            actuator=actuator,
            observer=observer or self._observer or ReplicaScraper(slo=settings, clock=self._clock),
            book=Book(self.store(), name_of(target) if name is None else checked_name(name)),
            clock=self._clock,
            holder=_holder(),
            dry_run=dry_run,
        )

    def runner(self, loop: FleetLoop) -> Runner:
        """A runner of a prepared loop, for one period: `await manager.runner(loop).once()`."""
        return Runner(loop, holder=_holder(), lease_s=self._lease_s, told=self._told)

    def on_decision(self, function: Callable[[FleetLoop, DecisionRecord], None]) -> None:
        """Calls a function, on the event loop, with each decision that is made here."""
        self._on_decision = function

    def loops(self) -> Sequence[tuple[FleetLoop, str]]:
        """The loops that run here, and their roles."""
        return [(one.loop, one.role) for one in self._runners.values()]

    def store(self) -> ObjectStore:
        """Where leases, states and logs are; opened when first used."""
        if self._store is None:
            from textnlp_fast.config import load_settings  # noqa: PLC0415

            self._store = open_store(self._place or load_settings().fleet_state or default_state())
        return self._store

    def book(self, name: str | None = None) -> Book:
        """The book of a fleet. Raises InvalidInputError where none is named and there is not exactly one."""
        if name is not None:
            return Book(self.store(), checked_name(name))
        names = list(self._runners) or names_in(self.store())
        if len(names) != 1:
            known = f"There are: {', '.join(names)}." if names else "Nothing was scaled with this store."
            raise InvalidInputError("which fleet is not said", hint=f"Name it. {known}")
        return Book(self.store(), names[0])

    def _told(self, loop: FleetLoop, record: DecisionRecord | None) -> None:
        if record is not None and self._on_decision is not None:
            try:
                self._on_decision(loop, record)
            except Exception:  # noqa: BLE001
                _log.exception("what hears of decisions failed")
        for alert in loop.alerts:
            _log.warning("%s: %s: %s", loop.book.name, alert.name, alert.text)
            if self._on_alert is not None:
                try:
                    self._on_alert(loop.book.name, alert)
                except Exception:  # noqa: BLE001
                    _log.exception("what hears of alerts failed")


def name_of(target: str) -> str:
    """A fleet's name in the store, made of its target: `aws-asg-llm-us-east-1`."""
    # Options say how, not which; a region is part of which.
    path, _, query = target.partition("?")
    which = [one for one in query.split("&") if one.startswith(("region=", "name="))]
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([path, *(one.partition("=")[2] for one in which)]))
    return checked_name(words.strip("-.")[:100])


def checked_name(name: str) -> str:
    """Raises InvalidInputError for a name that cannot be a part of a key."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name, re.ASCII):
        raise InvalidInputError(
            f"{name!r:.120} cannot name a fleet", hint="Use letters, digits, '.', '_' and '-'."
        )
    return name


def names_in(store: ObjectStore) -> list[str]:
    """The fleets that a store has states of."""
    keys = (meta.key.split("/") for meta in store.list("autoscalers"))
    return sorted({parts[1] for parts in keys if len(parts) == 3 and parts[2] == "state.json"})


def _opened(target: str, options: dict[str, Any]) -> Actuator:
    if ":" in target:
        return open_actuator(target, **options)
    from textnlp_fast.config import load_settings  # noqa: PLC0415
    from textnlp_fast.gpu.providers.registry import provider_names  # noqa: PLC0415

    if target not in provider_names():
        raise InvalidInputError(
            f"{target!r:.200} is neither a fleet nor a provider",
            hint=f"Write a fleet, as aws-asg:NAME?region=us-east-1, or one of {', '.join(provider_names())}.",
        )
    settings = load_settings()
    region = options.pop("region", None) or {"aws": settings.aws_region, "local": "local"}.get(target)
    if region is None:
        raise InvalidInputError(
            f"no region was given for {target}",
            hint="Pass region=, write instances:PROVIDER/REGION?gpu=TYPE, or, for AWS, set AWS_REGION.",
        )
    options.setdefault("gpu", settings.default_gpu_type)
    return open_actuator(f"instances:{target}/{region}", **options)


def _holder() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _status(runner: Runner) -> FleetStatus:
    loop, fleet = runner.loop, runner.loop.tallies.fleet
    return FleetStatus(
        name=loop.book.name,
        role=runner.role,
        trouble=runner.trouble,
        target=loop.state.target,
        ready=None if fleet is None else fleet.ready,
        starting=0 if fleet is None else fleet.starting,
        alerts=loop.alerts,
        cold_start_s=loop.settings.cold_start.total_s,
    )
