"""What azure-mgmt-compute and azure-mgmt-network say of the API: routes out of their builders, schemas of their models.

Both are generated from Azure's specification of the version that they speak. Read from the installed SDK, so that a
newer one is held against what it says itself.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import re
import typing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = ["Mismatch", "Route", "check_model", "find_route", "routes"]


class Mismatch(AssertionError):
    """Something that the SDK does not know."""


@dataclass(frozen=True)
class Route:
    """One operation: `name` is what its builder is called, `statuses` are those that its method takes for success."""

    name: str
    method: str
    template: str
    api_version: str
    query: frozenset[str]
    headers: frozenset[str]
    statuses: frozenset[int]

    @property
    def pattern(self) -> re.Pattern[str]:
        # ARM does not look at the case of its keywords, and neither do its clients.
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template), re.IGNORECASE)


@functools.lru_cache(maxsize=2)
def routes(service: str) -> dict[str, Route]:
    """The operations of `compute` or `network`, by the names of their builders."""
    module = importlib.import_module(f"azure.mgmt.{service}.operations")
    text = (Path(module.__file__ or "").parent / "_operations.py").read_text(encoding="utf-8")
    taken: dict[str, set[int]] = {}
    calls = re.compile(r"_request = build_(\w+)_request\(|status_code not in \[([\d, ]+)\]")
    last = None
    for call in calls.finditer(text):
        if call[1]:
            last = call[1]
        elif last:
            taken.setdefault(last, set()).update(int(one) for one in call[2].split(","))
    found = {}
    for block in re.split(r"^(?=def |class )", text, flags=re.MULTILINE):
        name = re.match(r"def build_(\w+)_request\(", block)
        url = re.search(r'_url = (?:\(\s*)?"([^"]+)"', block)
        method = re.search(r'HttpRequest\(method="(\w+)"', block)
        version = re.search(r'_params\.pop\("api-version", "([^"]+)"\)', block)
        if not (name and url and method and version):
            continue
        headers = set(re.findall(r'_headers\["([^"]+)"\] =', block))
        found[name[1]] = Route(
            *(name[1], method[1], url[1], version[1]),
            frozenset(re.findall(r'_params\["([^"]+)"\]', block)),
            frozenset(header.lower() for header in headers),
            frozenset(taken.get(name[1], ())),
        )
    return found


def find_route(wanted: tuple[str, ...], method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Which of the `wanted` operations (`compute.virtual_machines_get`) a request is for, and the names in its path."""
    for full in wanted:
        service, _, name = full.partition(".")
        route = routes(service)[name]
        found = route.pattern.fullmatch(path)
        if found and route.method == method:
            return route, {key: unquote(value) for key, value in found.groupdict().items()}
    raise Mismatch(f"the fake has no {method} {path}")


@functools.cache
def _hints(model: type) -> dict[str, Any]:
    package = importlib.import_module(model.__module__.rpartition(".")[0])
    module = importlib.import_module(model.__module__)
    return typing.get_type_hints(model, {**vars(module), "_models": package}, {"_models": package})


def check_model(value: Any, model: type, where: str, *, asked: bool) -> None:
    """Raises Mismatch if a JSON value is not what a model of the SDK says.

    Fields that it does not name are wrong, and so is a required one that is missing, a value that is none of its
    enumeration's, and, in a request (`asked`), one that only Azure writes.
    """
    if not isinstance(value, dict):
        raise Mismatch(f"{where} is no object")
    hints = _hints(model)
    fields = {field._rest_name: (name, field) for name, field in _fields(model).items()}
    for key in value:
        if key not in fields:
            raise Mismatch(f"{where}.{key} is not in {model.__name__}")
    for key, (name, field) in fields.items():
        kind = hints[name]
        optional = type(None) in typing.get_args(kind)
        read_only = field._visibility == ["read"]
        if key not in value:
            if not optional and not (asked and read_only):
                raise Mismatch(f"{where}.{key} is missing: {model.__name__} needs it")
            continue
        if asked and read_only and not key == "id":
            raise Mismatch(f"{where}.{key} is Azure's to write")
        _check(value[key], kind, f"{where}.{key}", asked=asked)


def _fields(model: Any) -> dict[str, Any]:
    model({})  # names of fields are set at the first instance
    found: dict[str, Any] = model._attr_to_rest_field
    return found


def _check(value: Any, kind: Any, where: str, *, asked: bool) -> None:
    choices = [one for one in typing.get_args(kind) if one is not type(None)]
    origin = typing.get_origin(kind)
    if origin is typing.Union:
        enums = [one for one in choices if isinstance(one, type) and issubclass(one, Enum)]
        if enums:
            # Azure keeps no list of sizes here since 2020: its documents say to ask for those of a place.
            if enums[0].__name__ == "VirtualMachineSizeTypes":
                return
            if value not in {member.value for member in enums[0]}:
                raise Mismatch(f"{where}: {value!r} is none of {[member.value for member in enums[0]]}")
            return
        _check(value, choices[0], where, asked=asked)
    elif origin is list:
        if not isinstance(value, list):
            raise Mismatch(f"{where} is no array")
        for item in value:
            _check(item, choices[0], f"{where}[]", asked=asked)
    elif origin is dict:
        if not isinstance(value, dict):
            raise Mismatch(f"{where} is no object")
        for key, item in value.items():
            _check(item, choices[1], f"{where}[{key}]", asked=asked)
    elif kind is datetime.datetime:
        datetime.datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    elif isinstance(kind, type) and kind.__module__.startswith("azure.mgmt."):
        check_model(value, kind, where, asked=asked)
    elif kind in {str, int, bool, float}:
        fits = isinstance(value, (int, float) if kind is float else kind) and (
            kind is bool or not isinstance(value, bool)
        )
        if not fits:
            raise Mismatch(f"{where}: {value!r} is no {kind.__name__}")
    elif kind is not Any:
        raise Mismatch(f"{where}: the checker does not know {kind!r}")
