"""One description of a deployment, compiled to what runs it, changed and fronted.

>>> from textnlp_fast.adapter import Deployment, Model
>>> chat = Deployment(name="chat", model=Model(reference="llama@champion", repository="s3://bucket/models"))

Names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False

if TYPE_CHECKING:
    from textnlp_fast.adapter.description import (
        Cache,
        Deployment,
        Load,
        Machines,
        Model,
        Placement,
        Slo,
        Spot,
    )
    from textnlp_fast.adapter.engine_settings import Engine, SecretRef
    from textnlp_fast.adapter.fronts import Autoscaling, Gateway
    from textnlp_fast.adapter.planning import DeploymentPlan, make_plan
    from textnlp_fast.adapter.reading import document_of, parse_deployment, read_deployment
    from textnlp_fast.adapter.rollout_settings import HealthCheck, Rollout
    from textnlp_fast.adapter.targets import compile_plan

# Where each public name lives.
_HOMES = {
    "Autoscaling": "textnlp_fast.adapter.fronts",
    "Cache": "textnlp_fast.adapter.description",
    "Deployment": "textnlp_fast.adapter.description",
    "DeploymentPlan": "textnlp_fast.adapter.planning",
    "Engine": "textnlp_fast.adapter.engine_settings",
    "Gateway": "textnlp_fast.adapter.fronts",
    "HealthCheck": "textnlp_fast.adapter.rollout_settings",
    "Load": "textnlp_fast.adapter.description",
    "Machines": "textnlp_fast.adapter.description",
    "Model": "textnlp_fast.adapter.description",
    "Placement": "textnlp_fast.adapter.description",
    "Rollout": "textnlp_fast.adapter.rollout_settings",
    "SecretRef": "textnlp_fast.adapter.engine_settings",
    "Slo": "textnlp_fast.adapter.description",
    "Spot": "textnlp_fast.adapter.description",
    "compile_plan": "textnlp_fast.adapter.targets",
    "document_of": "textnlp_fast.adapter.reading",
    "make_plan": "textnlp_fast.adapter.planning",
    "parse_deployment": "textnlp_fast.adapter.reading",
    "read_deployment": "textnlp_fast.adapter.reading",
}

__all__ = [
    "Autoscaling",
    "Cache",
    "Deployment",
    "DeploymentPlan",
    "Engine",
    "Gateway",
    "HealthCheck",
    "Load",
    "Machines",
    "Model",
    "Placement",
    "Rollout",
    "SecretRef",
    "Slo",
    "Spot",
    "compile_plan",
    "document_of",
    "make_plan",
    "parse_deployment",
    "read_deployment",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
