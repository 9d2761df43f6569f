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

# More streams are kept if the rate grew at least so much: a third of what they would bring if nothing held them back.
_DOUBLE_PAYS: Final = 1.25
_QUARTER_PAYS: Final = 1.08
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
    _barrier: int = 0
    """As many streams did not pay, or were refused; 0: none did. Fewer may be tried at any time."""
    _pause: int = 0
    """Stretches until the barrier may be tried again."""
    _next_pause: int = _FIRST_PAUSE

    def __post_init__(self) -> None:
        self.streams = max(1, min(self.streams, self.most))

    def observe(self, rate_bytes_per_s: float) -> None:
        """A stretch of time with ``streams`` streams has passed, at this rate in all."""
        self._pause = max(0, self._pause - 1)
        if self._before:
            pays = _DOUBLE_PAYS if self.streams >= 2 * self._before else _QUARTER_PAYS
            if rate_bytes_per_s < self._base_rate * pays:
                self._stop_at(self.streams)
                self.streams = self._before
                self._before = 0
                return
            if self.streams >= self._barrier:
                self._barrier, self._next_pause = 0, _FIRST_PAUSE
        self._before = 0
        self._base_rate = rate_bytes_per_s
        step = self.streams if self._doubling else max(1, self.streams // 4)
        wanted = min(self.most, self.streams + step)
        if self._barrier and wanted >= self._barrier and self._pause:
            wanted = self._barrier - 1
        if wanted > self.streams:
            self._before = self.streams
            self.streams = wanted

    def refused(self) -> None:
        """The other side wants less: half the streams, at least one, and a pause before as many again."""
        self._stop_at(self.streams)
        self.streams = max(1, self.streams // 2)
        self._before = 0

    def _stop_at(self, streams: int) -> None:
        self._doubling = False
        self._barrier = streams
        self._pause = self._next_pause
        self._next_pause = min(_LONGEST_PAUSE, self._next_pause * 2)
