"""A fleet from texts, as in a ScaledObject or a settings file: what to observe, and the policy's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from textnlp_fast.gpu.scaling.policy import ScalingPolicy
from textnlp_fast.integrations.hpa import DEFAULT_TOLERANCE
from textnlp_fast.integrations.policy_settings import NAMES, SettingError, read_number, read_policy, snake

__all__ = ["DEFAULT_METRIC", "FleetSettings", "read_fleet"]

DEFAULT_METRIC: Final = "textnlp-fast-replicas"
#: KEDA's own, which it passes on with the rest.
_KEDAS: Final = frozenset(
    {"scaleraddress", "enabletls", "unsafessl", "cacert", "tlsclientcert", "tlsclientkey"}
)
_OURS: Final = frozenset(
    {"metrics_url", "metrics_labels", "waiting_query", "model", "metric_name", "hpa_tolerance", "hold_s"}
)
#: Of all settings together: they are kept for each fleet. KEDA's own, certificates among them, count too.
_LONGEST: Final = 32 * 1024


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """What one trigger of KEDA, or one entry of a settings file, asks for."""

    policy: ScalingPolicy
    metrics_url: str
    """The Prometheus that scrapes the fleet's replicas, http or https."""
    metrics_labels: Mapping[str, str]
    """What picks the fleet's series there."""
    waiting_query: str | None = None
    """A query for the requests that wait in front of the replicas, in a gateway: what is seen when there are none."""
    model: str | None = None
    """The served model's name, where several share the metrics."""
    metric_name: str = DEFAULT_METRIC
    hpa_tolerance: float = DEFAULT_TOLERANCE
    hold_s: float = 600.0


def read_fleet(metadata: Mapping[str, str]) -> FleetSettings:
    """Reads `metricsUrl`, `metricsLabels` (`namespace=prod,service=llm`), `waitingQuery`, `model`, `metricName`,
    `hpaTolerance`, `holdS` and the policy's settings in camelCase.

    A name may end in `FromEnv`: KEDA has put the variable's value there. Raises SettingError with the name as it was
    written.
    """
    ours: dict[str, str] = {}
    written: dict[str, str] = {}
    policy: dict[str, object] = {}
    length = 0
    for name, value in metadata.items():
        plain = name.removesuffix("FromEnv")
        length += len(name) + len(value)
        if length > _LONGEST:
            raise SettingError(name, f"the settings up to here are longer than {_LONGEST} characters")
        if plain.lower() in _KEDAS:
            continue
        known = snake(plain)
        if known in _OURS:
            if known in ours:
                raise SettingError(name, f"is given twice, as {written[known]} too")
            ours[known], written[known] = value, name
        elif known in NAMES:
            if plain in policy:
                raise SettingError(name, f"is given twice, as {plain} too")
            policy[plain] = value
        else:
            names = ", ".join(sorted(_camel(one) for one in NAMES | _OURS))
            raise SettingError(name, "there is no such setting", hint=f"Known are: {names}.")
    tolerance = _within(written, ours, "hpa_tolerance", DEFAULT_TOLERANCE, most=1.0)
    return FleetSettings(
        policy=read_policy(policy),
        metrics_url=_url(written, ours),
        metrics_labels=_labels(written, ours),
        waiting_query=ours.get("waiting_query") or None,
        model=ours.get("model") or None,
        metric_name=_metric_name(written, ours),
        hpa_tolerance=tolerance,
        hold_s=_within(written, ours, "hold_s", 600.0, most=86400.0),
    )


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _within(
    written: Mapping[str, str], ours: Mapping[str, str], name: str, default: float, *, most: float
) -> float:
    if name not in ours:
        return default
    number = float(read_number(written[name], ours[name]))
    if not 0.0 <= number <= most:
        raise SettingError(written[name], f"must be between 0 and {most:g}, not {number:g}")
    return number


def _url(written: Mapping[str, str], ours: Mapping[str, str]) -> str:
    example = "Write, for example: metricsUrl: http://prometheus.monitoring:9090"
    if "metrics_url" not in ours:
        raise SettingError(
            "metricsUrl", "is missing: nothing says where the fleet's metrics are", hint=example
        )
    name, url = written["metrics_url"], ours["metrics_url"].strip()
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or any(one.isspace() for one in url):
        raise SettingError(name, f"is no http or https address: {url[:80]!r}", hint=example)
    if parts.username or parts.password:
        hint = "Let a proxy beside the scaler add the credentials: whoever reads a ScaledObject reads these."
        raise SettingError(name, "must not hold a user name or a password", hint=hint)
    return url


def _labels(written: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in ours.get("metrics_labels", "").split(","):
        name, sign, value = (one.strip() for one in pair.partition("="))
        if not (name or sign or value):
            continue
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name, re.ASCII) or not sign or name in labels:
            hint = "Write, for example: metricsLabels: namespace=prod,service=llm"
            raise SettingError(written["metrics_labels"], f"cannot be read at {pair[:80]!r}", hint=hint)
        labels[name] = value
    return labels


def _metric_name(written: Mapping[str, str], ours: Mapping[str, str]) -> str:
    name = ours.get("metric_name", DEFAULT_METRIC)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name):
        raise SettingError(
            written["metric_name"], f"must be letters, digits, '-', '_' and '.', not {name[:80]!r}"
        )
    return name
