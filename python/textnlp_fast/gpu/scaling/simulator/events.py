"""A policy over single requests, token by token: slower than `fluid`, and with less left out.

An engine as vLLM's: it works in steps. A step either takes in one prompt, while its other sequences stand still, or
gives each of its sequences one token; the more sequences, the longer it takes. A sequence holds from its begin on the
KV cache that it will come to need. One first-come queue stands before all replicas; whoever is first goes to that one
with the fewest sequences that has room for it. A request waits from its arrival to the begin of its prefill.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import Policy

if TYPE_CHECKING:
    from textnlp_fast.gpu.scaling.simulator.traces import RequestTrace
    from textnlp_fast.gpu.scaling.simulator.traffic import ReplicaSpeed

__all__ = ["Engine", "EventRun", "simulate_requests"]

# Two ways to reckon the end of a step differ by less.
_NOW_S: Final = 1e-7


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How fast a replica's steps are, and what it has room for."""

    prefill_tokens_per_s: float = 7500.0
    step_s: float = 0.02
    """Of a step that decodes, before its sequences: weights are read."""
    step_s_a_sequence: float = 0.0005
    max_batch: int = 40
    kv_tokens: int = 200_000

    def __post_init__(self) -> None:
        rates = self.prefill_tokens_per_s > 0 and self.step_s > 0 and self.step_s_a_sequence >= 0
        if not rates or self.max_batch < 1 or self.kv_tokens < 1:
            raise InvalidInputError("an engine's speed, batch and KV cache must be positive")

    @classmethod
    def of_speed(cls, speed: ReplicaSpeed, *, kv_tokens: int = 200_000) -> Engine:
        """An engine that decodes as fast as `speed` says when its batch is full, in steps that it says, too."""
        batch = max(1, round(speed.decode_tokens_per_s * speed.inter_token_s))
        return cls(
            prefill_tokens_per_s=speed.prefill_tokens_per_s,
            step_s=speed.inter_token_s / 2,
            step_s_a_sequence=speed.inter_token_s / 2 / batch,
            max_batch=batch,
            kv_tokens=kv_tokens,
        )

    def decode_step_s(self, sequences: int) -> float:
        return self.step_s + self.step_s_a_sequence * sequences


@dataclass(frozen=True, kw_only=True)
class EventRun:
    """What came of it."""

    policy: str
    waits_s: list[float]
    """Of each request, in their order; infinite for those that gave up or fit into no replica."""
    ttfts_s: list[float]
    missed: int
    replica_hours: float
    """Paid for within the trace's steps."""
    changes: int
    ready: list[int]
    """A figure a step."""

    @property
    def attainment(self) -> float:
        return 1.0 - self.missed / len(self.waits_s)


def simulate_requests(
    policy: Policy,
    trace: RequestTrace,
    *,
    engine: Engine | None = None,
    cold_start_s: float,
    queue_wait_s: float = 1.0,
    patience_s: float = 60.0,
    step_s: int = 10,
    initial: int = 1,
) -> EventRun:
    """Runs `policy` over single requests, beginning with `initial` ready replicas.

    After the last step's decision nothing is decided any more: those that wait yet are served by who is there.
    """
    engine = engine or Engine()
    steps = int(trace.arrivals_s[-1]) // step_s + 1
    fleet = _Replicas(engine, trace, queue_wait_s=queue_wait_s, patience_s=patience_s)
    for _ in range(initial):
        fleet.order(0.0, 0.0)
    fleet.run_until(0.0)
    ready, changes, wanted = [], 0, initial
    for step in range(steps):
        ready.append(len(fleet.ready))
        now = float((step + 1) * step_s)
        fleet.run_until(now)
        target = max(0, policy.decide(fleet.observe(now, step_s)).target)
        changes += target != wanted
        wanted = target
        fleet.scale(now, target, cold_start_s)
    end = float(steps * step_s)
    fleet.run_until(end + patience_s + cold_start_s + 1.0)
    fleet.expire(math.inf)
    missed = sum(wait > queue_wait_s for wait in fleet.waits)
    return EventRun(
        policy=policy.name,
        waits_s=fleet.waits,
        ttfts_s=fleet.ttfts,
        missed=missed,
        replica_hours=fleet.paid_s(end) / 3600.0,
        changes=changes,
        ready=ready,
    )


@dataclass(eq=False)
class _Replica:
    """`clock` is the end of the step that is under way, or now."""

    engine: Engine
    ordered: float
    clock: float = 0.0
    steps: int = 0
    tokens: int = 0
    held: int = 0
    ended: float = math.inf
    due: float = math.inf
    _running: list[tuple[int, int]] = field(default_factory=list)
    """The step after which a sequence has its last token, and the KV cache that it holds; a heap."""

    @property
    def sequences(self) -> int:
        return len(self._running)

    def advance(self, to: float) -> None:
        """Decodes until a step ends at `to` or later, or nothing is left to decode."""
        running = self._running
        while to - self.clock > _NOW_S and running:
            step_s = self.engine.decode_step_s(len(running))
            count = min(running[0][0] - self.steps, max(1, math.ceil((to - self.clock - _NOW_S) / step_s)))
            self.clock += count * step_s
            self.steps += count
            self.tokens += count * len(running)
            while running and running[0][0] <= self.steps:
                self.held -= heapq.heappop(running)[1]
        self.clock = max(self.clock, to)

    def has_room(self, tokens: int, now: float) -> bool:
        """Whether it takes such a request when the step that is under way ends; a prefill is waited for elsewhere."""
        near = self.clock - now <= self.engine.decode_step_s(self.engine.max_batch)
        return (
            near
            and len(self._running) < self.engine.max_batch
            and self.held + tokens <= self.engine.kv_tokens
        )

    def admit(self, prompt: int, output: int) -> tuple[float, float]:
        """Takes a request in at the step's end: when its prefill begins, and when its first token is there."""
        begin = self.clock
        self.clock += prompt / self.engine.prefill_tokens_per_s
        self.tokens += 1
        if output > 1:
            heapq.heappush(self._running, (self.steps + output - 1, prompt + output))
            self.held += prompt + output
        return begin, self.clock

    def next_end(self) -> float:
        """When its next sequence will be done, if none comes in between."""
        if not self._running:
            return math.inf
        left = self._running[0][0] - self.steps
        return self.clock + left * self.engine.decode_step_s(len(self._running))


class _Replicas:
    """The queue, the replicas, and events: arrivals, ends of cold starts, of prefills and of sequences."""

    def __init__(
        self, engine: Engine, trace: RequestTrace, *, queue_wait_s: float, patience_s: float
    ) -> None:
        self._engine, self._trace = engine, trace
        self._wait_s, self._patience_s = queue_wait_s, patience_s
        self.ready: list[_Replica] = []
        self._starting: list[tuple[float, _Replica]] = []
        self._all: list[_Replica] = []
        self._draining: list[_Replica] = []
        self._queue: deque[int] = deque()
        self._next = 0
        self._events: list[tuple[float, int, _Replica]] = []
        self._count = 0
        self.waits = [math.inf] * len(trace.arrivals_s)
        self.ttfts = [math.inf] * len(trace.arrivals_s)
        self._settled: list[int] = []
        """Requests that were begun or have left since the last observation."""
        self._seen_arrivals = self._seen_tokens = 0

    # -- orders

    def order(self, now: float, cold_start_s: float) -> None:
        one = _Replica(self._engine, now)
        self._all.append(one)
        self._starting.append((now + cold_start_s, one))

    def scale(self, now: float, target: int, cold_start_s: float) -> None:
        """As the fluid fleet does it: those that start go first, the latest first; then those with least to finish."""
        surplus = len(self.ready) + len(self._starting) - target
        for _ in range(-surplus):
            self.order(now, cold_start_s)
        for _ in range(min(surplus, len(self._starting))):
            self._starting.pop()[1].ended = now
            surplus -= 1
        for one in sorted(self.ready, key=lambda one: one.sequences)[: max(0, surplus)]:
            self.ready.remove(one)
            self._draining.append(one)
            one.due = max(one.clock, now)
            self._push(one)

    def paid_s(self, end: float) -> float:
        return math.fsum(max(0.0, min(one.ended, end) - one.ordered) for one in self._all)

    # -- time

    def run_until(self, end: float) -> None:
        """Works off all events up to `end`."""
        arrivals = self._trace.arrivals_s
        while True:
            at = arrivals[self._next] if self._next < len(arrivals) else math.inf
            start = self._starting[0][0] if self._starting else math.inf
            event = self._events[0][0] if self._events else math.inf
            now = min(at, start, event)
            if now > end:
                break
            if now == start:
                one = self._starting.pop(0)[1]
                one.clock = now
                self.ready.append(one)
            elif now == event:
                self._work(heapq.heappop(self._events)[2], now)
            else:
                self._queue.append(self._next)
                self._next += 1
            self._dispatch(now)
        self.expire(end)

    def _work(self, one: _Replica, now: float) -> None:
        if one.due != now:
            return  # it had another end since
        one.advance(now)
        one.due = one.next_end()
        if one.due < math.inf:
            self._push(one)
        elif one in self._draining:
            self._draining.remove(one)
            one.ended = one.clock

    def _push(self, one: _Replica) -> None:
        self._count += 1
        heapq.heappush(self._events, (one.due, self._count, one))

    def _dispatch(self, now: float) -> None:
        self.expire(now)
        trace = self._trace
        while self._queue:
            first = self._queue[0]
            prompt, output = int(trace.prompt_tokens[first]), int(trace.output_tokens[first])
            if prompt + output > self._engine.kv_tokens:
                self._settled.append(self._queue.popleft())  # no replica can ever hold it
                continue
            best = None
            for one in self.ready:
                one.advance(now)
                if one.has_room(prompt + output, now) and (
                    best is None or (one.sequences, one.clock) < (best.sequences, best.clock)
                ):
                    best = one
            if best is None:
                return
            self._queue.popleft()
            begin, first_token = best.admit(prompt, output)
            self.waits[first] = begin - trace.arrivals_s[first]
            self.ttfts[first] = first_token - trace.arrivals_s[first]
            self._settled.append(first)
            best.due = best.clock
            self._push(best)

    def expire(self, now: float) -> None:
        """Those that have waited too long leave."""
        while self._queue and now - self._trace.arrivals_s[self._queue[0]] > self._patience_s:
            self._settled.append(self._queue.popleft())

    # -- what a policy sees

    def observe(self, now: float, step_s: int) -> Observation:
        trace, came = self._trace, range(self._seen_arrivals, self._next)
        self._seen_arrivals = self._next
        for one in self.ready:
            one.advance(now)
        tokens = sum(one.tokens for one in self._all)
        made, self._seen_tokens = tokens - self._seen_tokens, tokens
        settled, self._settled = self._settled, []
        firsts = sorted(self.ttfts[one] for one in settled if self.ttfts[one] < math.inf)
        running = sum(one.sequences for one in self.ready)
        held = sum(one.held for one in self.ready)
        count = len(self.ready)
        busiest = max((one.sequences for one in self.ready), default=0)
        return Observation(
            time_s=trace.start_s + now,
            ready=count,
            starting=len(self._starting),
            request_rate=len(came) / step_s,
            prompt_tokens_rate=sum(trace.prompt_tokens[one] for one in came) / step_s,
            output_tokens_rate=made / step_s,
            waiting_requests=float(len(self._queue)),
            running_requests=float(running),
            prefill_tokens=float(sum(trace.prompt_tokens[one] for one in self._queue)),
            decode_tokens=float(held),
            kv_cache_use=held / (count * self._engine.kv_tokens) if count else None,
            ttft_s=firsts[int(0.99 * (len(firsts) - 1))] if firsts else None,
            inter_token_s=self._engine.decode_step_s(busiest) if busiest else None,
            slo_attainment=(
                sum(self.waits[one] <= self._wait_s for one in settled) / len(settled) if settled else None
            ),
            gpu_utilisation=running / (count * self._engine.max_batch) if count else 0.0,
        )
