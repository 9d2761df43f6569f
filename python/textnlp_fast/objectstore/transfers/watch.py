"""What a stream asks between two pieces: go on, wait, or stop."""

from __future__ import annotations

import threading
import time
from typing import Final

from textnlp_fast.errors import TransferCancelledError, TransferTimeoutError
from textnlp_fast.objectstore.transfers.bandwidth import TokenBucket
from textnlp_fast.objectstore.transfers.progress import Meter
from textnlp_fast.objectstore.transfers.protocol import BackOffError
from textnlp_fast.objectstore.transfers.settings import TransferSettings

__all__ = ["StreamWatch", "Watch"]

_NAP_S: Final = 0.1  # how long a cancelled transfer may take to notice


class StoppedError(Exception):
    """Another stream of the same transfer failed; its error is the one to report."""


class Watch:
    """Cancellation, deadline and bandwidth of one transfer. Thread-safe."""

    def __init__(self, settings: TransferSettings, meter: Meter, *, started: float | None = None) -> None:
        """``started``: by the monotonic clock, if it was not now."""
        self.settings = settings
        self.meter = meter
        started = time.monotonic() if started is None else started
        self._ends = None if settings.deadline_s is None else started + settings.deadline_s
        rate = settings.bandwidth_bytes_per_s
        self._bucket = None if rate is None else TokenBucket(rate)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Lets every stream end at its next piece."""
        self._stopped.set()

    def check(self) -> None:
        """Raises what ends the transfer, if something does."""
        if self._stopped.is_set():
            raise StoppedError
        cancel = self.settings.cancel
        if cancel is not None and cancel.is_set():
            raise TransferCancelledError("the transfer was cancelled")
        if self._ends is not None and time.monotonic() > self._ends:
            raise TransferTimeoutError(
                f"the transfer did not end within {self.settings.deadline_s:g} s; what was moved is kept"
            )

    def sleep(self, seconds: float) -> None:
        """Waits, and wakes up for whatever ends the transfer."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _NAP_S))
        self.check()

    def pay(self, size_bytes: int) -> float:
        """Counts bytes that moved and waits if they were too many; how long it waited, in seconds."""
        self.meter.add(size_bytes)
        wait_s = 0.0 if self._bucket is None else self._bucket.take(size_bytes)
        if wait_s:
            self.sleep(wait_s)
        else:
            self.check()
        return wait_s

    def stream(self) -> StreamWatch:
        """A watch for one request."""
        return StreamWatch(self)


class StreamWatch:
    """Notices when a request stands still."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._window_s = watch.settings.stall_timeout_s
        self._least_bytes = watch.settings.least_bytes_per_s * self._window_s
        self._started = time.monotonic()
        self._moved = 0
        self.total_bytes = 0
        """What this request moved."""

    def passed(self, size_bytes: int) -> None:
        """Bytes moved: counts them, waits for bandwidth. Raises what ends the stream or the transfer."""
        self._moved += size_bytes
        self.total_bytes += size_bytes
        self._started += self._watch.pay(size_bytes)  # waiting for our own cap is no stall
        if time.monotonic() - self._started > self._window_s:
            self._look()

    def idle(self) -> None:
        """Nothing moved for a moment. Raises what ends the stream or the transfer."""
        self._watch.check()
        if time.monotonic() - self._started > self._window_s:
            self._look()

    def take_back(self) -> None:
        """What this request moved has to be moved again."""
        self._watch.meter.add(-self.total_bytes)
        self.total_bytes = 0

    def _look(self) -> None:
        if self._moved < max(1.0, self._least_bytes):
            raise BackOffError(
                f"a stream moved {self._moved} bytes in {self._window_s:g} s, fewer than "
                f"{self._watch.settings.least_bytes_per_s:g} a second"
            )
        self._started, self._moved = time.monotonic(), 0
