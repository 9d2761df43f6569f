"""Plain machines for the contract's cases: a cloud in memory under the manager and its journal, killed at any step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from gpu.providers.memory import MemoryProvider
from gpu.resources.fleets import PROVIDER_VERBS, Crash, Fleet, Steps
from gpu.scaling.actuators.harness import GroupHarness, Streams
from textnlp_fast.errors import AuthenticationError
from textnlp_fast.gpu.providers.contract import InstanceState, Provider
from textnlp_fast.gpu.scaling.actuators.contract import Actuator
from textnlp_fast.gpu.scaling.actuators.instances import InstanceFleet

__all__ = ["InstanceHarness"]


class InstanceHarness(GroupHarness):
    kind = "instances"
    death = Crash
    cannot: ClassVar[Mapping[str, str]] = {
        "bounds": "the manager has budgets, and no bounds",
        "missing": "a fleet of none is one of zero",
        "throttling": "memory does not throttle",
    }

    def __init__(self) -> None:
        self._begin()

    def begin_anew(self, actuator: Actuator) -> Actuator:
        self._begin()  # a journal that grows has more steps each time
        return self.actuator(drain=Streams())

    def _begin(self) -> None:
        self.fleet = Fleet()
        self.cloud = self.fleet.cloud
        self.die_at: int | None = None
        self.lost: str | None = None
        self.actuator().scale_to(3, decision_id="the first three")

    def actuator(self, *, retries: int = 5, **options: Any) -> InstanceFleet:
        provider: Provider = MemoryProvider("here", cloud=self.cloud, price_of=lambda *_: 1.0)
        steps = None if self.die_at is None else Steps(self.die_at)
        manager = self.fleet.manager(steps=steps)
        if steps is not None:
            provider = steps.around(provider, (*PROVIDER_VERBS, "tag"))
        return InstanceFleet(provider=provider, gpu="t4", manager=manager, market="on-demand", **options)

    def actuator_of_nothing(self) -> InstanceFleet:
        return self.actuator(name="nobody")

    def told(self) -> int:
        return len(self.alive())

    def alive(self) -> set[str]:
        return set(self.cloud.alive())

    def pass_time(self) -> None:
        for one, found in self.cloud.instances.items():
            if found.state is InstanceState.PENDING:
                self.cloud.instances[one] = replace(found, state=InstanceState.RUNNING)

    def _set(self, replica_id: str, state: InstanceState) -> None:
        self.cloud.instances[replica_id] = replace(self.cloud.instances[replica_id], state=state)

    def hold_back(self, replica_id: str) -> None:
        self._set(replica_id, InstanceState.PENDING)

    def vanish(self, replica_id: str) -> None:
        self._set(replica_id, InstanceState.TERMINATED)

    def heal(self) -> None:
        self.die_at = self.cloud.error = None
        self.cloud.lose_answers = 0

    def throttle(self, times: int) -> None:
        raise NotImplementedError

    def lose_answer(self, verb: str) -> None:
        self.cloud.lose_answers = int(verb == "tell")  # of the others each may be said again as it is

    def crash_after(self, requests: int, *, heard: bool) -> None:
        self.die_at = 2 * requests + heard

    def expire_credentials(self) -> None:
        self.cloud.error = AuthenticationError("the credentials have expired", hint="Log in again.")

    def requests(self) -> int:
        return self.cloud.asked
