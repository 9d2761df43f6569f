"""Other autoscalers, rebuilt from their published code, so that ours is measured against them on the same traces.

Each takes one setting that a frontier is swept over, the utilisation that it aims at, and else its published defaults.
`docs/studies/autoscaling-rivals.md` says of each what was read, what was simplified, and what that means.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity

__all__ = ["RIVALS", "rival"]

_CLASSES = {
    "knative": ("knative", "KnativePodAutoscaler"),
    "hpa": ("hpa", "HorizontalPodAutoscaler"),
    "ray_serve": ("ray_serve", "RayServeAutoscaler"),
    "skyserve": ("skyserve", "SkyServeAutoscaler"),
    "wva": ("wva", "WorkloadVariantAutoscaler"),
    "static_peak": ("static_peak", "StaticPeak"),
}

RIVALS: tuple[str, ...] = tuple(_CLASSES)
"""The names that `rival` knows."""


def rival(
    name: str,
    *,
    target_utilisation: float,
    capacity: ReplicaCapacity,
    min_instances: int,
    max_instances: int,
    cold_start: ColdStart,
    period_s: float,
) -> Policy:
    """The rival of that name, at its published defaults but for the utilisation that it aims at.

    `period_s` is the spacing of observations: the first one stands for that long. None of them knows of a cold start,
    so `cold_start` changes nothing: it is taken so that all policies are made alike.
    """
    if name not in _CLASSES:
        raise InvalidInputError(f"no rival is called {name!r}", hint=f"There are {', '.join(RIVALS)}.")
    module, class_name = _CLASSES[name]
    made: Policy = getattr(import_module(f"{__name__}.{module}"), class_name)(
        target_utilisation=target_utilisation,
        capacity=capacity,
        min_instances=min_instances,
        max_instances=max_instances,
        period_s=period_s,
    )
    return made
