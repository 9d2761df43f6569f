"""Figures of replicas over time, as one observation. Pure: no clock, no network.

A replica that was not heard keeps its last figures for `hold_s`, for most of those that miss a scrape are busy; a
counter that fell began anew; one seen for the first time is a beginning, whatever it counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.gpu.scaling.signals.engines import Figures
from textnlp_fast.gpu.scaling.signals.histograms import grown, merged, quantile, share_within

__all__ = ["FleetFigures"]

_LEAST_STEP_S = 1e-3


@dataclass(slots=True)
class _Replica:
    last: Figures
    rates: dict[str, float] = field(default_factory=dict)
    grown: dict[str, dict[float, float]] = field(default_factory=dict)
    first_tokens: float = 0.0
    prompt_tokens: float = 0.0
    fresh: bool = True


class FleetFigures:
    """Takes what each replica told, and makes observations of it.

    `slo` says which percentile latencies are told at, and what they are held against. Where less than half of the
    replicas that are asked were heard within `hold_s`, traffic is not measured: a part of a queue is no queue.
    """

    def __init__(self, slo: ScalingPolicy, *, hold_s: float | None = None) -> None:
        self._slo = slo
        self._hold_s = 3 * slo.period_s if hold_s is None else hold_s
        self._replicas: dict[str, _Replica] = {}
        self._mean_prompt: float | None = None

    def observed(
        self,
        heard: Mapping[str, Figures],
        *,
        asked: Sequence[str],
        time_s: float,
        ready: int | None = None,
        starting: int = 0,
    ) -> Observation:
        """The fleet at `time_s`, `asked`: the replicas there should be; `heard`: what those told that did."""
        for one in self._replicas.values():
            one.fresh = False
        for name, figures in heard.items():
            self._take(name, figures)
        self._replicas = {
            name: one
            for name, one in self._replicas.items()
            if name in asked and abs(time_s - one.last.time_s) <= self._hold_s
        }
        some = list(self._replicas.values())
        if not some or 2 * len(some) < len(asked):
            return Observation(time_s, ready, starting)
        waiting, running = _sum(some, "waiting"), _sum(some, "running")
        arrived = self._rate(some, "arrived")
        ttft = merged(one.grown["ttft"] for one in some if one.fresh and "ttft" in one.grown)
        between = merged(one.grown["inter_token"] for one in some if one.fresh and "inter_token" in one.grown)
        uses = [one.last.gauges["kv_use"] for one in some if "kv_use" in one.last.gauges]
        return Observation(
            time_s,
            ready,
            starting,
            request_rate=arrived,
            prompt_tokens_rate=self._rate(some, "prompt_tokens"),
            output_tokens_rate=self._rate(some, "output_tokens"),
            waiting_requests=waiting,
            running_requests=running,
            prefill_tokens=self._prefill(some, waiting),
            decode_tokens=_sum(some, "kv_tokens"),
            kv_cache_use=sum(uses) / len(uses) if uses else None,
            ttft_s=None if ttft is None else quantile(ttft, self._slo.slo_attainment),
            inter_token_s=None if between is None else quantile(between, self._slo.slo_attainment),
            slo_attainment=self._attainment(some, ttft, between),
        )

    def _take(self, name: str, now: Figures) -> None:
        known = self._replicas.get(name)
        if known is None:
            self._replicas[name] = _Replica(now)
            return
        step_s = now.time_s - known.last.time_s
        if not step_s >= _LEAST_STEP_S:
            # The same scrape again, or a clock that went back: its gauges are all that can be told.
            if step_s < 0:
                self._replicas[name] = _Replica(now)
            return
        one = self._replicas[name] = _Replica(now)
        for what, count in now.counters.items():
            if what in known.last.counters:
                before = known.last.counters[what]
                one.rates[what] = (count - before if count >= before else count) / step_s
        if "arrived" not in one.rates and "finished" in one.rates:
            # What is in flight has arrived, too. A process that began anew had nothing in flight then.
            anew = now.counters["finished"] < known.last.counters["finished"]
            inside, inside_before = _in_flight(now), 0.0 if anew else _in_flight(known.last)
            if inside is not None and inside_before is not None:
                one.rates["arrived"] = max(0.0, one.rates["finished"] + (inside - inside_before) / step_s)
        for what, histogram in now.histograms.items():
            if what in known.last.histograms:
                more = grown(known.last.histograms[what], histogram)
                if more is not None:
                    one.grown[what] = more
        one.prompt_tokens = one.rates.get("prompt_tokens", 0.0) * step_s
        one.first_tokens = one.grown.get("ttft", {}).get(math.inf, 0.0)

    def _rate(self, some: Sequence[_Replica], what: str) -> float | None:
        rates = [one.rates[what] for one in some if what in one.rates]
        return sum(rates) if rates else None

    def _prefill(self, some: Sequence[_Replica], waiting: float | None) -> float | None:
        """No engine exports it: requests that wait, times the mean of the prompts that lately got a first token."""
        fresh = [one for one in some if one.fresh and one.first_tokens > 0]
        if fresh:
            mean = sum(one.prompt_tokens for one in fresh) / sum(one.first_tokens for one in fresh)
            self._mean_prompt = mean if self._mean_prompt is None else 0.8 * self._mean_prompt + 0.2 * mean
        if waiting is None or self._mean_prompt is None:
            return None
        return waiting * self._mean_prompt

    def _attainment(
        self,
        some: Sequence[_Replica],
        ttft: Mapping[float, float] | None,
        between: Mapping[float, float] | None,
    ) -> float | None:
        """The worst of the shares that can be told; without a limit on the first token, the wait counts."""
        shares: list[float | None] = []
        if self._slo.ttft_s is not None:
            shares.append(None if ttft is None else share_within(ttft, self._slo.ttft_s))
        else:
            queue = merged(one.grown["queue"] for one in some if one.fresh and "queue" in one.grown)
            shares.append(None if queue is None else share_within(queue, self._slo.queue_wait_s))
        if self._slo.inter_token_s is not None and between is not None:
            shares.append(share_within(between, self._slo.inter_token_s))
        return min((one for one in shares if one is not None), default=None)


def _sum(some: Sequence[_Replica], what: str) -> float | None:
    values = [one.last.gauges[what] for one in some if what in one.last.gauges]
    return sum(values) if values else None


def _in_flight(figures: Figures) -> float | None:
    if "running" not in figures.gauges or "waiting" not in figures.gauges:
        return None
    return figures.gauges["running"] + figures.gauges["waiting"]
