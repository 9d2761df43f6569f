"""What waits to be delivered to one sink: at least once, in the newest form, within bounded memory.

A finding that changes while it waits is delivered once, as it is then. What waits goes with the monitor's state, so
that a monitor that was killed delivers it after it is started again. When too much waits, the oldest of the mildest
is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from textnlp_fast.errors import CorruptDataError
from textnlp_fast.gpu.health.facts import Action, Finding, Severity
from textnlp_fast.gpu.health.rules import severity_rank

__all__ = ["Outbox", "Refused", "Sink", "SinkStatus", "finding_of"]

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_S: Final = 60.0
_Place = tuple[str, str | None, str]


class Refused(Exception):
    """A sink will never take this finding: it is dropped and counted, not tried again."""


class Sink(Protocol):
    """Takes findings, one at a time. `name` is its own among the monitor's."""

    name: str
    timeout_s: float
    repeats_s: float | None
    """Open findings are delivered again after so long; None: never."""
    wants_open: bool
    """Whether it has to be told again at a start of all that is open: it shows a state, not news."""

    async def deliver(self, finding: Finding) -> None:
        """Raises Refused for one that it will never take, anything else where it should be tried again."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SinkStatus:
    """How a sink does."""

    delivered: int
    waiting: int
    dropped: int
    refused: int
    failures: int
    """In a row, up to now."""
    error: str | None


class Outbox:
    """The queue of one sink, and the task that empties it."""

    def __init__(
        self,
        sink: Sink,
        *,
        most: int = 1000,
        first_pause_s: float = 0.5,
        random_: Callable[[], float] = random.random,
    ) -> None:
        self.sink = sink
        self._most = most
        self._first_pause_s = first_pause_s
        self._random = random_
        self._waiting: OrderedDict[_Place, Finding] = OrderedDict()
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._delivered = self._dropped = self._refused = self._failures = 0
        self._error: str | None = None

    def status(self) -> SinkStatus:
        """How the sink does."""
        return SinkStatus(
            delivered=self._delivered,
            waiting=len(self._waiting),
            dropped=self._dropped,
            refused=self._refused,
            failures=self._failures,
            error=self._error,
        )

    def put(self, findings: Iterable[Finding]) -> None:
        """Has findings delivered."""
        for finding in findings:
            place = (finding.machine, finding.gpu, finding.rule)
            self._waiting[place] = finding
            if len(self._waiting) > self._most:
                # What is over is known to be open elsewhere: it goes last.
                mildest = min(
                    self._waiting.items(), key=lambda one: (one[1].resolved, severity_rank(one[1].severity))
                )[0]
                del self._waiting[mildest]
                self._dropped += 1
                _log.warning("%s: too much waits; a finding was dropped", self.sink.name)
        if self._waiting:
            self._empty.clear()
            self._news.set()

    async def run(self) -> None:
        """Delivers until it is cancelled."""
        while True:
            if not self._waiting:
                self._empty.set()
                self._news.clear()
                await self._news.wait()
            place, finding = next(iter(self._waiting.items()))
            if await self._tried(finding):
                if self._waiting.get(place) is finding:
                    del self._waiting[place]
                continue
            limit_s = min(_LONGEST_PAUSE_S, self._first_pause_s * 2.0 ** min(self._failures - 1, 16))
            await asyncio.sleep(limit_s * (0.5 + 0.5 * self._random()))

    async def drained(self, timeout_s: float) -> bool:
        """Waits until nothing waits any more; False if it took longer."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            return False
        return True

    def document(self) -> list[dict[str, Any]]:
        """What waits, as JSON has it."""
        return [asdict(finding) for finding in self._waiting.values()]

    def restore(self, document: Sequence[Mapping[str, Any]]) -> None:
        """Takes up what waited before."""
        self.put([finding_of(one) for one in document])

    async def _tried(self, finding: Finding) -> bool:
        """Whether it is done with: delivered, or never to be."""
        try:
            await asyncio.wait_for(self.sink.deliver(finding), self.sink.timeout_s)
        except asyncio.CancelledError:
            raise
        except Refused as error:
            self._refused += 1
            self._error = str(error)
            _log.warning("%s refused a finding: %s", self.sink.name, error)
            return True
        except Exception as error:  # noqa: BLE001 - a sink that fails is tried again; the monitor goes on
            self._failures += 1
            self._error = f"{type(error).__name__}: {error}"[:300]
            _log.debug("%s: %s", self.sink.name, self._error)
            return False
        self._delivered += 1
        self._failures, self._error = 0, None
        return True


def finding_of(document: Mapping[str, Any]) -> Finding:
    """The finding that `asdict` made a document of. Raises CorruptDataError."""
    try:
        values = {
            **document,
            "severity": Severity(document["severity"]),
            "action": Action(document["action"]),
        }
        return Finding(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"this is no finding: {error}") from None
