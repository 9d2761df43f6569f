"""Requests and caches as Prometheus metrics, beside those of operations (`telemetry.metrics`)."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from textnlp_fast.service.problems import internal_problem, problem_response
from textnlp_fast.telemetry import enable_metrics
from textnlp_fast.telemetry.metrics import prometheus

if TYPE_CHECKING:
    from textnlp_fast.service.state import Service

__all__ = ["RequestMetrics", "ServiceMetrics"]

_log = logging.getLogger(__name__)
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
# What no route matched shares one name: callers choose paths, and each would be a series.
_NO_ROUTE: Final = "none"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class ServiceMetrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        client = prometheus()
        self.registry = client.CollectorRegistry()
        self._stop: Callable[[], None] | None = None
        client.ProcessCollector(registry=self.registry)
        self._requests = client.Counter(
            "textnlp_fast_http_requests",
            "Requests that were answered",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = client.Histogram(
            "textnlp_fast_http_request_seconds",
            "How long requests took, from their head to the end of their answer",
            ["route"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._running = client.Gauge(
            "textnlp_fast_http_requests_running", "Requests that are being answered", registry=self.registry
        )
        self._gauges = {
            name: client.Gauge(f"textnlp_fast_service_{name}", what, registry=self.registry)
            for name, what in (
                ("snapshot_age_seconds", "Age of what is known of the repository; -1 before it was read"),
                ("models", "Models in the repository"),
                ("versions_known", "Versions in the repository"),
                ("store_calls_running", "Calls to the store that run or wait for a thread"),
                ("heavy_calls_running", "Long calls that run or wait for a thread"),
                ("answers_bytes", "Bytes of answers that are kept"),
                ("answers_hits", "Answers that were found in the cache, since the process began"),
                ("answers_misses", "Answers that were not"),
                ("event_streams", "Event streams that are open"),
                ("event_resyncs", "Times that a stream fell behind, since the process began"),
                ("transfers_running", "Transfers that this process carries out"),
                ("transfers_open", "Transfers of all replicas that wait or run"),
            )
        }

    def begin(self) -> None:
        """Hears of operations from now on, until `close`: an application that never begins must not listen for ever."""
        if self._stop is None:
            self._stop = enable_metrics(self.registry)

    def began(self) -> None:
        self._running.inc()

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._running.dec()
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, service: Service) -> bytes:
        """All of it in Prometheus' text format."""
        snapshot = service.catalog.snapshot
        age_s = service.catalog.age_s
        running, waiting = (0, 0) if service.live is None else service.live.runner.counts()
        streams = None if service.live is None else service.live.broadcaster
        for name, value in {
            "event_streams": 0 if streams is None else streams.streams,
            "event_resyncs": 0 if streams is None else streams.dropped,
            "transfers_running": running,
            "transfers_open": waiting,
            "snapshot_age_seconds": -1.0 if age_s is None else age_s,
            "models": 0 if snapshot is None else len(snapshot.models),
            "versions_known": 0 if snapshot is None else snapshot.version_count,
            "store_calls_running": service.blocking.busy,
            "heavy_calls_running": service.heavy.busy,
            "answers_bytes": service.answers.size_bytes,
            "answers_hits": service.answers.hits,
            "answers_misses": service.answers.misses,
        }.items():
            self._gauges[name].set(value)
        text: bytes = prometheus().generate_latest(self.registry)
        return text

    def close(self) -> None:
        """Counts no more operations."""
        if self._stop is not None:
            self._stop()


class RequestMetrics:
    """ASGI middleware: counts and times requests by their route, and answers what nobody expected."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.began()
        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            incident = secrets.token_hex(8)
            _log.error("incident %s: %s %s", incident, scope["method"], scope["path"], exc_info=error)
            if status:
                raise
            await problem_response(internal_problem(incident))(scope, receive, sending)
        finally:
            self._metrics.ended(scope["method"], _route_of(scope), status, time.perf_counter() - began)


def _route_of(scope: Scope) -> str:
    route: Any = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", _NO_ROUTE))
