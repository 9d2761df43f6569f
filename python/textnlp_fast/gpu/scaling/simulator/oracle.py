"""The least that a fleet can cost: replicas of one who knows all that comes.

Each step needs as many ready replicas as it brings replicas' worth of work, rounded up: nothing is carried over to the
next. A replica is paid from its order, a cold start before it serves. Among all fleets that have what each step needs,
the cheapest keeps a replica over a gap that is shorter than the cold start, and stops it over a longer one; those that
are there when the trace begins cost no start, as in a run. Draining costs nothing here, though it does in a run.

Why that is the least: a fleet of n[t] ready replicas costs sum(n) + cold x sum of all rises. Both sums fall apart into
levels, replica k is on where n[t] >= k, and for one level a gap is worth being filled if it is shorter than a start.
The levels' best choices are nested, so together they are a fleet.

It is no bound for those who may miss requests or let them wait a second: such a policy can cost less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textnlp_fast.gpu.scaling.decision import Decision
from textnlp_fast.gpu.scaling.observation import Observation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from textnlp_fast.gpu.scaling.simulator.traffic import Traffic

__all__ = ["Clairvoyant", "Oracle", "oracle_of"]


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """The cheapest fleet for a traffic and a cold start."""

    replica_hours: float
    step_s: int
    cold_steps: int
    ready: list[int]
    """Replicas that serve in each step."""


def oracle_of(traffic: Traffic, *, cold_start_s: float) -> Oracle:
    """The least replica-hours with which each step's work can be served in it; a cold start takes whole steps."""
    import numpy as np  # noqa: PLC0415

    step_s, steps = traffic.step_s, traffic.steps
    work = np.asarray(traffic.work_s[: steps * step_s], dtype=np.float64).reshape(steps, step_s)
    # Sums of floats that should be whole must not round up to one more.
    need = np.ceil(work.sum(axis=1) / step_s - 1e-9).astype(np.int64)
    cold_steps = math.ceil(cold_start_s / step_s)
    ready = _cheapest(need, cold_steps)
    rises = np.maximum(np.diff(ready), 0).sum() if steps else 0
    paid = int(ready.sum() + cold_steps * rises)
    return Oracle(
        replica_hours=paid * step_s / 3600.0, step_s=step_s, cold_steps=cold_steps, ready=ready.tolist()
    )


def _cheapest(need: npt.NDArray[np.int64], cold_steps: int) -> npt.NDArray[np.int64]:
    """Level by level: gaps of at most a cold start are filled, the one before a level's first need among them."""
    import numpy as np  # noqa: PLC0415

    ready = np.zeros(len(need), dtype=np.int64)
    for level in range(1, int(need.max(initial=0)) + 1):
        on = np.flatnonzero(need >= level)
        edges = np.concatenate(([-1], on))
        short = np.flatnonzero((np.diff(edges) > 1) & (np.diff(edges) - 1 <= cold_steps))
        change = np.zeros(len(need) + 1, dtype=np.int64)
        np.add.at(change, on, 1)
        np.add.at(change, on + 1, -1)
        np.add.at(change, edges[short] + 1, 1)
        np.add.at(change, edges[short + 1], -1)
        ready += np.cumsum(change[:-1])
    return ready


class Clairvoyant:
    """The oracle as a policy, so that the simulator says what its fleet attains."""

    name = "oracle"

    def __init__(self, oracle: Oracle) -> None:
        self.initial = oracle.ready[0] if oracle.ready else 0
        self._targets = _ordered(oracle)
        self._step = 0

    def decide(self, observation: Observation) -> Decision:
        self._step += 1
        return Decision(observation.time_s, self._targets[min(self._step, len(self._targets) - 1)])

    def snapshot(self) -> Mapping[str, Any]:
        return {"step": self._step}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._step = int(state["step"])


def _ordered(oracle: Oracle) -> list[int]:
    """Ready and starting replicas of each step: the most that serve within a cold start from it."""
    ahead, ready = oracle.cold_steps, oracle.ready
    targets = list(ready)
    rise_until = -1
    for step in range(len(ready) - 1, -1, -1):
        # After a fall no rise follows within a cold start, else the gap had been filled: a rise is all that is ahead.
        if step + 1 < len(ready) and ready[step + 1] > ready[step]:
            rise_until = step + 1
        if rise_until >= 0:
            targets[step] = max(ready[step : min(step + ahead, len(ready) - 1) + 1])
    return targets
