"""The names under which vLLM, SGLang and Text Generation Inference export what a policy wants to know.

From vllm/v1/metrics/loggers.py (vLLM; some names have an older one), docs/source/reference/metrics.md (TGI), and what
gateways and benches read of SGLang. Each replica exports them at /metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from textnlp_fast.gpu.health.prometheus_text import Sample
from textnlp_fast.gpu.scaling.signals.histograms import cleaned

__all__ = ["NAMES", "Figures", "figures_of"]

#: What it is -> names, the best first; the first that a replica has is taken, and the others are passed over.
_GAUGES: Final[Mapping[str, tuple[str, ...]]] = {
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs", "tgi_batch_current_size"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "tgi_queue_size"),
    "kv_use": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
    "kv_tokens": ("sglang:num_used_tokens",),
}
_COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "arrived": ("tgi_request_count", "tgi_request_count_total"),
    "finished": (
        "vllm:request_success_total",
        "sglang:num_requests_total",
        "tgi_request_success",
        "tgi_request_success_total",
    ),
    "prompt_tokens": (
        "vllm:prompt_tokens_total",
        "sglang:prompt_tokens_total",
        "tgi_request_input_length_sum",
    ),
    "output_tokens": (
        "vllm:generation_tokens_total",
        "sglang:generation_tokens_total",
        "tgi_request_generated_tokens_sum",
    ),
}
_HISTOGRAMS: Final[Mapping[str, tuple[str, ...]]] = {
    "ttft": ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"),
    "inter_token": (
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
        "sglang:inter_token_latency_seconds",
        "sglang:time_per_output_token_seconds",
        "tgi_request_mean_time_per_token_duration",
    ),
    "queue": ("vllm:request_queue_time_seconds", "sglang:queue_time_seconds", "tgi_request_queue_duration"),
}
_CACHE: Final = "vllm:cache_config_info"
#: Ranks of one engine that each tell the same: the largest counts.
_SAME: Final = frozenset({"tp_rank", "pp_rank", "pid"})
#: All names that are looked for, as Prometheus knows its series.
NAMES: Final = frozenset(
    {name for names in (*_GAUGES.values(), *_COUNTERS.values()) for name in names}
    | {f"{name}_bucket" for names in _HISTOGRAMS.values() for name in names}
    | {_CACHE}
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One replica at one time: gauges as they stand, counters and histograms since its process began."""

    time_s: float
    gauges: Mapping[str, float] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[float, float]] = field(default_factory=dict)


def figures_of(samples: Iterable[Sample], *, time_s: float, model: str | None = None) -> Figures:
    """What one replica exported. `model` picks one of several that it serves; figures that are no numbers are left out.

    A replica that exports none of the names has no figures: it is no engine that is known here.
    """
    series: dict[str, dict[tuple[tuple[str, str], ...], tuple[Mapping[str, str], float]]] = {}
    for one in samples:
        if one.name not in NAMES or (model is not None and one.labels.get("model_name", model) != model):
            continue
        key = tuple(sorted((name, value) for name, value in one.labels.items() if name not in _SAME))
        known = series.setdefault(one.name, {}).get(key)
        if known is None or not one.value <= known[1]:
            series[one.name][key] = (one.labels, one.value)
    gauges: dict[str, float] = {}
    for what, names in _GAUGES.items():
        values = _first(series, names)
        if values is not None:
            total = sum(value for _, value in values)
            gauges[what] = total / len(values) if what == "kv_use" else total
    counters = {
        what: sum(value for _, value in values)
        for what, names in _COUNTERS.items()
        if (values := _first(series, names)) is not None
    }
    histograms = {}
    for what, names in _HISTOGRAMS.items():
        values = _first(series, [f"{name}_bucket" for name in names])
        buckets = _buckets(values) if values is not None else None
        if buckets is not None:
            histograms[what] = buckets
    if "kv_tokens" not in gauges and "kv_use" in gauges:
        capacity = _cache_tokens([labels for labels, _ in series.get(_CACHE, {}).values()])
        if capacity:
            gauges["kv_tokens"] = gauges["kv_use"] * capacity
    return Figures(time_s=time_s, gauges=gauges, counters=counters, histograms=histograms)


def _first(
    series: Mapping[str, Mapping[tuple[tuple[str, str], ...], tuple[Mapping[str, str], float]]],
    names: Iterable[str],
) -> list[tuple[Mapping[str, str], float]] | None:
    """The series of the first name that is there; None where none is, or one of them is no number."""
    found = next((series[name] for name in names if name in series), None)
    if found is None:
        return None
    values = list(found.values())
    return values if all(math.isfinite(value) and value >= 0 for _, value in values) else None


def _buckets(values: Iterable[tuple[Mapping[str, str], float]]) -> dict[float, float] | None:
    sums: dict[float, float] = {}
    for labels, value in values:
        try:
            bound = float(labels.get("le", "nan"))
        except ValueError:
            return None
        sums[bound] = sums.get(bound, 0.0) + value
    return cleaned(sums)


def _cache_tokens(infos: Iterable[Mapping[str, str]]) -> float:
    """Tokens that vLLM's KV cache holds, of all its engines together."""
    total = 0
    for labels in infos:
        words = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
        if all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
            total += int(words[0]) * int(words[1])
    return float(total)
