"""What a policy sees once a period: facts of the fleet and of its traffic, each of which may be missing."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Observation"]


class Observation(NamedTuple):
    """Sums over all replicas unless said otherwise, since the observation before; None: not measured.

    A policy must bear anything here: None, NaN, a time that goes back, figures that contradict each other.
    """

    time_s: float
    """Seconds since the epoch, or since a trace's beginning; policies look at differences and at the time of day."""
    ready: int | None
    """Replicas that serve. None: the actuator could not be asked."""
    starting: int = 0
    """Replicas that are ordered and paid for, and do not serve yet."""
    request_rate: float | None = None
    """Requests that arrived, per second, served or not."""
    prompt_tokens_rate: float | None = None
    """Tokens of the prompts that arrived, per second."""
    output_tokens_rate: float | None = None
    """Tokens that were generated, per second: what was served, not what was asked for."""
    waiting_requests: float | None = None
    """Requests that no replica has begun, now, in all queues."""
    running_requests: float | None = None
    """Requests in prefill or decode, now."""
    prefill_tokens: float | None = None
    """Prompt tokens in flight, now: of waiting requests and of those in prefill."""
    decode_tokens: float | None = None
    """Tokens that decoding sequences hold in KV cache, now."""
    kv_cache_use: float | None = None
    """Mean over ready replicas, 0 to 1."""
    ttft_s: float | None = None
    """Time to first token at the SLO's percentile, of requests that got one since the last observation."""
    inter_token_s: float | None = None
    """Time between tokens at the SLO's percentile."""
    slo_attainment: float | None = None
    """Share of requests within the SLO, 0 to 1."""
    gpu_utilisation: float | None = None
    """Mean over ready replicas, 0 to 1. Says nothing of a queue: used where nothing else is known."""
