"""Machines of any provider of the fleet: whether they run. The least that every cloud tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from textnlp_fast.gpu.health.engine import Fact
from textnlp_fast.gpu.health.facts import Event
from textnlp_fast.gpu.providers.contract import InstanceState, Provider

__all__ = ["ProviderStatesSource"]


class ProviderStatesSource:
    """Asks a provider for the states of instances."""

    reads_gpus = False

    def __init__(
        self,
        provider: Provider,
        instance_ids: Sequence[str],
        *,
        interval_s: float = 30.0,
        timeout_s: float = 130.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"{provider.name} {provider.region}".strip()
        self.machines = tuple(instance_ids)
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self._provider = provider
        self._clock = clock

    async def read(self) -> Sequence[Fact]:
        instances = await asyncio.to_thread(self._provider.describe, self.machines)
        found = {one.instance_id: one for one in instances}
        at_s = self._clock()
        facts: list[Fact] = []
        for machine in self.machines:
            one = found.get(machine)
            facts.append(
                self._check(machine, at_s, "missing", f"there is no {machine}", good=one is not None)
            )
            if one is not None:
                good = one.state in (InstanceState.PENDING, InstanceState.RUNNING)
                text = f"it is {one.state}" + (f": {one.reason}" if one.reason else "")
                facts.append(self._check(machine, at_s, "state", text, good=good))
        return facts

    async def close(self) -> None:
        """The provider is its owner's to close."""

    def _check(self, machine: str, at_s: float, check: str, text: str, *, good: bool) -> Event:
        details = {"check": check} | ({"over": "true"} if good else {})
        return Event(
            machine=machine,
            kind="status-check",
            at_s=at_s,
            text=text,
            source=self._provider.name,
            details=details,
        )
