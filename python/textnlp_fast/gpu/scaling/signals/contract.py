"""What every observer does: looks at a fleet once, within a time limit of its own."""

from __future__ import annotations

from typing import Protocol

from textnlp_fast.gpu.scaling.actuators.contract import FleetState
from textnlp_fast.gpu.scaling.observation import Observation

__all__ = ["Observer"]


class Observer(Protocol):
    """For one event loop; observations of one fleet come one after the other."""

    async def observe(self, fleet: FleetState | None, *, time_s: float) -> Observation:
        """The fleet at `time_s`. `fleet` is what its actuator read; None: it could not be asked.

        Raises ProviderUnavailableError and its like where nothing could be asked at all.
        """

    @property
    def trouble(self) -> tuple[str, ...]:
        """What went wrong with the last observation, a sentence for each replica or server."""
