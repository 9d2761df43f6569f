"""Spans of operations, as OpenTelemetry's own exporter sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.storage import Repository
from textnlp_fast.telemetry import operation, phase

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from textnlp_fast.telemetry.traces import enable_traces


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider()


@pytest.fixture
def spans(provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = enable_traces(provider)
    yield exporter
    stop()


def test_a_push_is_a_span_with_its_parts(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    header = b'{"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    repository = Repository.open(tmp_path / "r", create=True)
    report = repository.push(tmp_path / "m.safetensors", "m", "1.0.0")
    found: dict[str, Any] = {span.name: span for span in spans.get_finished_spans()}
    push = found["textnlp_fast.push"]
    assert push.attributes["textnlp_fast.model"] == "m"
    assert push.attributes["textnlp_fast.version"] == "1.0.0"
    assert push.attributes["textnlp_fast.repository"] == repository.url
    assert push.attributes["textnlp_fast.bytes_written"] > report.stored_bytes
    for part in ("hash", "upload", "publish"):
        span = found[f"textnlp_fast.push.{part}"]
        assert span.parent.span_id == push.context.span_id
        assert push.start_time <= span.start_time <= span.end_time


def test_spans_nest_below_each_other_and_below_the_callers(
    spans: InMemorySpanExporter, provider: TracerProvider
) -> None:
    with (
        provider.get_tracer("app").start_as_current_span("app"),
        operation("publish"),
        operation("push"),
        phase("hash"),
    ):
        pass
    found: dict[str, Any] = {span.name: span for span in spans.get_finished_spans()}
    for child, parent in [
        ("textnlp_fast.push.hash", "textnlp_fast.push"),
        ("textnlp_fast.push", "textnlp_fast.publish"),
        ("textnlp_fast.publish", "app"),
    ]:
        assert found[child].parent.span_id == found[parent].context.span_id
        assert found[child].context.trace_id == found["app"].context.trace_id


def test_an_error_is_told_by_its_class_only(spans: InMemorySpanExporter) -> None:
    with pytest.raises(KeyError), operation("pull"):
        raise KeyError("a secret place")
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "KeyError"
    assert not span.status.is_ok
    assert "secret" not in span.to_json()
