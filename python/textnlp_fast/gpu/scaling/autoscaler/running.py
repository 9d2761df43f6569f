"""Periods under a lease, until told to stop: of several processes that scale one fleet, one acts and others watch."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from textnlp_fast.errors import ConflictError, TextnlpFastError
from textnlp_fast.gpu.scaling.autoscaler.period import FleetLoop
from textnlp_fast.gpu.scaling.autoscaler.records import DecisionRecord
from textnlp_fast.objectstore.lease import Lease, acquire

__all__ = ["Runner"]

_log = logging.getLogger("textnlp_fast.gpu.autoscaler")
_RETRY_S: Final = 5.0


class _StoppedError(Exception):
    """Told to stop while waiting for the lease."""


class Runner:
    """Runs a fleet's loop. `role` is `waiting`, `standby` (another acts) or `active`; `trouble` says what keeps it."""

    def __init__(
        self,
        loop: FleetLoop,
        *,
        holder: str,
        lease_s: float | None = None,
        told: Callable[[FleetLoop, DecisionRecord | None], None] | None = None,
    ) -> None:
        self.loop = loop
        self.role = "waiting"
        self.trouble: str | None = None
        self.settled = asyncio.Event()
        """Set once a period was made, or another was found at work."""
        self._holder = holder
        self._lease_s = max(15.0, 3 * loop.settings.period_s) if lease_s is None else lease_s
        self._told = told
        self._stop = asyncio.Event()
        self._stopped = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, on the event loop that runs."""
        self._task = asyncio.create_task(self._run(), name=f"autoscaler {self.loop.book.name}")

    async def stop(self) -> None:
        """Ends after the step that is under way, and lets another in. The fleet stays as it is."""
        self._stop.set()
        self._stopped.set()
        if self._task is not None:
            await self._task
            self._task = None
        self.role = "stopped"

    async def once(self) -> DecisionRecord | None:
        """One period under the lease, and no more. Raises ConflictError where another is at work."""
        lease = await self._acquire()
        try:
            await self.loop.take_over(lease.token)
            await self.loop.again(lambda: lease.is_held)
            record = await self.loop.period(lambda: lease.is_held)
            await self.loop.finish()
            return record
        finally:
            await asyncio.to_thread(lease.release)

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                lease = await self._acquire()
            except _StoppedError:
                return
            except ConflictError as error:
                self._say("standby", str(error.args[0]))
                self.settled.set()
                await self._pause(min(_RETRY_S, self._lease_s / 3))
                continue
            except TextnlpFastError as error:
                self._say("waiting", str(error.args[0]))
                self.settled.set()
                await self._pause(_RETRY_S)
                continue
            await self._hold(lease)

    async def _acquire(self) -> Lease:
        def sleep(seconds: float) -> None:
            if self._stopped.wait(seconds):
                raise _StoppedError

        return await asyncio.to_thread(
            acquire,
            self.loop.book.store,
            self.loop.book.lease_key,
            holder=self._holder,
            seconds=self._lease_s,
            sleep=sleep,
        )

    async def _hold(self, lease: Lease) -> None:
        """Periods, one after the other, as long as the lease holds."""
        lost = asyncio.Event()
        beating = asyncio.create_task(self._beat(lease, lost))

        def held() -> bool:
            return lease.is_held and not lost.is_set()

        try:
            await self.loop.take_over(lease.token)
            self._say("active", None)
            await self.loop.again(held)
            while not self._stop.is_set() and held():
                begun = time.monotonic()
                record = await self.loop.period(held)
                self.settled.set()
                if self._told is not None:
                    self._told(self.loop, record)
                await self._pause(max(0.0, self.loop.settings.period_s - (time.monotonic() - begun)), lost)
            if held():
                await self.loop.finish()
        except ConflictError as error:
            self._say("waiting", str(error.args[0]))
            await self._pause(1.0)
        except (TextnlpFastError, TimeoutError, asyncio.TimeoutError) as error:
            self._say("waiting", " ".join(str(error).split()))
            self.settled.set()
            await self._pause(_RETRY_S)
        except Exception:  # noqa: BLE001
            _log.exception("the autoscaler goes on after an error of its own")
            self._say("waiting", "an error of its own; see the log")
            await self._pause(_RETRY_S)
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating
            try:
                await asyncio.to_thread(lease.release)
            except TextnlpFastError as error:
                _log.warning("the lease was not given back, and runs out: %s", error.args[0])

    async def _beat(self, lease: Lease, lost: asyncio.Event) -> None:
        """Renews the lease while a period lasts as long as it lasts."""
        while lease.is_held:
            await asyncio.sleep(lease.seconds / 5)
            renewing = asyncio.ensure_future(asyncio.to_thread(lease.renew))
            try:
                await asyncio.shield(renewing)
            except asyncio.CancelledError:
                # A lease is not for two threads: it is released once this call is over.
                await asyncio.wait([renewing])
                if not renewing.cancelled():
                    renewing.exception()
                raise
            except ConflictError:
                break
            except TextnlpFastError as error:
                _log.warning("the lease could not be renewed: %s", error.args[0])
        lost.set()

    async def _pause(self, seconds: float, lost: asyncio.Event | None = None) -> None:
        """Waits, unless it is told to stop or the lease is lost."""
        waits = [asyncio.ensure_future(one.wait()) for one in (self._stop, lost) if one is not None]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    def _say(self, role: str, trouble: str | None) -> None:
        if role != self.role:
            _log.info("%s: %s%s", self.loop.book.name, role, f" ({trouble})" if trouble else "")
        self.role, self.trouble = role, trouble
