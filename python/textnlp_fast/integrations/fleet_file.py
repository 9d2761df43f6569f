"""The file that names the fleets of a server of external metrics.

fleets:
  - namespace: prod
    labels: {fleet: llama}
    settings: {metricName: llm-replicas, metricsUrl: "http://prometheus.monitoring:9090", maxInstances: 20}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.fleet_settings import FleetSettings, read_fleet

__all__ = ["NamedFleet", "read_fleets"]

_EXAMPLE = "The guide, gpu-autoscaler-engines.md, shows one."


@dataclass(frozen=True, kw_only=True)
class NamedFleet:
    """A fleet, and under which namespace and labels its metric is found."""

    namespace: str
    labels: Mapping[str, str]
    settings: FleetSettings


def read_fleets(path: Path) -> list[NamedFleet]:
    """Raises InvalidInputError that says which fleet is wrong, and in what."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from None
    fleets = document.get("fleets") if isinstance(document, dict) else None
    if not isinstance(fleets, list) or not fleets or set(document) != {"fleets"}:
        raise InvalidInputError(
            f"{path} must be a list of fleets under `fleets`, and nothing else", hint=_EXAMPLE
        )
    found = [_fleet(f"{path}, fleet {number}", one) for number, one in enumerate(fleets, 1)]
    seen: set[tuple[str, str, tuple[tuple[str, str], ...]]] = set()
    for number, one in enumerate(found, 1):
        key = (one.namespace, one.settings.metric_name, tuple(sorted(one.labels.items())))
        if key in seen:
            raise InvalidInputError(
                f"{path}, fleet {number}: another fleet has the same namespace, metric and labels",
                hint="Give each fleet labels of its own: an HPA would add the two up.",
            )
        seen.add(key)
    return found


def _fleet(where: str, one: Any) -> NamedFleet:
    if not isinstance(one, dict) or not {"namespace", "settings"} <= set(one) <= {
        "namespace",
        "labels",
        "settings",
    }:
        raise InvalidInputError(f"{where}: needs namespace and settings, and may have labels", hint=_EXAMPLE)
    namespace, labels, settings = one["namespace"], one.get("labels") or {}, one["settings"]
    texts = isinstance(labels, dict) and all(
        isinstance(text, str) for pair in labels.items() for text in pair
    )
    if not isinstance(namespace, str) or not namespace or not texts or not isinstance(settings, dict):
        raise InvalidInputError(
            f"{where}: namespace and labels are texts, settings are a mapping", hint=_EXAMPLE
        )
    try:
        return NamedFleet(
            namespace=namespace,
            labels=labels,
            settings=read_fleet({str(name): str(value) for name, value in settings.items()}),
        )
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error.args[0]}", hint=error.hint) from None
