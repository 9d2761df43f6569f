"""Values that are good for a while."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from textnlp_fast.service.caching import SingleFlight

__all__ = ["Recent"]

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """A value that is made again when it is older than `age_s`, once for all who ask. For one event loop."""

    def __init__(self, make: Callable[[], Awaitable[Value]], age_s: float) -> None:
        self._make = make
        self._age_s = age_s
        self._flight = SingleFlight()
        self._kept: tuple[float, Value] | None = None

    async def get(self) -> Value:
        """The value. Raises what making it raises."""
        if self._kept is not None and time.monotonic() - self._kept[0] < self._age_s:
            return self._kept[1]
        return await self._flight.run("it", self._again)

    async def _again(self) -> Value:
        began = time.monotonic()
        value = await self._make()
        self._kept = (began, value)
        return value
