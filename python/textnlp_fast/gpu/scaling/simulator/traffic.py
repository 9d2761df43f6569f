"""Arrivals, second by second, and the work that they bring: what a policy is tried on.

Work is counted in replica-seconds: a request of p prompt and o output tokens takes p / prefill speed + o / decode speed
of one replica's time, the roofline's two rates at the batch that meets the SLO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.errors import InvalidInputError

__all__ = [
    "MAX_REPLICAS",
    "MAX_REQUESTS",
    "Bursts",
    "ReplicaSpeed",
    "TokenMix",
    "Traffic",
    "slow_noise",
    "traffic_of_rates",
    "traffic_of_requests",
]

Floats = npt.NDArray[np.float64]

MAX_REQUESTS: Final = 100_000_000
"""More are refused: each takes some forty bytes while the seconds are added up."""
MAX_REPLICAS: Final = 100_000
"""Traffic whose fullest step needs more is refused: the speed or the rates are not what they were meant to be."""


@dataclass(frozen=True, kw_only=True)
class ReplicaSpeed:
    """What one replica does at the batch size that meets its SLO."""

    prefill_tokens_per_s: float = 7500.0
    decode_tokens_per_s: float = 1000.0
    """Of all sequences of the batch together."""
    inter_token_s: float = 0.04

    def work_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """Replica-seconds that such a request takes."""
        return prompt_tokens / self.prefill_tokens_per_s + output_tokens / self.decode_tokens_per_s

    def service_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """Seconds from the begin of prefill to the last token."""
        return prompt_tokens / self.prefill_tokens_per_s + output_tokens * self.inter_token_s


@dataclass(frozen=True, kw_only=True)
class TokenMix:
    """Prompts and outputs of requests, log-normal and independent: means in tokens, coefficients of variation."""

    prompt_mean: float = 1000.0
    prompt_cv: float = 1.0
    output_mean: float = 250.0
    output_cv: float = 0.8


@dataclass(frozen=True, kw_only=True)
class Bursts:
    """Slow noise over a recorded rate: its logarithm is a first-order autoregressive (Ornstein-Uhlenbeck) process."""

    sigma: float = 0.15
    correlation_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What arrives in each second. Steps are the periods at which policies decide."""

    name: str
    step_s: int
    requests: Sequence[int]
    """Per second."""
    work_s: Sequence[float]
    """Replica-seconds that the second's requests bring."""
    prompt_tokens: Sequence[float]
    """Per step."""
    output_tokens: Sequence[float]
    """Per step."""
    service_s: float
    """Mean time of a request in service, without waiting."""
    mean_work_s: float
    """Mean replica-seconds of a request."""
    start_s: float = 0.0
    """The time of the first second, for policies that look at the time of day."""

    @property
    def steps(self) -> int:
        return len(self.requests) // self.step_s

    @property
    def concurrency(self) -> float:
        """Requests in flight in one fully busy replica."""
        return self.service_s / self.mean_work_s


def traffic_of_rates(
    times_s: Sequence[float],
    rates: Sequence[float],
    *,
    name: str,
    scale: float = 1.0,
    seed: int = 0,
    bursts: Bursts | None = None,
    tokens: TokenMix | None = None,
    speed: ReplicaSpeed | None = None,
    step_s: int = 10,
) -> Traffic:
    """Poisson arrivals at recorded rates (requests per second, linear between readings), times `scale`.

    Equal seeds give equal traffic. Raises InvalidInputError for fewer than two readings, rates that are no rates, and
    more than MAX_REQUESTS or work for more than MAX_REPLICAS.
    """
    bursts, tokens, speed = bursts or Bursts(), tokens or TokenMix(), speed or ReplicaSpeed()
    times, levels = np.asarray(times_s, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    if len(times) < 2 or len(times) != len(levels) or not np.all(np.diff(times) > 0):
        raise InvalidInputError("a trace of rates needs two readings or more, in order of time")
    if not (np.all(np.isfinite(levels)) and np.all(levels >= 0)):
        raise InvalidInputError("a trace's rates must be finite and not negative")
    random = np.random.default_rng(seed)
    seconds = int(times[-1] - times[0]) // step_s * step_s
    rate = np.interp(times[0] + np.arange(seconds) + 0.5, times, levels) * scale
    rate *= np.exp(slow_noise(random, seconds, bursts) - bursts.sigma**2 / 2)
    expected = float(rate.sum())
    if not expected <= MAX_REQUESTS:
        raise InvalidInputError(
            f"the trace brings about {expected:.3g} requests; a simulation takes {MAX_REQUESTS:,}",
            hint="Take a part of the rates (--scale 0.1, with replicas as many times slower) or fewer days (--days).",
        )
    counts = random.poisson(rate)
    total = int(counts.sum())
    prompts = _log_normal(random, tokens.prompt_mean, tokens.prompt_cv, total)
    outputs = _log_normal(random, tokens.output_mean, tokens.output_cv, total)
    second = np.repeat(np.arange(seconds), counts)
    return _traffic(name, step_s, seconds, second, prompts, outputs, speed, start_s=float(times[0]))


def traffic_of_requests(
    arrivals_s: Sequence[float],
    prompt_tokens: Sequence[float],
    output_tokens: Sequence[float],
    *,
    name: str,
    speed: ReplicaSpeed | None = None,
    step_s: int = 10,
    start_s: float = 0.0,
) -> Traffic:
    """Recorded requests as they came. `arrivals_s` counts from the trace's beginning."""
    at = np.asarray(arrivals_s, dtype=np.float64)
    prompts, outputs = (
        np.asarray(prompt_tokens, dtype=np.float64),
        np.asarray(output_tokens, dtype=np.float64),
    )
    if len(at) == 0 or len(at) != len(prompts) or len(at) != len(outputs):
        raise InvalidInputError(
            "a trace of requests needs one time, prompt length and output length a request"
        )
    if not all(np.all(np.isfinite(one)) and np.all(one >= 0) for one in (at, prompts, outputs)):
        raise InvalidInputError("a trace's times and tokens must be finite and not negative")
    seconds = (int(at.max()) // step_s + 1) * step_s
    return _traffic(
        name, step_s, seconds, at.astype(np.int64), prompts, outputs, speed or ReplicaSpeed(), start_s=start_s
    )


def _traffic(
    name: str,
    step_s: int,
    seconds: int,
    second: npt.NDArray[np.int64],
    prompts: Floats,
    outputs: Floats,
    speed: ReplicaSpeed,
    *,
    start_s: float,
) -> Traffic:
    work = prompts / speed.prefill_tokens_per_s + outputs / speed.decode_tokens_per_s
    service = prompts / speed.prefill_tokens_per_s + outputs * speed.inter_token_s
    a_step = second // step_s
    fullest = float(np.bincount(a_step, weights=work, minlength=1).max()) / step_s
    if not fullest <= MAX_REPLICAS:
        raise InvalidInputError(
            f"the fullest {step_s} s need {fullest:.3g} replicas; a simulation takes {MAX_REPLICAS:,}",
            hint="Look at the speed of a replica (--prefill, --decode), the tokens of a request and the rates.",
        )
    return Traffic(
        name=name,
        step_s=step_s,
        requests=np.bincount(second, minlength=seconds).tolist(),
        work_s=np.bincount(second, weights=work, minlength=seconds).tolist(),
        prompt_tokens=np.bincount(a_step, weights=prompts, minlength=seconds // step_s).tolist(),
        output_tokens=np.bincount(a_step, weights=outputs, minlength=seconds // step_s).tolist(),
        service_s=float(service.mean()) if len(service) else speed.service_s(1.0, 1.0),
        mean_work_s=float(work.mean()) if len(work) else speed.work_s(1.0, 1.0),
        start_s=start_s,
    )


def slow_noise(random: np.random.Generator, seconds: int, bursts: Bursts) -> Floats:
    """An Ornstein-Uhlenbeck process a minute apart, linear in between: it is slow against a minute."""
    points = seconds // 60 + 2
    keep = float(np.exp(-60.0 / bursts.correlation_s))
    shocks = random.normal(0.0, bursts.sigma * np.sqrt(1 - keep * keep), points)
    level = np.empty(points)
    value = random.normal(0.0, bursts.sigma)
    for k in range(points):
        value = keep * value + shocks[k]
        level[k] = value
    return np.asarray(np.interp(np.arange(seconds) / 60.0, np.arange(points), level), dtype=np.float64)


def _log_normal(random: np.random.Generator, mean: float, cv: float, count: int) -> Floats:
    variance = np.log1p(cv * cv)
    return random.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), count)
