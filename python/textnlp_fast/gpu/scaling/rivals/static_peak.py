"""No autoscaler: as many replicas as the peak needs, always. What saving is measured by."""

from __future__ import annotations

import math

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity
from textnlp_fast.gpu.scaling.rivals.frame import Rival

__all__ = ["StaticPeak"]


class StaticPeak(Rival):
    """One number. `target_utilisation` is the share of `max_instances` that it is: 1 is all of them.

    `instances` gives the number itself. It knows the future, as whoever sized the fleet for a known peak does.
    """

    name = "static_peak"
    part = "static"

    def __init__(
        self,
        *,
        target_utilisation: float = 1.0,
        capacity: ReplicaCapacity | None = None,
        min_instances: int = 1,
        max_instances: int,
        period_s: float = 10.0,
        instances: int | None = None,
    ) -> None:
        del capacity  # A number of replicas needs none.
        super().__init__(
            target_utilisation=target_utilisation,
            min_instances=min_instances,
            max_instances=max_instances,
            period_s=period_s,
        )
        if instances is not None and not min_instances <= instances <= max_instances:
            raise InvalidInputError(
                f"instances {instances} is not from min_instances {min_instances} to max_instances {max_instances}"
            )
        # A share such as 0.7 of 10 is not quite 7 in binary.
        self.instances = (
            math.ceil(round(target_utilisation * max_instances, 9)) if instances is None else instances
        )

    def _wanted(self, observation: Observation, now_s: float, last_s: float) -> tuple[int, None]:
        return self.instances, None
