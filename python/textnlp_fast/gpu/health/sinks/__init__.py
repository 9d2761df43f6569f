"""Who is told of findings, one file a sink. `outbox.py` waits for each of them, so that a slow one keeps nobody."""

from __future__ import annotations

from textnlp_fast.gpu.health.sinks.outbox import Outbox, Refused, Sink, SinkStatus

__all__ = ["Outbox", "Refused", "Sink", "SinkStatus"]
