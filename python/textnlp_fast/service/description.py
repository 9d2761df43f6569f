"""The OpenAPI document: what FastAPI makes of the routes, and the problems that each of them may be answered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from textnlp_fast.service.problems import MEDIA_TYPE
from textnlp_fast.service.schemas import Problem

__all__ = ["described"]

_PROBLEMS: Final = {
    "400": "The request cannot be read",
    "401": "It carries no token that holds",
    "403": "The caller may not, or asked under a name that is not the service's",
    "404": "There is no such thing",
    "409": "Another writer was first, or the state of things forbids it",
    "413": "It has more bytes than are read",
    "414": "Path and query have more bytes than are read",
    "415": "Its body is not JSON",
    "422": "Something in it is not what it should be",
    "429": "The caller asks for more than one may",
    "500": "A mistake of the service",
    "501": "Something that this needs is not installed",
    "502": "The store refuses the service's own credentials",
    "503": "The store does not answer, or too much is being worked at",
    "504": "The answer took too long; what was begun goes on",
    "507": "The disk is full",
}
_OPEN: Final = frozenset({"/healthz", "/readyz"})


def described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """What `app.openapi` is to be: the document, made once."""
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            made.update(_document(app))
        return made

    return openapi


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema()
    for path, operations in document.get("paths", {}).items():
        for operation in operations.values():
            responses = operation.setdefault("responses", {})
            if "application/json" in responses.get("422", {}).get("content", {}):
                del responses["422"]
            for status, what in _PROBLEMS.items():
                if path in _OPEN and status not in {"400", "403", "414", "500"}:
                    continue
                responses.setdefault(status, _problem(what))
    return document


def _problem(what: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": what, "content": {MEDIA_TYPE: {"schema": schema}}}
