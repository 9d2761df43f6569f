"""A policy over traffic: replicas that take their time to start, one queue before them, and what it all costs.

A fluid model with seconds as its grain: work arrives, `ready` replicas take one replica-second of it each second, the
rest waits in one first-come queue; a request waits as long as the ready replicas need for what is before it. A replica
is paid from its order to its end. Replicas that go finish what they stream: they cost `service_s` more, and serve nothing
new. Decisions come at the end of a step and hold from the next on. Whoever would wait longer than
`patience_s` leaves, and counts as missed: gateways give up after a minute.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import Policy
from textnlp_fast.gpu.scaling.simulator.traffic import Traffic

__all__ = ["Run", "simulate"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of it; the lists hold one figure a step."""

    policy: str
    traffic: str
    step_s: int
    cold_start_s: float
    requests: int
    missed: float
    """Requests that waited longer than the SLO allows."""
    replica_hours: float
    """Paid for: starting, ready and draining."""
    changes: int
    """Steps at which the number of replicas wanted was another than before."""
    ready: list[int]
    paid: list[int]
    demand: list[float]
    """Work that arrived, in replicas."""
    misses: list[float]

    @property
    def attainment(self) -> float:
        """Share of requests within the SLO."""
        return 1.0 - self.missed / self.requests if self.requests else 1.0


def simulate(
    policy: Policy,
    traffic: Traffic,
    *,
    cold_start_s: float,
    queue_wait_s: float = 1.0,
    patience_s: float = 60.0,
    initial: int | None = None,
) -> Run:
    """Runs `policy` over `traffic`, beginning with `initial` ready replicas (None: what the first minute needs)."""
    step_s, steps = traffic.step_s, traffic.steps
    work, requests = traffic.work_s, traffic.requests
    service_s, mean_work_s = traffic.service_s, traffic.mean_work_s
    if initial is None:
        head = work[: max(60, step_s)]
        initial = max(1, -int(-1.3 * sum(head) // len(head)))
    ready, wanted = initial, initial
    starting: deque[tuple[float, int]] = deque()
    draining: deque[tuple[float, int]] = deque()
    n_starting = n_draining = 0
    queue = 0.0
    running = 0.0
    decay = 1.0 - 2.718281828459045 ** (-step_s / service_s)
    missed, paid_steps, changes = 0.0, 0, 0
    out_ready: list[int] = []
    out_paid: list[int] = []
    out_demand: list[float] = []
    out_misses: list[float] = []
    decide = policy.decide
    for step in range(steps):
        now = step * step_s
        while starting and starting[0][0] <= now:
            count = starting.popleft()[1]
            n_starting -= count
            ready += count
        while draining and draining[0][0] <= now:
            n_draining -= draining.popleft()[1]
        # -- traffic, a second at a time
        came, brought, served, late = 0, 0.0, 0.0, 0.0
        limit = ready * queue_wait_s
        most = max(1, ready) * patience_s
        for second in range(now, now + step_s):
            fresh = work[second]
            count = requests[second]
            came += count
            brought += fresh
            before = queue
            queue += fresh - ready
            if queue > limit or before > limit:
                # What arrives waits for what is queued when it comes: between `before` and `after`, linearly.
                after = queue if queue > 0.0 else 0.0
                if before > limit and after > limit:
                    late += count
                elif after > before:
                    late += count * (after - limit) / (after - before)
                else:
                    late += count * (before - limit) / (before - after)
            if queue < 0.0:
                served += ready + queue
                queue = 0.0
            else:
                served += ready
                if queue > most:
                    queue = most
        missed += late
        paid = ready + n_starting + n_draining
        paid_steps += paid
        running += (served / step_s / mean_work_s * service_s - running) * decay
        waiting = queue / mean_work_s
        out_ready.append(ready)
        out_paid.append(paid)
        out_demand.append(brought / step_s)
        out_misses.append(late)
        # -- the decision
        prompt_tokens = traffic.prompt_tokens[step]
        a_request = prompt_tokens / came if came else 0.0
        target = decide(
            Observation(
                traffic.start_s + now + step_s,
                ready,
                n_starting,
                came / step_s,
                prompt_tokens / step_s,
                traffic.output_tokens[step] / step_s,
                waiting,
                running,
                waiting * a_request,
                running * a_request,
                None,
                None,
                None,
                1.0 - late / came if came else None,
                min(1.0, served / step_s / ready) if ready else 0.0,
            )
        ).target
        if target != wanted:
            changes += 1
            wanted = target
        have = ready + n_starting
        if target > have:
            starting.append((now + step_s + cold_start_s, target - have))
            n_starting += target - have
        elif target < have:
            # Those that do not serve yet go first, the latest first: they stream nothing.
            surplus = have - target
            while surplus and starting:
                due, count = starting.pop()
                gone = min(count, surplus)
                surplus -= gone
                n_starting -= gone
                if count > gone:
                    starting.append((due, count - gone))
            if surplus:
                ready -= surplus
                n_draining += surplus
                draining.append((now + step_s + service_s, surplus))
    return Run(
        policy=policy.name,
        traffic=traffic.name,
        step_s=step_s,
        cold_start_s=cold_start_s,
        requests=sum(requests[: steps * step_s]),
        missed=missed,
        replica_hours=paid_steps * step_s / 3600.0,
        changes=changes,
        ready=out_ready,
        paid=out_paid,
        demand=out_demand,
        misses=out_misses,
    )
