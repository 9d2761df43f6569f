"""When a change is worth it: an (s, S) rule over what is needed, as for a stock with a cost of ordering (Scarf 1960).

Up at once, but only when what is there would miss clearly more than the SLO allows, and then by enough for a while.
Down soon where many are too many, and after a longer while where few are: neighbouring decisions would otherwise follow
every wave of the traffic, and each replica that comes back pays its cold start again. How many are many grows with the
root of the load, as its waves do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.gpu.scaling.numbers import number, whole

__all__ = ["Steps"]

_MANY: Final = 0.7
"""Times the root of the load, in replicas."""
_HOLD_MANY_S: Final = 30.0
_HOLD_FEW_S: Final = 900.0
_MOST_GONE: Final = 0.5
"""No more than this share goes at once, whatever a quiet minute says."""
_MOST_MORE: Final = 2.0
"""No more than this many times as many are ordered at once, beyond the first few."""
_FEW: Final = 4


class Highest:
    """The highest of the values of so many seconds."""

    __slots__ = ("_since_s", "_span_s", "_values")

    def __init__(self, span_s: float) -> None:
        self._span_s, self._since_s = span_s, math.inf
        self._values: deque[tuple[float, int]] = deque()

    def add(self, time_s: float, value: int) -> int | None:
        """The highest with this one; None until the span is full."""
        values = self._values
        self._since_s = min(self._since_s, time_s)
        while values and values[-1][1] <= value:
            values.pop()
        values.append((time_s, value))
        begin = time_s - self._span_s
        while values[0][0] < begin:
            values.popleft()
        return values[0][1] if self._since_s <= begin else None

    def snapshot(self) -> Mapping[str, Any]:
        since = self._since_s if math.isfinite(self._since_s) else None
        return {"since_s": since, "values": [list(one) for one in self._values]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._since_s = math.inf if state["since_s"] is None else number(state["since_s"])
        self._values = deque((number(at), whole(value)) for at, value in state["values"])


class Steps:
    """The number of replicas wanted, kept until what is needed has left it far enough or for long enough."""

    __slots__ = ("_few", "_many", "target")

    def __init__(self, hold_s: float | None) -> None:
        self.target: int | None = None
        self._many = Highest(_HOLD_MANY_S if hold_s is None else hold_s)
        self._few = Highest(_HOLD_FEW_S if hold_s is None else hold_s)

    def take(
        self, time_s: float, needed: float, at_least: float, load: float, *, there: int, may_fall: bool
    ) -> str:
        """Moves `target`: `needed` replicas keep the SLO, with fewer than `at_least` it is clearly missed.

        It begins at what is `there`, for a first look knows too little of the traffic to send anybody away.
        The answer says what was done: hold, up or down.
        """
        wanted = math.ceil(needed)
        many, few = self._many.add(time_s, wanted), self._few.add(time_s, wanted)
        target = self.target
        if target is None:
            self.target = max(wanted, there)
            return "up" if wanted >= there else "hold"
        if at_least > target:
            self.target = min(wanted, max(target + _FEW, int(target * _MOST_MORE)))
            return "up"
        down = target
        if many is not None and target - many >= max(1.0, _MANY * math.sqrt(load)):
            down = many
        elif few is not None and few < target:
            down = few
        if down >= target or not may_fall:
            return "hold"
        self.target = max(down, int(target * _MOST_GONE))
        return "down"

    def snapshot(self) -> Mapping[str, Any]:
        return {"target": self.target, "many": self._many.snapshot(), "few": self._few.snapshot()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.target = None if state["target"] is None else whole(state["target"])
        self._many.restore(state["many"])
        self._few.restore(state["few"])
