"""One action of a rollout, done: what the gateway is told, and what agents are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from textnlp_fast.adapter.rollout.records import RolloutRecord
from textnlp_fast.adapter.rollout.replicas import AgentClient
from textnlp_fast.adapter.rollout.state import Action
from textnlp_fast.adapter.rollout.traffic import NoGateway, Traffic
from textnlp_fast.errors import AuthenticationError, InvalidInputError, ProviderUnavailableError

__all__ = ["Actor"]

_MOST_AT_ONCE: Final = 16
# Beyond what a drain may take: for the agent's answer.
_MARGIN_S: Final = 5.0
_UNABLE: Final = (ProviderUnavailableError, InvalidInputError, AuthenticationError)


class Actor:
    """Does actions, several at a time. `check` raises once this controller may do nothing more."""

    def __init__(
        self, agents: AgentClient, traffic: Traffic, *, drain_s: float, check: Callable[[], None]
    ) -> None:
        self._agents = agents
        self._traffic = traffic
        self._drain_s = drain_s
        self._check = check

    def do(self, record: RolloutRecord, actions: Sequence[Action]) -> dict[Action, str]:
        """What went wrong with each, in words; empty for those that were done.

        Raises ConflictError if the lease is lost, or an agent has heard from a later controller.
        """
        self._check()
        if not actions:
            return {}
        with ThreadPoolExecutor(min(len(actions), _MOST_AT_ONCE), thread_name_prefix="rollout-act") as pool:
            futures = {action: pool.submit(self._one, record, action) for action in actions}
        return {action: future.result() for action, future in futures.items()}

    def announce(self, record: RolloutRecord) -> None:
        """Tells all agents who is at work now: from then on they refuse controllers that were before."""
        names = [*record.terms.base, *record.terms.extras]

        def tell(name: str) -> None:
            # Who does not hear it now hears it with the first thing that it is asked.
            with suppress(ProviderUnavailableError, AuthenticationError):
                self._agents.tell(name, "fence", {"fence": record.fence, "target": record.target})

        with ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="rollout-fence") as pool:
            for future in [pool.submit(tell, name) for name in names]:
                future.result()

    def shut_out(self, record: RolloutRecord, name: str, *, is_reachable: bool) -> bool:
        """Keeps requests away from a replica that is given up; whether the gateway or its own gate does that now."""
        is_out = False
        with suppress(*_UNABLE):
            self._traffic.drain(name, self._drain_s if is_reachable else 0.0)
            is_out = not isinstance(self._traffic, NoGateway)
        with suppress(*_UNABLE):
            if is_reachable:
                self._close_gate(record, name)
                is_out = True
        return is_out

    def _close_gate(self, record: RolloutRecord, name: str) -> None:
        body = {"fence": record.fence, "target": record.target, "deadline_s": self._drain_s}
        self._agents.tell(name, "drain", body, timeout_s=self._drain_s + _MARGIN_S)

    def _one(self, record: RolloutRecord, action: Action) -> str:
        self._check()
        try:
            self._try(record, action)
        except _UNABLE as error:
            return f"{action.verb}: {error.args[0]}"[:300]
        return ""

    def _try(self, record: RolloutRecord, action: Action) -> None:
        name, fence = action.replica, {"fence": record.fence, "target": record.target}
        if action.verb == "drain":
            self._traffic.drain(name, self._drain_s)
            self._check()
            self._close_gate(record, name)
        elif action.verb == "resume":
            self._agents.tell(name, "resume", fence)
            self._check()
            self._traffic.set_weight(name, action.weight)
            self._traffic.resume(name)
        elif action.verb == "weigh":
            self._traffic.set_weight(name, action.weight)
        else:
            # Numbers of asks begin anew with each rollout: an agent tells them apart by the rollout's.
            asked = {
                "model": record.model,
                "version": action.version,
                "operation": operation_id(record, action.ask),
            }
            self._agents.tell(name, action.verb, {**fence, **asked})


def operation_id(record: RolloutRecord, ask: str) -> str:
    """What an agent knows an ask by."""
    return f"{record.target}:{record.number}:{ask}"
