"""One bucket of tokens that all streams of a transfer, or of several, take from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["TokenBucket"]

_BURST_S: Final = 0.25


class TokenBucket:
    """At most ``rate_bytes_per_s`` on average, with bursts of a quarter of a second. Thread-safe.

    Bytes are paid for when they have moved: a stream that took more than there was waits afterwards, so that a
    piece may be larger than the burst.
    """

    def __init__(self, rate_bytes_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate_bytes_per_s
        self._burst = rate_bytes_per_s * _BURST_S
        self._clock = clock
        self._tokens = self._burst
        self._filled = clock()
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> float:
        """Pays for bytes; how many seconds the caller has to wait before it moves more."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
            self._tokens -= size_bytes
            return max(0.0, -self._tokens / self._rate)
