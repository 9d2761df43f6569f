"""The same on Kubernetes: an InferencePool of the Gateway API's inference extension, and a route to it.

There a gateway of the cluster does the balancing, asking an endpoint picker that reads the same queues and caches of
the engines. Names of fields: `inference.networking.k8s.io/v1` and `gateway.networking.k8s.io/v1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["inference_pool_manifests"]

_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_LABEL: Final = re.compile(r"(([A-Za-z0-9][A-Za-z0-9_.-]{0,61})?[A-Za-z0-9])?\Z")


def inference_pool_manifests(
    name: str,
    *,
    namespace: str,
    match_labels: Mapping[str, str],
    gateway: str,
    port: int = 8000,
    picker: str | None = None,
    picker_port: int = 9002,
    hostnames: tuple[str, ...] = (),
    request_timeout_s: int = 3600,
    weights: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """InferencePool and HTTPRoute as documents. `match_labels` pick the engines' pods, `port` is where they listen.

    `picker` is the Service of the endpoint picker, which the cluster's operator installs (default: `NAME-epp`);
    `gateway` the Gateway that the route hangs on. `weights` divide the route among pools by name, for a canary: this
    one among them. Raises InvalidInputError for names that Kubernetes would refuse.
    """
    picker = picker or f"{name}-epp"
    for what in (name, namespace, gateway, picker, *(weights or {})):
        if not _NAME.match(what):
            raise InvalidInputError(
                f"{what!r:.80} is no name of an object in Kubernetes",
                hint="Lower case letters, digits and -.",
            )
    if not match_labels or not all(_LABEL.match(value) for value in match_labels.values()):
        raise InvalidInputError("the pods of a pool are picked by one label or more, each valid")
    if not all(0 < one < 65536 for one in (port, picker_port)) or not 0 < request_timeout_s < 10**5:
        raise InvalidInputError("ports are 1 to 65535, and the time for a request is below 100000 s")
    if weights is not None and (
        name not in weights or any(not 0 <= one <= 10**6 for one in weights.values())
    ):
        raise InvalidInputError(f"weights are 0 to 1000000, and {name} has one")
    pool = {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": dict(match_labels)},
            "targetPorts": [{"number": port}],
            # Where the picker is gone the gateway picks by itself: served unevenly is better than not at all.
            "endpointPickerRef": {"name": picker, "port": {"number": picker_port}, "failureMode": "FailOpen"},
        },
    }
    backends = [
        {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": one}
        | ({} if weights is None else {"weight": weights[one]})
        for one in ([name] if weights is None else weights)
    ]
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}],
        "backendRefs": backends,
        "timeouts": {"request": f"{request_timeout_s}s"},
    }
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway}
    spec: dict[str, Any] = {"parentRefs": [parent], "rules": [rule]}
    if hostnames:
        spec["hostnames"] = list(hostnames)
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    return [pool, route]
