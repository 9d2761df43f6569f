"""Where facts come from, one file a source. Each is asked again and again by the monitor's loops (`polling.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from textnlp_fast.gpu.health.engine import Fact

__all__ = ["Source"]


class Source(Protocol):
    """One place to ask, about one machine or several."""

    name: str
    """For people and logs: `dcgm http://...`."""
    machines: tuple[str, ...]
    """About which it tells; if it cannot be reached, that is said of each."""
    interval_s: float
    timeout_s: float
    reads_gpus: bool
    """Whether it tells of GPUs, or only of machines."""

    async def read(self) -> Sequence[Fact]:
        """What there is to tell now. Raises what went wrong: the loop says so, and asks again later."""
        ...

    async def close(self) -> None: ...
