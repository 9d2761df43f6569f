"""What one replica serves: the largest steady rate at which both latency targets hold.

Continuous batching as vLLM does it. A replica keeps `b` sequences. While a sequence produces its `O` tokens each of the
`b` is prefilled once, `k` at a time, so that of `O` steps `b/k` also take prompts and the others only decode:

    steps     n = ceil(b / k) with prompts (t_mix each), max(0, O - n) without (t_dec each)
    TPOT      = (n t_mix + (O - n) t_dec) / O
    TTFT      = (t_mix + what the processor adds) * queue(b)
    requests  = b / (TTFT + (O - 1) TPOT) a second          (Little's law)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from textnlp_fast.gpu.recommender.efficiency import CPU_PER_LAYER_S, Efficiency
from textnlp_fast.gpu.recommender.layout import BATCHED_TOKENS, Layout, Memory, memory_of, sequences_that_fit
from textnlp_fast.gpu.recommender.precision import WeightFormat
from textnlp_fast.gpu.recommender.roofline import Roofline
from textnlp_fast.gpu.recommender.shape import ModelShape
from textnlp_fast.gpu.types import GPUSpec

__all__ = ["BATCHES", "Point", "Traffic", "best_point", "curve", "point_at"]

#: Those that are tried: fine enough that no step between them costs 8 %; vLLM captures graphs up to the last.
BATCHES: Final = (
    *range(1, 16),
    *range(16, 32, 2),
    *range(32, 64, 4),
    *range(64, 256, 8),
    *range(256, 513, 16),
)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What requests look like and how fast they have to be answered. Lengths are means, in tokens."""

    prompt: int
    output: int
    ttft_s: float
    tpot_s: float
    longest: int | None = None
    """Positions that one sequence may get to. None: prompt and output."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A replica at work, as predicted."""

    layout: Layout
    batch: int
    """Sequences that it works at together, over all its stages and copies."""
    ttft_s: float
    tpot_s: float
    requests_per_s: float
    memory: Memory


def queueing(batch: int) -> float:
    """By how much waiting for other prompts stretches the first token: AIConfigurator's fit to silicon."""
    return min(1.0 + math.log2(batch) / 8.0, 2.0)


def point_at(
    roofline: Roofline, shape: ModelShape, layout: Layout, traffic: Traffic, *, batch: int, together: int
) -> tuple[float, float, float]:
    """TTFT, TPOT and requests per second with `batch` sequences a copy, `together` prompts in a step."""
    prompt, output = traffic.prompt, traffic.output
    context = prompt + output / 2
    mixed = roofline.step_s(
        prefills=together,
        prompt=prompt,
        decodes=max(1, batch - together) if batch > 1 else 0,
        context=context,
    )
    ttft = (mixed + CPU_PER_LAYER_S * shape.layers) * queueing(batch)
    decoding = roofline.step_s(prefills=0, prompt=prompt, decodes=batch, context=context)
    with_prompts = math.ceil(batch / together) if batch > 1 else 0
    without = max(0, output - with_prompts)
    if output == 1:
        tpot = 0.0
        total = mixed * math.ceil(batch / together)
    else:
        tpot = (with_prompts * mixed + without * decoding) / (with_prompts + without)
        total = with_prompts * mixed + without * decoding
    latency = max(total, ttft + tpot * (output - 1))
    return ttft, tpot, batch * layout.pipeline * layout.data / latency


def best_point(
    shape: ModelShape,
    spec: GPUSpec,
    traffic: Traffic,
    *,
    weights: WeightFormat,
    kv_bytes: float,
    layout: Layout,
    gpu_memory_gib: float,
    efficiency: Efficiency | None = None,
) -> Point | str:
    """The point of most requests per second that keeps the targets, or a sentence that says why there is none."""
    positions = traffic.prompt + traffic.output
    sizes = {"weights": weights, "kv_bytes": kv_bytes, "layout": layout, "gpu_memory_gib": gpu_memory_gib}
    longest = traffic.longest or positions
    most = sequences_that_fit(shape, **sizes, positions=positions)  # type: ignore[arg-type]
    if most < 1 or sequences_that_fit(shape, **sizes, positions=longest) < 1:  # type: ignore[arg-type]
        need = memory_of(shape, **sizes, sequences=1, positions=longest)  # type: ignore[arg-type]
        return (
            f"{layout}: weights of {need.weights_gib:.1f} GiB, {need.kv_gib:.1f} of KV cache for one request and "
            f"{need.activations_gib + need.overhead_gib:.1f} beside them do not fit the "
            f"{need.limit_gib:.1f} GiB of a GPU"
        )
    roofline = Roofline(shape, spec, weights=weights, kv_bytes=kv_bytes, layout=layout, efficiency=efficiency)
    best: tuple[float, int, float, float] | None = None
    nearest = (math.inf, math.inf)
    for together in _prompts_together(traffic.prompt):
        for batch in BATCHES:
            if batch > most or (batch <= together and batch > 1):
                continue
            ttft, tpot, rate = point_at(roofline, shape, layout, traffic, batch=batch, together=together)
            nearest = min(nearest, (ttft, tpot))
            if ttft <= traffic.ttft_s and tpot <= traffic.tpot_s and (best is None or rate > best[0]):
                best = rate, batch, ttft, tpot
    if best is None:
        ttft, tpot = nearest
        return (
            f"{layout}: a lone request would have its first token after {ttft:.2f} s and one each "
            f"{tpot * 1000:.0f} ms; wanted are {traffic.ttft_s:g} s and {traffic.tpot_s * 1000:g} ms"
        )
    rate, batch, ttft, tpot = best
    memory = memory_of(shape, **sizes, sequences=batch, positions=positions)  # type: ignore[arg-type]
    return Point(
        layout=layout,
        batch=batch * layout.pipeline * layout.data,
        ttft_s=ttft,
        tpot_s=tpot,
        requests_per_s=rate,
        memory=memory,
    )


def curve(
    shape: ModelShape,
    spec: GPUSpec,
    traffic: Traffic,
    *,
    weights: WeightFormat,
    kv_bytes: float,
    layout: Layout,
    gpu_memory_gib: float,
) -> list[tuple[float, float]]:
    """TPOT and requests per second of a replica at every batch that fits and keeps the target of the first token."""
    most = sequences_that_fit(
        shape,
        weights=weights,
        kv_bytes=kv_bytes,
        layout=layout,
        gpu_memory_gib=gpu_memory_gib,
        positions=traffic.prompt + traffic.output,
    )
    roofline = Roofline(shape, spec, weights=weights, kv_bytes=kv_bytes, layout=layout)
    points = [
        point_at(roofline, shape, layout, traffic, batch=batch, together=1)
        for batch in BATCHES
        if batch <= most
    ]
    return [(tpot, rate) for ttft, tpot, rate in points if ttft <= traffic.ttft_s]


def _prompts_together(prompt: int) -> list[int]:
    """How many prompts may share a step: as many as its tokens allow, one in any case."""
    most = max(1, BATCHED_TOKENS // prompt)
    return sorted({1 << power for power in range(most.bit_length()) if 1 << power <= most})
