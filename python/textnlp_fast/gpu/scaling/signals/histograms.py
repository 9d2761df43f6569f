"""Histograms of Prometheus between two scrapes: their difference, sum over replicas, quantiles, and shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

__all__ = ["Histogram", "cleaned", "grown", "merged", "quantile", "share_within"]

Histogram = Mapping[float, float]
"""Upper bound -> observations of at most so much, cumulative; the last bound is infinite."""


def cleaned(buckets: Mapping[float, float]) -> dict[float, float] | None:
    """The buckets in order; None for what is no histogram: without +Inf, with a NaN, or counts that fall."""
    if math.inf not in buckets:
        return None
    ordered = dict(sorted(buckets.items()))
    before = 0.0
    for bound, count in ordered.items():
        if math.isnan(bound) or not math.isfinite(count) or count < before:
            return None
        before = count
    return ordered


def grown(before: Histogram, now: Histogram) -> dict[float, float] | None:
    """What was observed between two scrapes of one process; all of `now` where the process began anew in between.

    None where the two contradict each other: other bounds, or some buckets that fell while the total rose.
    """
    if now[math.inf] < before.get(math.inf, 0.0):
        return dict(now)
    if before.keys() != now.keys():
        return None
    return cleaned({bound: count - before[bound] for bound, count in now.items()})


def merged(histograms: Iterable[Histogram]) -> dict[float, float] | None:
    """The sum, over the bounds that all have: on those it is exact. None where there is nothing to add."""
    some = list(histograms)
    if not some:
        return None
    bounds = set(some[0]).intersection(*some[1:])
    return {bound: sum(one[bound] for one in some) for bound in sorted(bounds)}


def quantile(histogram: Histogram, share: float) -> float | None:
    """The value that `share` of the observations do not exceed; None where there are none.

    Linear within a bucket, as Prometheus' histogram_quantile; beyond the last finite bound it is that bound, a lower
    limit. So it never is further off than its bucket is wide.
    """
    total = histogram.get(math.inf, 0.0)
    if total <= 0:
        return None
    wanted = share * total
    lower = below = 0.0
    for bound, count in histogram.items():
        if count >= wanted and count > below:
            if math.isinf(bound):
                return lower if len(histogram) > 1 else None
            start = min(lower, bound)
            return start + (bound - start) * max(0.0, wanted - below) / (count - below)
        if not math.isinf(bound):
            lower, below = bound, count
    return lower


def share_within(histogram: Histogram, limit: float) -> float | None:
    """The share of observations of at most `limit`; None where there are none, or no bound says anything of it.

    Exact where `limit` is a bound; linear in between; of what lies beyond the last finite bound, nothing counts.
    """
    total = histogram.get(math.inf, 0.0)
    if total <= 0 or len(histogram) < 2:
        return None
    lower = below = 0.0
    for bound, count in histogram.items():
        if limit < bound:
            if math.isinf(bound):
                return below / total
            within = below + (count - below) * (limit - lower) / (bound - lower) if limit > lower else below
            return min(1.0, within / total)
        lower, below = bound, count
    return 1.0
