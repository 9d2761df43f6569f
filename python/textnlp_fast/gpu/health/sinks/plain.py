"""Sinks within this process: the log, and functions of whoever monitors."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable

from textnlp_fast.gpu.health.facts import Finding, Severity

__all__ = ["CallbackSink", "LogSink"]

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


class LogSink:
    """Findings as lines of a log; resolved ones at level INFO."""

    name = "log"
    timeout_s = 5.0
    repeats_s: float | None = None
    wants_open = False

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("textnlp_fast.gpu.health")

    async def deliver(self, finding: Finding) -> None:
        level = logging.INFO if finding.resolved else _LEVELS[finding.severity]
        where = f"{finding.machine} {finding.gpu}" if finding.gpu else finding.machine
        word = "resolved" if finding.resolved else finding.severity.value
        self._log.log(
            level, "%s: %s [%s] %s (%s)", where, word, finding.rule, finding.summary, finding.evidence
        )

    async def close(self) -> None:
        """Nothing is held."""


class CallbackSink:
    """A function, or a coroutine function, that is called with each finding.

    A plain function runs in a thread: one that waits keeps only its own findings waiting. One that raises is called
    again, later.
    """

    repeats_s: float | None = None
    wants_open = False

    def __init__(
        self,
        function: Callable[[Finding], Awaitable[None] | None],
        *,
        name: str = "callback",
        timeout_s: float = 60.0,
    ) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self._function = function

    async def deliver(self, finding: Finding) -> None:
        if inspect.iscoroutinefunction(self._function):
            await self._function(finding)
            return
        result = await asyncio.to_thread(self._function, finding)
        if inspect.isawaitable(result):
            await result

    async def close(self) -> None:
        """Nothing is held."""
