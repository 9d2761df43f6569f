"""Operations as OpenTelemetry spans, one for each and one for each of their parts; needs ``opentelemetry-api``.

Who exports them where is the application's to set up, as for all its other spans.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from textnlp_fast.errors import MissingPackageError
from textnlp_fast.telemetry.operations import Operation, listen

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["Traces", "enable_traces"]


class Traces:
    """A listener that makes spans with ``provider``'s tracer, below the span that is current where they begin."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            self._trace: Any = import_module("opentelemetry.trace")
        except ImportError as error:
            raise MissingPackageError(
                "traces need opentelemetry-api", hint="Run: pip install 'textnlp-fast[traces]'"
            ) from error
        self._tracer = self._trace.get_tracer("textnlp_fast", tracer_provider=provider)
        self._spans: dict[int, Any] = {}
        self._lock = threading.Lock()

    def began(self, operation: Operation) -> None:
        parent = self._span_of(operation.parent)
        context = self._trace.set_span_in_context(parent) if parent is not None else None
        attributes = {
            f"textnlp_fast.{name}": value
            for name in ("model", "version", "repository")
            if (value := getattr(operation, name)) is not None
        }
        span = self._tracer.start_span(
            f"textnlp_fast.{operation.name}",
            context=context,
            attributes=attributes,
            start_time=operation.started_ns,
        )
        with self._lock:
            self._spans[id(operation)] = span

    def ended(self, operation: Operation) -> None:
        with self._lock:
            span = self._spans.pop(id(operation), None)
        if span is None:
            return
        for name, value in operation.counts.items():
            span.set_attribute(f"textnlp_fast.{name}", value)
        if operation.error is not None:
            # The class only: a message may hold what should not leave this machine.
            span.set_attribute("error.type", operation.outcome)
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(end_time=operation.started_ns + int(operation.seconds * 1e9))

    def phase_ended(self, operation: Operation, name: str, started_ns: int, seconds: float) -> None:
        parent = self._span_of(operation)
        if parent is None:
            return
        context = self._trace.set_span_in_context(parent)
        span = self._tracer.start_span(
            f"textnlp_fast.{operation.name}.{name}", context=context, start_time=started_ns
        )
        span.end(end_time=started_ns + int(seconds * 1e9))

    def counted(self, counts: dict[str, int]) -> None:
        """What belongs to no operation belongs to no span."""

    def _span_of(self, operation: Operation | None) -> Any:
        with self._lock:
            return None if operation is None else self._spans.get(id(operation))


def enable_traces(provider: TracerProvider | None = None) -> Callable[[], None]:
    """Makes a span of every operation of this process from now on; what is returned stops that.

    With ``provider``, or OpenTelemetry's global one. Raises MissingPackageError without ``opentelemetry-api``.
    """
    return listen(Traces(provider))
