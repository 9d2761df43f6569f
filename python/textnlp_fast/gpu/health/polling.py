"""The loop around one source: deadlines, patience with failures, and saying so when nothing is heard.

A source that cannot be read is a fact like any other (`agent-unreachable`), never an end of the loop and never silence.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from textnlp_fast.errors import ProviderUnavailableError, TextnlpFastError
from textnlp_fast.gpu.health.engine import Fact
from textnlp_fast.gpu.health.facts import Event
from textnlp_fast.gpu.health.sources import Source

__all__ = ["Poller"]

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_S: Final = 60.0
_GRACE_S: Final = 5.0


class Poller:
    """Reads one source until it is cancelled, and hands on what it tells.

    Reads that fail are repeated after a random pause that grows to a minute. After `failures_told` of them in a row, or
    at once where nothing was ever heard, each machine of the source is told to be out of reach.
    """

    def __init__(
        self,
        source: Source,
        take: Callable[[Sequence[Fact]], None],
        *,
        failures_told: int = 2,
        clock: Callable[[], float] = time.time,
        random_: Callable[[], float] = random.random,
    ) -> None:
        self.source = source
        self.heard_s: float | None = None
        self.error: BaseException | None = None
        self.failures = 0
        self._take = take
        self._failures_told = failures_told
        self._clock = clock
        self._random = random_
        self._out_of_reach = False

    async def once(self) -> float:
        """Reads once. Returns how long to wait before the next."""
        begun = time.monotonic()
        try:
            facts = await asyncio.wait_for(self.source.read(), self.source.timeout_s + _GRACE_S)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a source fails with is told, and the loop goes on
            self._failed(error)
            limit_s = min(_LONGEST_PAUSE_S, max(0.05, self.source.interval_s) * 2.0 ** min(self.failures, 10))
            return limit_s * (0.5 + 0.5 * self._random())
        self._answered(facts)
        return max(0.0, self.source.interval_s - (time.monotonic() - begun))

    def late(self, waited_s: float) -> None:
        """The first read was given up after `waited_s`: nothing is known, which is to be said like a failure."""
        if self.heard_s is None and self.error is None:
            self._failed(ProviderUnavailableError(f"no answer within {waited_s:g} s"))

    @property
    def trouble(self) -> str | None:
        """What the last read failed with, in a line; None: it did not."""
        return None if self.error is None else _in_a_line(self.error)

    async def run(self, pause_s: float = 0.0) -> None:
        """Reads again and again, first after `pause_s`."""
        try:
            while True:
                await asyncio.sleep(pause_s)
                # Even a source that answers at once and wants no pause lets others run.
                pause_s = max(0.001, await self.once())
        finally:
            await self._close()

    async def _close(self) -> None:
        try:
            await asyncio.wait_for(self.source.close(), _GRACE_S)
        except Exception:  # noqa: BLE001 - it is not needed any more
            _log.debug("closing %s failed", self.source.name, exc_info=True)

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        self.error = error
        _log.debug("%s: %s", self.source.name, error)
        if self._out_of_reach or (self.heard_s is not None and self.failures < self._failures_told):
            return
        self._out_of_reach = True
        self._take(self._events("agent-unreachable", f"{self.source.name}: {_in_a_line(error)}"[:300]))

    def _answered(self, facts: Sequence[Fact]) -> None:
        self.heard_s = self._clock()
        self.failures, self.error = 0, None
        if self._out_of_reach:
            self._out_of_reach = False
            facts = [*self._events("agent-reachable", self.source.name), *facts]
        if facts:
            self._take(facts)

    def _events(self, kind: str, text: str) -> list[Fact]:
        at_s = self._clock()
        return [
            Event(
                machine=machine,
                kind=kind,
                at_s=at_s,
                text=text,
                source="agent",
                details={"id": self.source.name},
            )
            for machine in self.source.machines
        ]


def _in_a_line(error: BaseException) -> str:
    """What went wrong. A hint is told only where it is about this error: the general ones are about other calls."""
    if isinstance(error, TextnlpFastError) and error.args:
        about = f" ({error.hint})" if error.hint and error.hint != error.default_hint else ""
        return " ".join(f"{error.args[0]}{about}".split())
    return " ".join(str(error).split()) or type(error).__name__
