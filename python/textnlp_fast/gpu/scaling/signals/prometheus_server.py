"""Observes through one Prometheus server, by its query API (/api/v1/query).

The raw series are asked for and not their rates: what is done about resets, gaps and late scrapes is then the same as
where replicas are scraped directly. A second query tells when each replica was scraped.
"""

from __future__ import annotations

import json
import math
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.health.http import checked_url, request
from textnlp_fast.gpu.health.prometheus_text import Sample
from textnlp_fast.gpu.scaling.actuators.contract import FleetState
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.gpu.scaling.signals.engines import NAMES, Figures, figures_of
from textnlp_fast.gpu.scaling.signals.figures import FleetFigures

__all__ = ["PrometheusObserver"]

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_MOST_SERIES: Final = 200_000


class PrometheusObserver:
    """Asks the Prometheus at `url` for the series of one fleet.

    `matchers` pick it, {"namespace": "prod"}; `replica_label` tells replicas apart. A replica that Prometheus has not
    scraped for `late_s` (default: four periods) counts as not heard.
    """

    def __init__(
        self,
        url: str,
        *,
        slo: ScalingPolicy,
        matchers: Mapping[str, str] | None = None,
        model: str | None = None,
        replica_label: str = "instance",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
        late_s: float | None = None,
        limit_bytes: int = 64 << 20,
        context: ssl.SSLContext | None = None,
    ) -> None:
        checked_url(url)
        matchers = dict(matchers or {})
        for name in (replica_label, *matchers):
            if not _LABEL.fullmatch(name):
                raise InvalidInputError(f"{name!r:.100} is no label")
        self._url = url.rstrip("/")
        self._label = replica_label
        self._model = model
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._late_s = 4 * slo.period_s if late_s is None else late_s
        self._limit_bytes = limit_bytes
        self._context = context
        self._figures = FleetFigures(slo, hold_s=max(3 * slo.period_s, self._late_s))
        names = "|".join(sorted(NAMES))
        more = "".join(f", {name}={json.dumps(value)}" for name, value in sorted(matchers.items()))
        self._series = f'{{__name__=~"{names}"{more}}}'
        self._trouble: tuple[str, ...] = ()
        self.heard = 0
        """How many replicas were heard of in time when the fleet was observed last."""

    @property
    def trouble(self) -> tuple[str, ...]:
        return self._trouble

    async def observe(self, fleet: FleetState | None, *, time_s: float) -> Observation:
        """The fleet as Prometheus last saw it. Raises ProviderUnavailableError where it does not answer."""
        series = await self._query(self._series)
        times = {
            labels.get(self._label, ""): value
            for labels, value in await self._query(f"max by ({self._label}) (timestamp({self._series}))")
        }
        told: dict[str, list[Sample]] = {}
        for labels, value in series:
            told.setdefault(labels.get(self._label, ""), []).append(
                Sample(labels.get("__name__", ""), labels, value)
            )
        newest_s = max((one for one in times.values() if math.isfinite(one)), default=time_s)
        heard: dict[str, Figures] = {}
        late: list[str] = []
        # Prometheus' clock need not be ours: lateness shows against the others, or against ours if all are late.
        now_s = max(newest_s, time_s) if abs(newest_s - time_s) > self._late_s else newest_s
        for replica, some in told.items():
            at_s = times.get(replica, math.nan)
            if not now_s - at_s <= self._late_s:
                late.append(f"{replica} was last scraped {now_s - at_s:.0f} s ago")
                continue
            heard[replica] = figures_of(some, time_s=at_s, model=self._model)
        self.heard = len(heard)
        self._trouble = tuple(late[:20]) if told else ("Prometheus has no series of this fleet",)
        return self._figures.observed(
            heard,
            asked=tuple(told),
            time_s=time_s,
            ready=fleet.ready if fleet is not None else None,
            starting=fleet.starting if fleet is not None else 0,
        )

    async def total(self, query: str) -> float | None:
        """The sum of what a query of the caller's gives now; None where it gives nothing, or no finite number."""
        values = [value for _, value in await self._query(query)]
        return math.fsum(values) if values and all(map(math.isfinite, values)) else None

    async def _query(self, query: str) -> list[tuple[Mapping[str, str], float]]:
        """An instant vector. Queries are POSTed: they are longer than some proxies let URLs be."""
        answer = await request(
            "POST",
            f"{self._url}/api/v1/query",
            headers={"Content-Type": "application/x-www-form-urlencoded", **self._headers},
            body=urlencode({"query": query, "timeout": f"{self._timeout_s:g}s"}).encode(),
            timeout_s=self._timeout_s,
            limit_bytes=self._limit_bytes,
            context=self._context,
        )
        if answer.status != 200:
            raise ProviderUnavailableError(
                f"Prometheus at {self._url} answered {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}"
            )
        try:
            document: Any = answer.json()
            data = document["data"]
            if document["status"] != "success" or data["resultType"] != "vector":
                raise ValueError("it is no instant vector")
            if len(data["result"]) > _MOST_SERIES:
                raise ValueError(f"it has more than {_MOST_SERIES} series")
            return [
                ({str(name): str(value) for name, value in one["metric"].items()}, float(one["value"][1]))
                for one in data["result"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ProviderUnavailableError(
                f"what answers at {self._url} is no Prometheus: {error}", hint="Check the URL."
            ) from None
