"""A ScalingPolicy from the texts of a ScaledObject, a settings file or keyword arguments.

The names are those of `ScalingPolicy`, its `capacity` and its `cold_start`: `min_instances`, `capacity_concurrency`,
`cold_start_weights_s`; where the other side writes camelCase, `minInstances`, `capacityConcurrency`,
`coldStartWeightsS`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any, Final, cast

from textnlp_fast.errors import InvalidInputError, MissingPackageError
from textnlp_fast.gpu.scaling.policy import ColdStart, Policy, ReplicaCapacity, ScalingPolicy, ScheduledFloor

__all__ = ["NAMES", "PolicyMaker", "SettingError", "default_policy", "read_number", "read_policy", "snake"]

PolicyMaker = Callable[[ScalingPolicy], Policy]

_WHOLE: Final = frozenset({"min_instances", "max_instances"})
_PARTS: Final[Mapping[str, Callable[..., Any]]] = {"capacity": ReplicaCapacity, "cold_start": ColdStart}
_PLAIN: Final = frozenset(one.name for one in fields(ScalingPolicy)) - set(_PARTS) - {"schedule"}
_OF_PARTS: Final = {
    f"{part}_{one.name}": (part, one.name)
    for part, kind in (("capacity", ReplicaCapacity), ("cold_start", ColdStart))
    for one in fields(kind)
}
#: All names that `read_policy` knows.
NAMES: Final = frozenset(_PLAIN) | frozenset(_OF_PARTS) | {"schedule"}


class SettingError(InvalidInputError):
    """A setting is wrong; ``field`` is its name as the caller wrote it."""

    def __init__(self, field: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{field[:80]}: {message}", hint=hint)
        self.field = field


def snake(name: str) -> str:
    """`minInstances` as `min_instances`; a name in snake_case stays as it is."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match.group(1).lower(), name)


def read_number(name: str, value: object, *, whole: bool = False) -> float | int:
    """A finite number from a text or a number. Raises SettingError."""
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SettingError(name, f"must be {kind}, not {value!r}")
    try:
        # int() and float() read "1_000" and full-width digits too, which nobody means here.
        if isinstance(value, str) and ("_" in value or not value.isascii()):
            raise ValueError
        number = int(value) if whole and isinstance(value, str) else float(value)
        if not math.isfinite(number) or (whole and number != int(number)):
            raise ValueError
    except (ValueError, OverflowError):
        raise SettingError(name, f"must be {kind}, not {str(value)[:80]!r}") from None
    return int(number) if whole else number


def read_policy(settings: Mapping[str, object]) -> ScalingPolicy:
    """The policy that these settings ask for, in either way of writing names.

    Raises SettingError with the name as it was written, for a name that is not known, a value that is no number or out
    of its bounds, and for settings that contradict each other.
    """
    written: dict[str, str] = {}
    values: dict[str, Any] = {}
    parts: dict[str, dict[str, float]] = {part: {} for part in _PARTS}
    for name, value in settings.items():
        ours = snake(name)
        if ours not in NAMES:
            raise SettingError(
                name, "there is no such setting", hint=f"Known are: {', '.join(sorted(NAMES))}."
            )
        if ours in written:
            raise SettingError(name, f"is given twice, as {written[ours]} too")
        written[ours] = name
        if ours == "schedule":
            values[ours] = _schedule(name, value)
        elif ours in _OF_PARTS:
            part, field = _OF_PARTS[ours]
            parts[part][field] = read_number(name, value)
        else:
            values[ours] = read_number(name, value, whole=ours in _WHOLE)
    for part, kind in _PARTS.items():
        prefixed = {
            name.removeprefix(f"{part}_"): text for name, text in written.items() if name in _OF_PARTS
        }
        values[part] = _made(kind, parts[part], prefixed)
    return cast(ScalingPolicy, _made(ScalingPolicy, values, written))


def default_policy(settings: ScalingPolicy) -> Policy:
    """Our policy. Raises MissingPackageError where this installation lacks it."""
    try:
        home = import_module("textnlp_fast.gpu.scaling.engine")
        return cast(Policy, home.LLMPolicy(settings))
    except (ModuleNotFoundError, AttributeError) as error:
        raise MissingPackageError(
            f"this installation has no scaling policy: {error}",
            hint="Upgrade textnlp-fast, or hand a policy of your own to the server.",
        ) from error


def _made(kind: Callable[..., Any], values: Mapping[str, Any], written: Mapping[str, str]) -> Any:
    try:
        return kind(**values)
    except SettingError:
        raise
    except InvalidInputError as error:
        message = error.args[0] if error.args else str(error)
        # The settings' own checks begin with the name of what they are about.
        first = message.split(" ", 1)[0]
        raise SettingError(written.get(first, first), message, hint=error.hint or None) from None


def _schedule(name: str, value: object) -> tuple[ScheduledFloor, ...]:
    example = '[{"instances": 4, "begin_hour": 8, "end_hour": 20, "weekdays": [0, 1, 2, 3, 4]}]'
    try:
        floors = json.loads(value) if isinstance(value, str) else value
        if not isinstance(floors, list | tuple):
            raise TypeError("it is no list")
        return tuple(
            ScheduledFloor(**{**floor, "weekdays": tuple(floor.get("weekdays", range(7)))})
            for floor in floors
        )
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SettingError(
            name, f"cannot be read: {str(error)[:200]}", hint=f"Write, for example: {example}"
        ) from None
