"""Metrics and traces of a command, if settings ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from textnlp_fast.cli.configured import current_settings

__all__ = ["listening"]


@contextmanager
def listening() -> Iterator[None]:
    """Hears what the command does until the block ends."""
    settings = current_settings()
    if settings is None or (settings.metrics_file is None and not settings.traces):
        yield  # most commands are heard by nobody
        return
    from textnlp_fast.telemetry import enable_traces  # noqa: PLC0415
    from textnlp_fast.telemetry.textfile import metrics_file  # noqa: PLC0415

    with ExitStack() as stack:
        if settings.metrics_file is not None:
            stack.enter_context(metrics_file(settings.metrics_file))
        if settings.traces:
            stack.callback(enable_traces())
        yield
