"""How many streams to use: more while that makes it faster, fewer when the other side asks for it.

A pure controller: it is told what a stretch of time brought, and says how many streams the next may have. Doubling
finds the right order of magnitude, steps of a quarter the rest. A step that does not pay is taken back and tried
again after a pause that doubles, for the network may have changed. A refusal (429, 503, a timeout) takes
half, and what was refused is not asked for again soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["StreamController"]

_PAYS: Final = 1.05  # more streams are kept if the rate grew at least so much
_FIRST_PAUSE: Final = 4
_LONGEST_PAUSE: Final = 64


@dataclass(slots=True)
class StreamController:
    """``streams`` is the answer, from 1 to ``most``."""

    most: int
    streams: int = 4

    _doubling: bool = True
    _before: int = 0
    """How many streams there were before the step on trial; 0: no step is on trial."""
    _base_rate: float = 0.0
    _pause: int = 0
    _next_pause: int = _FIRST_PAUSE

    def __post_init__(self) -> None:
        self.streams = max(1, min(self.streams, self.most))

    def observe(self, rate_bytes_per_s: float) -> None:
        """A stretch of time with ``streams`` streams has passed, at this rate in all."""
        if self._before:
            if rate_bytes_per_s >= self._base_rate * _PAYS:
                self._next_pause = _FIRST_PAUSE
            else:
                self.streams = self._before
                self._doubling = False
                self._rest()
                self._before = 0
                return
        self._before = 0
        self._base_rate = rate_bytes_per_s
        if self._pause:
            self._pause -= 1
        elif self.streams < self.most:
            self._before = self.streams
            step = self.streams if self._doubling else max(1, self.streams // 4)
            self.streams = min(self.most, self.streams + step)

    def refused(self) -> None:
        """The other side wants less: half the streams, at least one, and a pause before more."""
        self.streams = max(1, self.streams // 2)
        self._doubling = False
        self._before = 0
        self._rest()

    def _rest(self) -> None:
        self._pause = self._next_pause
        self._next_pause = min(_LONGEST_PAUSE, self._next_pause * 2)
