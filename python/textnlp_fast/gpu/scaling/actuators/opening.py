"""Actuators by name: `aws-asg:NAME?region=us-east-1` and its like, as they stand in settings and on the command line.

Each kind's module is imported when one of it is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.actuators.contract import Actuator

__all__ = ["KINDS", "Target", "open_actuator", "parse_target"]

#: Kind -> (module, class, how a target of it is written, the names of its path's parts).
_HOMES: Final[Mapping[str, tuple[str, str, str, tuple[str, ...]]]] = {
    "aws-asg": ("aws_asg", "AwsAutoScalingGroup", "aws-asg:NAME?region=us-east-1", ("name",)),
    "aws-fleet": ("aws_fleet", "AwsFleet", "aws-fleet:FLEET-ID?region=us-east-1", ("name",)),
    "gcp-mig": (
        "gcp_mig",
        "GcpInstanceGroup",
        "gcp-mig:PROJECT/ZONE-OR-REGION/NAME",
        ("project", "place", "name"),
    ),
    "azure-vmss": (
        "azure_vmss",
        "AzureScaleSet",
        "azure-vmss:SUBSCRIPTION/RESOURCE-GROUP/NAME",
        ("subscription", "resource_group", "name"),
    ),
    "instances": (
        "instances",
        "InstanceFleet",
        "instances:aws/us-east-1?name=FLEET&gpu=t4",
        ("provider", "region"),
    ),
    "kubernetes": (
        "kubernetes",
        "KubernetesScale",
        "kubernetes:NAMESPACE/deployment/NAME",
        ("namespace", "resource", "name"),
    ),
}
KINDS: Final = tuple(_HOMES)
_WORD: Final = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
#: Options of a target that are no text, whatever their kind.
_NUMBERS: Final = frozenset(
    {"drain_s", "give_up_s", "timeout_s", "deadline_s", "gpu_count", "max_usd_per_hour"}
)
_WHOLE: Final = frozenset({"disk_gib", "on_demand_base", "retries"})
_FLAGS: Final = frozenset({"protect"})


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target's parts: `path` by name, and its options as they were written."""

    kind: str
    path: Mapping[str, str]
    options: Mapping[str, Any]


def open_actuator(target: str, **options: Any) -> Actuator:
    """The actuator that a target names; nothing is asked of the fleet yet.

    `options` are those of the kind's class (`drain`, `drain_s`, `endpoint_url`, ...), and win over the target's own
    (`?region=us-east-1&drain_s=600`). Raises InvalidInputError, and MissingPackageError where the kind's extra is not
    installed.
    """
    parsed = parse_target(target)
    module, attribute, form, _ = _HOMES[parsed.kind]
    home = import_module(f"textnlp_fast.gpu.scaling.actuators.{module}")
    make = cast("Callable[..., Actuator]", getattr(home, attribute))
    try:
        return make(**parsed.path, **{**parsed.options, **options})
    except TypeError as error:
        if "argument" not in str(error):
            raise
        what = str(error).partition("()")[2].strip() or str(error)
        raise InvalidInputError(
            f"{parsed.kind}: {what}", hint=f"Write {form}, and options of {attribute}."
        ) from error


def parse_target(target: str) -> Target:
    """A target's parts. Raises InvalidInputError for one that names no kind, or not its parts."""
    kind, colon, rest = target.partition(":") if isinstance(target, str) else ("", "", "")
    if not colon or kind not in _HOMES:
        forms = ", ".join(home[2] for home in _HOMES.values())
        raise InvalidInputError(f"{target!r:.200} names no actuator", hint=f"Write one of: {forms}")
    path, _, query = rest.partition("?")
    _, _, form, names = _HOMES[kind]
    parts = [unquote(part) for part in path.split("/")]
    if kind == "kubernetes" and len(parts) > len(names):
        # A resource of an API group is written with its group: leaderworkerset.x-k8s.io/v1/leaderworkersets.
        parts = [parts[0], "/".join(parts[1:-1]), parts[-1]]
    if len(parts) != len(names) or not all(parts) or any(ord(c) <= 32 for part in parts for c in part):
        raise InvalidInputError(f"{target!r:.200} does not name a fleet of {kind}", hint=f"Write {form}")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=50)
    except ValueError as error:
        raise InvalidInputError(
            f"{target!r:.200}: its options cannot be read", hint=f"Write {form}"
        ) from error
    options: dict[str, Any] = {}
    for name, value in pairs:
        if not _WORD.fullmatch(name) or name in options or name in names:
            raise InvalidInputError(f"{target!r:.200}: the option {name!r:.40} cannot be given, or not twice")
        options[name] = _value(name, value)
    return Target(kind=kind, path=dict(zip(names, parts, strict=True)), options=options)


def _value(name: str, text: str) -> Any:
    try:
        if name in _NUMBERS:
            return float(text)
        if name in _WHOLE:
            return int(text)
    except ValueError as error:
        raise InvalidInputError(f"{name}={text!r:.40} is no number") from error
    if name in _FLAGS:
        if text not in ("true", "false"):
            raise InvalidInputError(f"{name}={text!r:.40} is neither true nor false")
        return text == "true"
    return text
