"""How far a transfer has come, and how fast it goes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Meter", "TransferProgress"]

_REMEMBERED_S: Final = 10.0  # the rate shown is that of the last seconds: networks change


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """One moment of a transfer. ``done_bytes`` counts what an earlier run had moved, too, which is
    ``resumed_bytes``; the rate is that of the last ten seconds of this run."""

    done_bytes: int
    total_bytes: int
    resumed_bytes: int
    rate_bytes_per_s: float
    eta_s: float | None
    """Seconds to the end at this rate; ``None`` while nobody can say."""
    parts_done: int
    parts_total: int
    streams: int
    retries: int

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return self.done_bytes / self.total_bytes if self.total_bytes else 1.0


class Meter:
    """Counts what streams move. Thread-safe."""

    def __init__(
        self, total_bytes: int, parts_total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._total_bytes = total_bytes
        self._parts_total = parts_total
        self._resumed_bytes = 0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])
        self.moved_bytes = 0
        """Bytes this run moved; those of a part that has to be moved again no longer count."""
        self.parts_done = 0
        self.streams = 0
        self.retries = 0

    def resumed(self, parts: int, size_bytes: int) -> None:
        """Parts that an earlier run had moved."""
        with self._lock:
            self.parts_done += parts
            self._resumed_bytes += size_bytes

    def add(self, size_bytes: int) -> None:
        """Bytes that moved; negative for those that do not count after all."""
        with self._lock:
            self.moved_bytes += size_bytes

    def part_done(self) -> None:
        with self._lock:
            self.parts_done += 1

    def retried(self) -> None:
        with self._lock:
            self.retries += 1

    def now(self) -> TransferProgress:
        """This moment."""
        with self._lock:
            moment = self._clock()
            self._samples.append((moment, self.moved_bytes))
            while len(self._samples) > 2 and moment - self._samples[0][0] > _REMEMBERED_S:
                self._samples.popleft()
            since, before = self._samples[0]
            rate = max(0.0, (self.moved_bytes - before) / max(moment - since, 1e-9))
            done = min(self._total_bytes, self._resumed_bytes + self.moved_bytes)
            left = self._total_bytes - done
            eta_s = 0.0 if left == 0 else left / rate if rate > 0 else None
            return TransferProgress(
                done,
                self._total_bytes,
                self._resumed_bytes,
                rate,
                eta_s,
                self.parts_done,
                self._parts_total,
                self.streams,
                self.retries,
            )
