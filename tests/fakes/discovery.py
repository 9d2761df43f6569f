"""Values, requests and answers held against a Google API's discovery document."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = ["Discovery", "Mismatch", "matches"]


class Mismatch(AssertionError):
    """Something that the document does not know."""


def _expect(holds: bool, complaint: str) -> None:
    if not holds:
        raise Mismatch(complaint)


def matches(value: Any, schema: dict[str, Any], where: str, schemas: dict[str, Any]) -> None:
    """Raises Mismatch if a value is not what a schema of the document says; fields it does not name are wrong."""
    if "$ref" in schema:
        matches(value, schemas[schema["$ref"]], where, schemas)
        return
    kind, form = schema.get("type", "any"), schema.get("format")
    if kind == "object":
        _expect(isinstance(value, dict), f"{where} is no object")
        for name, inner in value.items():
            known = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            _expect(known is not None, f"{where}.{name} is not in the document")
            matches(inner, known, f"{where}.{name}", schemas)
    elif kind == "array":
        _expect(isinstance(value, list), f"{where} is no array")
        for item in value:
            matches(item, schema["items"], f"{where}[]", schemas)
    elif kind == "string":
        _matches_string(value, schema, form, where)
    elif kind == "integer":
        _expect(isinstance(value, int) and not isinstance(value, bool), f"{where} is no integer")
    elif kind == "number":
        _expect(isinstance(value, (int, float)) and not isinstance(value, bool), f"{where} is no number")
    elif kind == "boolean":
        _expect(isinstance(value, bool), f"{where} is no boolean")
    else:
        raise Mismatch(f"{where}: the document says {kind!r}")


def _matches_string(value: Any, schema: dict[str, Any], form: str | None, where: str) -> None:
    if form in {"int64", "uint64"} and where.startswith("request") and isinstance(value, int):
        return  # Google's own client sends a number, and Google takes it
    _expect(isinstance(value, str), f"{where} is no string")
    if form in {"int64", "uint64"}:
        _expect(re.fullmatch(r"\d+", value) is not None, f"{where}: {value!r} is no number in a string")
    elif form == "date-time":
        _expect(value.endswith("Z") and bool(datetime.fromisoformat(value.removesuffix("Z"))), where)
    if "enum" in schema:
        _expect(value in schema["enum"], f"{where}: {value!r} is none of {schema['enum']}")
    if "pattern" in schema:
        _expect(
            re.fullmatch(schema["pattern"], value) is not None,
            f"{where}: {value!r} breaks {schema['pattern']}",
        )


class Discovery:
    """An API as its document describes it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.schemas: dict[str, Any] = document["schemas"]
        self.common = set(document["parameters"])
        self.methods: dict[str, dict[str, Any]] = {}
        self._collect(document["resources"])
        base = re.escape("/" + document["servicePath"])
        self._routes = [
            (
                name,
                method["httpMethod"],
                re.compile(base + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", method["path"])),
            )
            for name, method in self.methods.items()
        ]

    @classmethod
    def installed(cls, name: str) -> Discovery:
        """The document that google-api-python-client brings: `compute.v1`."""
        import googleapiclient.discovery_cache as cache  # noqa: PLC0415 - only where the fake runs

        path = Path(cache.__file__).parent / "documents" / f"{name}.json"
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def _collect(self, resources: dict[str, Any]) -> None:
        for resource in resources.values():
            for method in resource.get("methods", {}).values():
                self.methods[method["id"]] = method
            self._collect(resource.get("resources", {}))

    def route(self, http_method: str, path: str) -> tuple[str, dict[str, str]]:
        """Which method a request is for, and the names in its path."""
        for name, wanted, pattern in self._routes:
            found = pattern.fullmatch(path)
            if found and wanted == http_method:
                return name, {key: unquote(value) for key, value in found.groupdict().items()}
        raise Mismatch(f"the document has no {http_method} {path}")

    def check_request(
        self, name: str, names: dict[str, str], query: dict[str, str], body: Any | None
    ) -> None:
        """Raises Mismatch if the method does not take these names, parameters and this body."""
        method = self.methods[name]
        parameters = method["parameters"]
        for key, value in {**names, **query}.items():
            known = parameters.get(key)
            if known is None:
                _expect(key in self.common, f"{name} has no parameter {key}")
            elif known.get("type") == "string":
                _matches_string(value, known, None, f"request parameter {key}")
            elif known.get("type") == "boolean":
                _expect(value in {"true", "false"}, f"request parameter {key}: {value!r}")
            elif known.get("type") == "integer":
                _expect(value.isdecimal(), f"request parameter {key}: {value!r}")
        for key, known in parameters.items():
            _expect(
                not known.get("required") or key in names or key in query, f"{name} needs the parameter {key}"
            )
        if body is not None:
            _expect("request" in method, f"{name} takes no body")
            matches(body, method["request"], f"request of {name}", self.schemas)

    def check_answer(self, name: str, answer: Any) -> None:
        """Raises Mismatch if the method does not answer such a thing."""
        matches(answer, self.methods[name]["response"], name, self.schemas)
