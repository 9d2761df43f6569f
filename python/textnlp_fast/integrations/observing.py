"""A fleet's settings as an observer: what Prometheus knows of the replicas, and of requests that wait before them.

How many replicas serve is taken from how many Prometheus has heard of lately; what is ordered and does not serve yet,
`deciding.py` adds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.signals.prometheus_server import PrometheusObserver
from textnlp_fast.integrations.deciding import Observer
from textnlp_fast.integrations.fleet_settings import FleetSettings
from textnlp_fast.integrations.policy_settings import SettingError

__all__ = ["prometheus_observer"]


def prometheus_observer(
    settings: FleetSettings, *, allowed_hosts: Sequence[str] = ("*",), timeout_s: float = 5.0
) -> Observer:
    """Looks at the fleet through the Prometheus of its settings; each query within `timeout_s`.

    Settings are written by whoever may write a ScaledObject, and the addresses in them are asked by this process:
    `allowed_hosts` are patterns for what it may ask. Raises SettingError for another.
    """
    host = urlsplit(settings.metrics_url).hostname or ""
    if not any(fnmatchcase(host, pattern.lower()) for pattern in allowed_hosts):
        raise SettingError(
            "metricsUrl",
            f"this scaler may not ask {host[:80]}",
            hint="Allow it where the scaler is started: --allow-host.",
        )
    prometheus = PrometheusObserver(
        settings.metrics_url,
        slo=settings.policy,
        matchers=settings.metrics_labels,
        model=settings.model,
        timeout_s=timeout_s,
    )

    async def look() -> Observation:
        seen = await prometheus.observe(None, time_s=time.time())
        seen = seen._replace(ready=prometheus.heard)
        if settings.waiting_query is None:
            return seen
        before = await prometheus.total(settings.waiting_query)
        if before is None:
            return seen
        return seen._replace(waiting_requests=(seen.waiting_requests or 0.0) + max(0.0, before))

    return lambda: asyncio.run(look())
