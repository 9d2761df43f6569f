"""How long replicas take from their order until they serve, as it was seen. Pure.

An order is a target that rose: the replica that makes the fleet `k` is ordered when the target reaches `k`, and has
come when `k` serve. So the measure is as fine as a period, and replicas that are replaced without a decision are not in
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["ColdStarts"]

_KEPT: Final = 32
_MOST_WAITING: Final = 1000
_LONGEST_S: Final = 6 * 3600.0


class ColdStarts:
    """The newest measures, and orders that have not come yet."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int]] = []
        self.measures_s: list[float] = []

    def ordered(self, time_s: float, before: int, target: int) -> None:
        """A decision told the fleet to be `target` where it was to be `before`."""
        self._waiting = [one for one in self._waiting if one[1] <= target]
        self._waiting += [(time_s, count) for count in range(before + 1, target + 1)]
        del self._waiting[:-_MOST_WAITING]

    def seen(self, time_s: float, ready: int | None) -> None:
        """So many serve now."""
        if ready is None:
            return
        left = []
        for ordered_s, count in self._waiting:
            took_s = time_s - ordered_s
            if count <= ready and took_s >= 0:
                self.measures_s.append(took_s)
            elif 0 <= took_s <= _LONGEST_S:
                left.append((ordered_s, count))
        self._waiting = left
        del self.measures_s[:-_KEPT]

    def expected_s(self, share: float = 0.9) -> float | None:
        """What so many of the newest took at most; None before the third: one slow boot is no rule."""
        if len(self.measures_s) < 3:
            return None
        ordered = sorted(self.measures_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def document(self) -> dict[str, Any]:
        return {"waiting": [list(one) for one in self._waiting], "measures_s": list(self.measures_s)}

    def restore(self, document: Mapping[str, Any] | None) -> None:
        """Takes what `document` gave; what cannot be read is measured anew."""
        try:
            waiting = [(float(at_s), int(count)) for at_s, count in (document or {}).get("waiting", [])]
            measures = [float(one) for one in (document or {}).get("measures_s", [])]
        except (TypeError, ValueError, AttributeError):
            return
        self._waiting, self.measures_s = waiting[-_MOST_WAITING:], measures[-_KEPT:]
