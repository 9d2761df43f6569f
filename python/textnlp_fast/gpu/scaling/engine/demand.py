"""The load in replicas: what an observation says of it, by the best signal that it has.

Arrivals come first: they lead what is in flight by the time that a request takes. Requests differ, though, and a
capacity that was stated may be off, so arrivals are corrected by what is in flight (Little's law says that both are one
figure). Tokens in flight are next, then requests in flight, then KV cache; GPU utilisation, which says nothing of a
queue, is last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.gpu.scaling.numbers import number
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity

__all__ = ["DemandMeter", "Reading"]

_FULL_CACHE: Final = 0.9
"""KV-cache use at which a replica is full: beyond it, engines preempt."""
_FULL_GPU: Final = 0.8
_CORRECTION_S: Final = 6 * 3600.0
"""Long against a wave of traffic: what is in flight lags behind arrivals, and must not be taken for another size."""
_CORRECTION_BOUND: Final = 4.0
_ABSURD: Final = 1e9
"""More replicas than this are no load, but a broken counter."""


class Reading:
    """What one observation says. `problem` names what is wrong with it: then the load is not to be believed."""

    __slots__ = ("backlog", "load", "problem", "signal", "text")

    def __init__(self) -> None:
        self.load = 0.0
        """Replicas that the arrivals keep busy."""
        self.backlog = 0.0
        """Work that waits, in replica-seconds where arrivals are known, else in replicas."""
        self.signal = ""
        self.problem = ""
        self.text = ""


class DemandMeter:
    """Turns observations into load; keeps what it learns of the requests' size."""

    __slots__ = ("_arrived", "_capacity", "_in_flight", "_reading")

    def __init__(self, capacity: ReplicaCapacity) -> None:
        self._capacity = capacity
        self._arrived = self._in_flight = 0.0
        self._reading = Reading()

    def read(self, observation: Observation, period_s: float) -> Reading:
        """The load of this period. The answer is overwritten by the next."""
        reading = self._reading
        reading.problem = reading.text = ""
        waiting = observation.waiting_requests
        waiting = 0.0 if waiting is None else waiting
        in_flight = self._load_in_flight(observation, waiting)
        capacity = self._capacity.requests_per_s
        rate = observation.request_rate
        if capacity is not None and rate is not None:
            arrived = rate / capacity
            if in_flight is None:
                reading.load, reading.signal = arrived, "request_rate"
            else:
                reading.load = arrived * self._correction(arrived, in_flight, waiting, period_s)
                reading.signal = "request_rate"
                if rate == 0.0 and waiting > 0.0 and in_flight > reading.load:
                    # Requests wait, though none is said to arrive: the counter stands still.
                    reading.load, reading.signal = in_flight, "in_flight"
            reading.backlog = waiting / capacity
        elif in_flight is not None:
            reading.load, reading.signal = in_flight, "in_flight"
            concurrency = self._capacity.concurrency
            reading.backlog = waiting / concurrency if concurrency is not None else 0.0
        else:
            self._load_of_last_resort(observation, reading)
        if not reading.problem:
            _check(observation, reading, waiting)
        return reading

    def _load_in_flight(self, observation: Observation, waiting: float) -> float | None:
        capacity = self._capacity
        decoding = observation.decode_tokens
        if capacity.tokens_in_flight is not None and decoding is not None:
            prefill = observation.prefill_tokens
            return ((0.0 if prefill is None else prefill) + decoding) / capacity.tokens_in_flight
        running = observation.running_requests
        if capacity.concurrency is not None and running is not None:
            return (running + waiting) / capacity.concurrency
        return None

    def _correction(self, arrived: float, in_flight: float, waiting: float, period_s: float) -> float:
        """How much more than stated a request takes, by what is in flight while nothing waits."""
        if waiting < 1.0 and math.isfinite(arrived) and math.isfinite(in_flight) and 0 <= in_flight < _ABSURD:
            share = 1.0 - math.exp(-period_s / _CORRECTION_S)
            # Sums, not ratios: a quiet second with one long request must not weigh as much as a busy one.
            self._arrived += (arrived - self._arrived) * share
            self._in_flight += (in_flight - self._in_flight) * share
        if self._arrived < 0.05 or self._in_flight < 0.05:
            return 1.0
        ratio = self._in_flight / self._arrived
        # A tenth either way is the lag of what is in flight behind arrivals that rise or fall.
        if 0.9 <= ratio <= 1.1:
            return 1.0
        ratio /= 0.9 if ratio < 0.9 else 1.1
        return max(1.0 / _CORRECTION_BOUND, min(_CORRECTION_BOUND, ratio))

    def _load_of_last_resort(self, observation: Observation, reading: Reading) -> None:
        ready = observation.ready
        reading.backlog = 0.0
        if ready is None or ready <= 0:
            reading.load, reading.signal = 0.0, "none"
            waiting = observation.waiting_requests
            if waiting is None:
                reading.problem = "metrics_missing"
                reading.text = (
                    "No replica serves and no queue is measured: nothing says whether anybody asks."
                )
            elif waiting > 0:
                reading.load = 1.0
            return
        if observation.kv_cache_use is not None:
            reading.load, reading.signal = observation.kv_cache_use / _FULL_CACHE * ready, "kv_cache"
            if observation.kv_cache_use > 1.0:
                reading.problem = "metrics_contradict"
                reading.text = f"A KV cache is {observation.kv_cache_use:.0%} full."
        elif observation.gpu_utilisation is not None:
            reading.load, reading.signal = observation.gpu_utilisation / _FULL_GPU * ready, "gpu_utilisation"
        else:
            reading.load, reading.signal, reading.problem = 0.0, "none", "metrics_missing"
            measured = [observation.request_rate, observation.running_requests, observation.prefill_tokens]
            reading.text = (
                "Nothing that was measured says how much is asked for: look at the metrics' source."
                if all(one is None for one in measured)
                else "What was measured means nothing without what a replica carries: set the policy's capacity."
            )

    def snapshot(self) -> Mapping[str, Any]:
        return {"arrived": self._arrived, "in_flight": self._in_flight}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._arrived, self._in_flight = number(state["arrived"]), number(state["in_flight"])


def _check(observation: Observation, reading: Reading, waiting: float) -> None:
    """Names what cannot be: negative or endless figures, requests that run where no replica is ready."""
    load = reading.load
    if not 0.0 <= load < _ABSURD or not 0.0 <= waiting < math.inf or not 0.0 <= reading.backlog < math.inf:
        reading.problem = "metrics_invalid"
        reading.text = f"The load is said to be {load!r} replicas, with {waiting!r} requests waiting."
        return
    running = observation.running_requests
    if running is not None and (
        not 0.0 <= running < math.inf or (running > 0.0 and load == 0.0 and waiting > 0.0)
    ):
        reading.problem = "metrics_contradict"
        reading.text = f"{running!r} requests run and {waiting!r} wait, but none is said to arrive."
