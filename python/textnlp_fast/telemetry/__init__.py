"""What operations did, for whoever listens: metrics, traces, or nobody.

>>> from textnlp_fast.telemetry import operation
>>> with operation("push", model="gpt2", version="1.0.0") as op:
...     op.count(bytes_saved=10)
"""

from textnlp_fast.telemetry.metrics import enable_metrics
from textnlp_fast.telemetry.operations import (
    Listener,
    Operation,
    adopted,
    adopting,
    count,
    listen,
    operation,
    phase,
)
from textnlp_fast.telemetry.traces import enable_traces

__all__ = [
    "Listener",
    "Operation",
    "adopted",
    "adopting",
    "count",
    "enable_metrics",
    "enable_traces",
    "listen",
    "operation",
    "phase",
]
