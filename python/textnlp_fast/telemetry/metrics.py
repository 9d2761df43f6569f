"""Operations as Prometheus metrics. `docs/guide/metrics.md` lists them; needs ``prometheus-client``.

Labels are bounded: whatever names models push, a scrape stays small.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from textnlp_fast import errors
from textnlp_fast.errors import MissingPackageError
from textnlp_fast.telemetry.operations import COUNTS, Operation, listen

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["PrometheusMetrics", "enable_metrics", "prometheus"]

MOST_MODELS: Final = 200
MOST_NAMES: Final = 100
OTHER: Final = "other"
# From a push of nothing to a pull of a terabyte.
_SECONDS: Final = (0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 1800, 7200)
_COUNTERS: Final = {
    "bytes_read": "Bytes read from repositories",
    "bytes_written": "Bytes written to repositories",
    "bytes_saved": "Bytes of models that did not have to be moved",
    "retries": "Requests and conditional writes that were sent again",
    "cache_hits": "Manifests and tensors found in a cache",
    "cache_misses": "Manifests and tensors not found in a cache",
}
_OUTCOMES: Final = frozenset({"ok", *(name for name in errors.__all__ if name.endswith("Error"))})


def prometheus() -> Any:
    """The ``prometheus_client`` package. Raises MissingPackageError."""
    try:
        return import_module("prometheus_client")
    except ImportError as error:
        raise MissingPackageError(
            "metrics need prometheus-client", hint="Run: pip install 'textnlp-fast[metrics]'"
        ) from error


class Bounded:
    """Values of a label: the first so many that came up by name, all others as ``other``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        with self._lock:
            if value not in self._known:
                if len(self._known) >= self._most:
                    return OTHER
                self._known.add(value)
        return value


class PrometheusMetrics:
    """A listener that keeps counters and histograms in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        client = prometheus()
        self._operation = Bounded(MOST_NAMES)
        self._phase = Bounded(MOST_NAMES)
        self._model = Bounded(MOST_MODELS)

        def counter(name: str, what: str, *labels: str) -> Any:
            return client.Counter(f"textnlp_fast_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, *labels: str) -> Any:
            return client.Histogram(f"textnlp_fast_{name}", what, labels, registry=registry, buckets=_SECONDS)

        self._operations = counter("operations", "Operations that ended, by how", "operation", "outcome")
        self._seconds = histogram("operation_seconds", "How long operations took", "operation")
        self._phases = histogram("phase_seconds", "How long parts of operations took", "operation", "phase")
        self._counters = {name: counter(name, what, "operation") for name, what in _COUNTERS.items()}
        self._versions = counter("versions", "Versions published", "model")
        self._stored = counter("stored_bytes", "Bytes that published versions added to storage", "model")
        self._running = client.Gauge(
            "textnlp_fast_operations_running", "Operations that run now", ["operation"], registry=registry
        )
        assert {*_COUNTERS, "versions"} == set(COUNTS)

    def began(self, operation: Operation) -> None:
        self._running.labels(self._operation(operation.name)).inc()

    def ended(self, operation: Operation) -> None:
        name = self._operation(operation.name)
        self._running.labels(name).dec()
        self._operations.labels(name, operation.outcome if operation.outcome in _OUTCOMES else OTHER).inc()
        self._seconds.labels(name).observe(operation.seconds)
        self._count(name, operation.counts)
        if operation.error is None and operation.model is not None:
            model = operation.model
            if operation.counts.get("versions"):
                self._versions.labels(self._model(model)).inc(operation.counts["versions"])
            if operation.stored_bytes is not None:
                self._stored.labels(self._model(model)).inc(operation.stored_bytes)

    def phase_ended(self, operation: Operation, name: str, started_ns: int, seconds: float) -> None:
        self._phases.labels(self._operation(operation.name), self._phase(name)).observe(seconds)

    def counted(self, counts: dict[str, int]) -> None:
        self._count("none", counts)

    def _count(self, operation: str, counts: dict[str, int]) -> None:
        for name, more in counts.items():
            counter = self._counters.get(name)
            if counter is not None and more:
                counter.labels(operation).inc(more)


def enable_metrics(registry: CollectorRegistry | None = None) -> Callable[[], None]:
    """Counts every operation of this process from now on; what is returned stops that.

    In ``registry``, or in the one that ``prometheus_client`` serves by default: ``start_http_server(9000)`` shows them.
    A registry takes one such listener. Raises MissingPackageError without ``prometheus-client``.
    """
    return listen(PrometheusMetrics(registry if registry is not None else prometheus().REGISTRY))
