"""What serves where: the registry's notes of deployments, and their history. Rolling out is the adapter's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from textnlp_fast.service.answering import kept_answer, kept_answer_later
from textnlp_fast.service.auth import Principal, Role, require
from textnlp_fast.service.changing import change
from textnlp_fast.service.paging import Cursor, Limit, page_after
from textnlp_fast.service.parameters import ModelName, Target
from textnlp_fast.service.reading.histories import changes_before
from textnlp_fast.service.reading.rows import change_row, deployment_row
from textnlp_fast.service.schemas import (
    ChangePage,
    DeployBody,
    DeploymentPage,
    DeploymentRow,
    DeploymentStateBody,
    RollbackBody,
)
from textnlp_fast.service.state import Service, service_of
from textnlp_fast.storage.registry.state import Change

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["deployments"])
At = Annotated[Service, Depends(service_of)]
Operator = Annotated[Principal, Depends(require(Role.OPERATOR))]


@router.get("/deployments", response_model=DeploymentPage, dependencies=[Depends(require(Role.READER))])
async def list_deployments(
    request: Request, service: At, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """What serves which version, by model and target."""
    snapshot = await service.catalog.current()

    def build() -> DeploymentPage:
        rows = [
            deployment_row(name, target, deployment)
            for name, view in snapshot.models.items()
            for target, deployment in view.references.deployments.items()
        ]
        rows.sort(key=_place)
        found, following = page_after(rows, cursor, limit, _place)
        return DeploymentPage(items=list(found), next_cursor=following)

    key = ("deployments", snapshot.stamp, limit, cursor)
    return await kept_answer(request, service, key, build, of=len(snapshot.models))


def _place(row: DeploymentRow) -> str:
    return f"{row.model}@{row.target}"


@router.get(
    "/models/{name:path}/deployments/{target:path}/history",
    response_model=ChangePage,
    dependencies=[Depends(require(Role.READER))],
)
async def list_deployment_history(
    request: Request, name: ModelName, target: Target, service: At, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Deployments, rollbacks and ends of a target, the newest first. A page may hold fewer than there follow."""
    view = await service.catalog.model(name)

    def wanted(change: Change) -> bool:
        return change.action.startswith("deploy") and change.detail.get("target") == target

    async def build() -> ChangePage:
        found, following = await changes_before(service, view, cursor, limit, wanted)
        return ChangePage(items=[change_row(each) for each in found], next_cursor=following)

    key = ("deployment history", name, target, view.stamp, limit, cursor)
    return await kept_answer_later(request, service, key, build)


@router.post("/models/{name:path}/deployments/{target:path}/rollback")
async def roll_back(
    name: ModelName, target: Target, service: At, caller: Operator, body: RollbackBody | None = None
) -> DeploymentRow:
    """Notes that a target serves again what it served before, or an earlier version."""
    wish = body or RollbackBody()
    view = await service.catalog.model(name)
    to = None if wish.to is None else view.resolve(wish.to)
    made, _ = await change(
        service, caller, name, lambda registry: registry.rollback(name, target, to=to, note=wish.note)
    )
    return deployment_row(name, target, made)


@router.put("/models/{name:path}/deployments/{target:path}/state")
async def set_deployment_state(
    name: ModelName, target: Target, body: DeploymentStateBody, service: At, caller: Operator
) -> DeploymentRow:
    """Notes how a deployment fares."""
    made, _ = await change(
        service,
        caller,
        name,
        lambda registry: registry.set_deployment_state(name, target, body.state, note=body.note),
    )
    return deployment_row(name, target, made)


@router.post("/models/{name:path}/deployments/{target:path}")
async def deploy(
    name: ModelName, target: Target, body: DeployBody, service: At, caller: Operator
) -> DeploymentRow:
    """Notes that a target serves a version from now on."""
    made, _ = await change(
        service,
        caller,
        name,
        lambda registry: registry.deploy(
            name, body.version, target, note=body.note, state=body.state, expected=body.expected
        ),
    )
    return deployment_row(name, target, made)


@router.delete("/models/{name:path}/deployments/{target:path}", status_code=204)
async def end_deployment(name: ModelName, target: Target, service: At, caller: Operator) -> None:
    """Notes that a target serves nothing any more; its history stays."""
    await change(service, caller, name, lambda registry: registry.end_deployment(name, target))
