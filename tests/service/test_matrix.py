"""Who may ask for what: every route by every caller, cell by cell. A route that is not in the table fails the test."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.service import ServiceConfig, create_app

Serving = Any

# The least role that may; None: anybody.
TABLE: dict[str, str | None] = {
    "GET /healthz": None,
    "GET /readyz": None,
    "GET /metrics": "scrape",
    "GET /openapi.json": "reader",
    "GET /api/v1/me": "scrape",
    "GET /api/v1/models": "reader",
    "GET /api/v1/models/{name}/versions": "reader",
    "GET /api/v1/models/{name}/versions/{version}": "reader",
    "GET /api/v1/models/{name}/versions/{version}/tensors": "reader",
    "GET /api/v1/models/{name}/graph": "reader",
    "GET /api/v1/models/{name}/diff": "reader",
    "GET /api/v1/models/{name}/changes": "reader",
    "POST /api/v1/models/{name}/versions/{version}/stage": "publisher",
    "PUT /api/v1/models/{name}/versions/{version}/tags": "publisher",
    "PUT /api/v1/models/{name}/versions/{version}/pin": "publisher",
    "DELETE /api/v1/models/{name}/versions/{version}/pin": "publisher",
    "PUT /api/v1/models/{name}/aliases/{alias}": "publisher",
    "DELETE /api/v1/models/{name}/aliases/{alias}": "publisher",
    "GET /api/v1/deployments": "reader",
    "GET /api/v1/models/{name}/deployments/{target}/history": "reader",
    "POST /api/v1/models/{name}/deployments/{target}": "operator",
    "POST /api/v1/models/{name}/deployments/{target}/rollback": "operator",
    "PUT /api/v1/models/{name}/deployments/{target}/state": "operator",
    "DELETE /api/v1/models/{name}/deployments/{target}": "operator",
    "GET /api/v1/storage": "reader",
    "GET /api/v1/audit": "reader",
    "POST /api/v1/audit/verify": "operator",
    "POST /api/v1/transfers": "publisher",
    "GET /api/v1/transfers": "reader",
    "GET /api/v1/transfers/roots": "reader",
    "GET /api/v1/transfers/{transfer_id}": "reader",
    "GET /api/v1/transfers/{transfer_id}/events": "reader",
    "POST /api/v1/transfers/{transfer_id}/cancel": "publisher",
    "GET /api/v1/events": "reader",
    "GET /api/v1/fleet/instances": "reader",
    "GET /api/v1/fleet/costs": "reader",
    "GET /api/v1/fleet/health": "reader",
    "GET /api/v1/autoscaler": "reader",
    "GET /api/v1/autoscaler/{name}/decisions": "reader",
    "GET /api/v1/autoscaler/{name}/explain": "reader",
}
# They do not end by themselves: those who may are tried where streams are tested.
ENDLESS = {"GET /api/v1/events"}
ROLES = ("scrape", "reader", "publisher", "operator")
CALLERS = ("nobody", "a wrong token", "an expired token", *ROLES)


def routes_of(app: Any) -> set[str]:
    """`METHOD PATH` of every route, however FastAPI keeps those of routers."""
    from fastapi.routing import APIRoute  # noqa: PLC0415

    found: set[str] = set()
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        if isinstance(route, APIRoute):
            path = re.sub(r":path\}", "}", route.path)
            found |= {f"{method} {path}" for method in route.methods}
        elif hasattr(route, "original_router"):
            waiting += route.original_router.routes
    return found


def test_every_route_has_a_line(filled: Path) -> None:
    assert routes_of(create_app(ServiceConfig(repo=str(filled)))) == set(TABLE)


@pytest.mark.parametrize("caller", CALLERS)
async def test_each_caller_gets_what_is_theirs(
    caller: str, filled: Path, serving: Serving, tokens: dict[str, Any], provider: Any, oidc: Any
) -> None:
    expired = provider.claims("operator", exp=int(time.time()) - 7200)
    credentials = {
        "nobody": None,
        "a wrong token": "tnf_" + "A" * 43,
        "an expired token": provider.token(expired),
        **{role: tokens[role] for role in ROLES},
    }[caller]
    headers = {} if credentials is None else {"Authorization": f"Bearer {credentials}"}
    wrong = {}
    async with serving(filled, tokens=tokens["file"], oidc=oidc, failure_burst=1000) as client:
        for cell, least in TABLE.items():
            method, path = cell.split(" ")
            may = least is None or (caller in ROLES and ROLES.index(caller) >= ROLES.index(least))
            if may and cell in ENDLESS:
                continue
            answer = await client.request(method, _somewhere(path), headers=headers)
            found = (answer.status_code, answer.json().get("code") if answer.is_error else None)
            if may:
                fits = found[0] not in (401, 403) and (found[0] < 500 or found[0] == 503)
            else:
                fits = found == ((403, "Forbidden") if caller in ROLES else (401, "Unauthenticated"))
            if not fits:
                wrong[cell] = found
    assert wrong == {}


def _somewhere(path: str) -> str:
    """The path with names of what is not there: nothing is changed by those who may."""
    for name, value in {
        "name": "nobody",
        "version": "9.9.9",
        "alias": "nothing",
        "target": "nowhere",
        "transfer_id": "0" * 32,
    }.items():
        path = path.replace(f"{{{name}}}", value)
    return path


async def test_nothing_is_open_by_default_beyond_this_machine(filled: Path) -> None:
    from textnlp_fast.errors import InvalidInputError  # noqa: PLC0415

    for host in ("0.0.0.0", "::", "192.168.1.5", "models.example.org"):
        with pytest.raises(InvalidInputError, match="nobody was named"):
            ServiceConfig(repo=str(filled), host=host)
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert ServiceConfig(repo=str(filled), host=host).is_loopback


async def test_on_loopback_everybody_has_the_open_role(filled: Path, serving: Serving) -> None:
    async with serving(filled) as client:
        assert (await client.get("/api/v1/me")).json()["role"] == "operator"
    async with serving(filled, open_role="reader") as client:
        answer = await client.put("/api/v1/models/org/tiny/aliases/a", json={"version": "1.0.0"})
        assert answer.status_code == 403
