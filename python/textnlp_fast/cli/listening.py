"""Metrics and traces of a command, if settings ask for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["listening"]


@contextmanager
def listening() -> Iterator[None]:
    """Hears what the command does until the block ends."""
    # Most commands are heard by nobody: they should not wait for settings to be loaded.
    if not any(
        os.environ.get(f"TEXTNLP_FAST_{name}") for name in ("METRICS_FILE", "TRACES", "CONFIG", "ENV_FILE")
    ):
        yield
        return
    from textnlp_fast.config import load_settings  # noqa: PLC0415
    from textnlp_fast.telemetry import enable_traces  # noqa: PLC0415
    from textnlp_fast.telemetry.textfile import metrics_file  # noqa: PLC0415

    settings = load_settings()
    with ExitStack() as stack:
        if settings.metrics_file is not None:
            stack.enter_context(metrics_file(settings.metrics_file))
        if settings.traces:
            stack.callback(enable_traces())
        yield
