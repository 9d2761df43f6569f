"""What whoever runs the service asks: is it there, can it work, how much does it do, and who am I."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from textnlp_fast.errors import TextnlpFastError
from textnlp_fast.service.auth import Principal, Role, require
from textnlp_fast.service.schemas import Health, Me, Readiness
from textnlp_fast.service.state import Service, service_of

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz", response_model=Health)
async def health() -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
async def readiness(service: Annotated[Service, Depends(service_of)]) -> Response:
    """Whether the repository can be read, as of a few seconds ago, and the process is not about to end."""
    if service.stopping.is_set():
        return JSONResponse({"ready": False, "detail": "the service is ending"}, 503)
    try:
        snapshot = await service.catalog.current()
    except TextnlpFastError as error:
        return JSONResponse({"ready": False, "detail": type(error).__name__.removesuffix("Error")}, 503)
    return JSONResponse({"ready": True, "detail": f"{len(snapshot.models)} models"})


@router.get(
    "/metrics",
    dependencies=[Depends(require(Role.SCRAPE))],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: Annotated[Service, Depends(service_of)]) -> Response:
    """Requests, operations and caches, in Prometheus' text format."""
    return Response(service.metrics.text(service), media_type="text/plain; version=0.0.4")


@router.get("/openapi.json", dependencies=[Depends(require(Role.READER))], include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The description of this API."""
    return JSONResponse(request.app.openapi())


@router.get("/api/v1/me")
async def me(caller: Annotated[Principal, Depends(require(Role.SCRAPE))]) -> Me:
    """Who asks, and what they may."""
    return Me(subject=caller.subject, role=caller.role.word, permissions=caller.permissions)
