"""The GPU fleet: what it costs, what to rent, renting it, and whether it is well.

Nothing here imports a cloud's SDK, and names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False

if TYPE_CHECKING:
    from textnlp_fast.gpu.catalog import Catalog
    from textnlp_fast.gpu.health.fleet import FleetHealth, fleet_health
    from textnlp_fast.gpu.health.monitor import GPUHealthMonitorManager
    from textnlp_fast.gpu.recommender import ModelShape, Workload, recommend
    from textnlp_fast.gpu.resources import AcquireRequest, Budget, GPUResourceManager
    from textnlp_fast.gpu.scaling.autoscaler import GPUAutoscalerManager
    from textnlp_fast.gpu.scaling.policy import ScalingPolicy
    from textnlp_fast.gpu.types import GPUSpec, GPUType, InstanceType, Market, Offer

# Where each public name lives.
_HOMES = {
    "AcquireRequest": "textnlp_fast.gpu.resources",
    "Budget": "textnlp_fast.gpu.resources",
    "Catalog": "textnlp_fast.gpu.catalog",
    "FleetHealth": "textnlp_fast.gpu.health.fleet",
    "GPUAutoscalerManager": "textnlp_fast.gpu.scaling.autoscaler",
    "GPUHealthMonitorManager": "textnlp_fast.gpu.health.monitor",
    "GPUResourceManager": "textnlp_fast.gpu.resources",
    "GPUSpec": "textnlp_fast.gpu.types",
    "GPUType": "textnlp_fast.gpu.types",
    "InstanceType": "textnlp_fast.gpu.types",
    "Market": "textnlp_fast.gpu.types",
    "ModelShape": "textnlp_fast.gpu.recommender",
    "Offer": "textnlp_fast.gpu.types",
    "ScalingPolicy": "textnlp_fast.gpu.scaling.policy",
    "Workload": "textnlp_fast.gpu.recommender",
    "fleet_health": "textnlp_fast.gpu.health.fleet",
    "recommend": "textnlp_fast.gpu.recommender",
}

__all__ = [
    "AcquireRequest",
    "Budget",
    "Catalog",
    "FleetHealth",
    "GPUAutoscalerManager",
    "GPUHealthMonitorManager",
    "GPUResourceManager",
    "GPUSpec",
    "GPUType",
    "InstanceType",
    "Market",
    "ModelShape",
    "Offer",
    "ScalingPolicy",
    "Workload",
    "fleet_health",
    "recommend",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
