"""This machine's own GPUs, through the collector."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from textnlp_fast.gpu.health.collector import Collector
from textnlp_fast.gpu.health.engine import Fact

__all__ = ["LocalSource"]


class LocalSource:
    """Hands on what a collector reads every `interval_s`, and events as they come.

    Raises DeviceError where there is no driver. A `collector` that is given stays its owner's to close.
    """

    reads_gpus = True

    def __init__(
        self,
        machine: str,
        *,
        collector: Collector | None = None,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._own = collector is None
        self._collector = collector or Collector(machine=machine, period_s=interval_s)
        self.name = f"nvml {machine}"
        self.machines: tuple[str, ...] = (machine,)
        # It waits in `read` for events; the loop around it need not.
        self.interval_s = 0.0
        self.timeout_s = interval_s + 30.0
        self._period_s = interval_s
        self._first = True

    async def read(self) -> Sequence[Fact]:
        return await asyncio.to_thread(self._read)

    async def close(self) -> None:
        if self._own:
            await asyncio.to_thread(self._collector.close)

    def _read(self) -> list[Fact]:
        if self._first:
            self._first = False
            return [*self._collector.events(), *self._collector.sample()]
        events = self._collector.events(timeout_s=self._period_s)
        return [*events, *self._collector.readings()]
