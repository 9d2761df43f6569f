"""Observes by scraping each replica's /metrics: several at once, each with its deadline and its limit."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError, TextnlpFastError
from textnlp_fast.gpu.health.http import checked_url, request
from textnlp_fast.gpu.health.prometheus_text import samples
from textnlp_fast.gpu.scaling.actuators.contract import FleetState
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.gpu.scaling.signals.engines import Figures, figures_of
from textnlp_fast.gpu.scaling.signals.figures import FleetFigures

__all__ = ["ReplicaScraper"]

_TOLD: Final = 20


class ReplicaScraper:
    """Scrapes `urls`; where none are given, each ready replica that the actuator knows an address of.

    `port` and `path` are for those addresses. One answer may have `limit_bytes`, and at most `at_once` are under way;
    `timeout_s` bounds one scrape, and twice that the whole observation: who is later counts as not heard.
    """

    def __init__(
        self,
        urls: Sequence[str] = (),
        *,
        slo: ScalingPolicy,
        model: str | None = None,
        port: int = 8000,
        path: str = "/metrics",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 3.0,
        at_once: int = 32,
        limit_bytes: int = 4 << 20,
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(urls, str):
            raise InvalidInputError("a list of URLs is wanted, not one", hint="Put it in brackets.")
        if timeout_s <= 0 or at_once < 1:
            raise InvalidInputError("timeout_s and at_once must be positive")
        self._urls = tuple(dict.fromkeys(_metrics_url(url) for url in urls))
        self._model = model
        self._port, self._path = port, path
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._at_once = at_once
        self._limit_bytes = limit_bytes
        self._context = context
        self._clock = clock
        self._figures = FleetFigures(slo)
        self._trouble: tuple[str, ...] = ()

    @property
    def trouble(self) -> tuple[str, ...]:
        return self._trouble

    async def observe(self, fleet: FleetState | None, *, time_s: float) -> Observation:
        """The fleet, of those replicas that answered in time."""
        urls = self._urls or self._addresses(fleet)
        gate = asyncio.Semaphore(self._at_once)
        tasks = {url: asyncio.create_task(self._scrape(url, gate)) for url in urls}
        heard: dict[str, Figures] = {}
        trouble: list[str] = []
        if tasks:
            await asyncio.wait(tasks.values(), timeout=2 * self._timeout_s)
            late = [task for task in tasks.values() if not task.done()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for url, task in tasks.items():
            if task.cancelled():
                trouble.append(f"{url} was not heard in time")
            elif (error := task.exception()) is None:
                heard[url] = task.result()
            elif isinstance(error, TextnlpFastError):
                trouble.append(str(error.args[0]))
            else:
                raise error
        self._trouble = tuple(trouble[:_TOLD])
        ready = fleet.ready if fleet is not None else None
        return self._figures.observed(
            heard,
            asked=urls,
            time_s=time_s,
            ready=ready,
            starting=fleet.starting if fleet is not None else 0,
        )

    def _addresses(self, fleet: FleetState | None) -> tuple[str, ...]:
        found = (
            [one.address for one in fleet.replicas if one.state == "ready" and one.address] if fleet else []
        )
        hosts = [f"[{host}]" if ":" in host else host for host in found]
        return tuple(dict.fromkeys(f"http://{host}:{self._port}{self._path}" for host in hosts))

    async def _scrape(self, url: str, gate: asyncio.Semaphore) -> Figures:
        async with gate:
            answer = await request(
                "GET",
                url,
                headers={"Accept": "text/plain;version=0.0.4", **self._headers},
                timeout_s=self._timeout_s,
                limit_bytes=self._limit_bytes,
                context=self._context,
            )
            at_s = self._clock()
        if answer.status != 200:
            raise ProviderUnavailableError(f"{url} answered {answer.status}")
        found = figures_of(samples(answer.body.decode("utf-8", "replace")), time_s=at_s, model=self._model)
        if not found.gauges and not found.counters:
            raise ProviderUnavailableError(f"{url} exports no metrics of vLLM, SGLang or TGI")
        return found


def _metrics_url(url: str) -> str:
    """A URL with the path that engines serve, where it has none."""
    parts = checked_url(url)
    return url.rstrip("/") + "/metrics" if parts.path in ("", "/") and not parts.query else url
