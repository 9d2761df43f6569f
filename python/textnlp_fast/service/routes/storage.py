"""What the repository takes, and took as versions came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from textnlp_fast.service.answering import kept_answer
from textnlp_fast.service.auth import Role, require
from textnlp_fast.service.reading import Snapshot
from textnlp_fast.service.schemas import StorageDocument, StoragePoint
from textnlp_fast.service.state import Service, service_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["storage"])
Item = TypeVar("Item")


@router.get("/storage", response_model=StorageDocument, dependencies=[Depends(require(Role.READER))])
async def show_storage(
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    points: Annotated[int, Query(ge=2, le=5000, description="Points of the curve, at most")] = 500,
) -> Response:
    """Sizes of all versions together, and how they grew. Manifests and the registry's own documents are not counted."""
    snapshot = await service.catalog.current()
    key = ("storage", snapshot.stamp, points)
    return await kept_answer(
        request, service, key, lambda: _document(snapshot, points), of=snapshot.version_count
    )


def _document(snapshot: Snapshot, most: int) -> StorageDocument:
    rows = sorted(
        (facts.created_at, name, facts.version, facts.logical_bytes, facts.stored_bytes)
        for name, view in snapshot.models.items()
        for facts in view.versions.values()
        if facts.created_at is not None
    )
    logical = stored = 0
    curve = []
    for at, name, version, logical_bytes, stored_bytes in rows:
        logical, stored = logical + logical_bytes, stored + stored_bytes
        curve.append((at, name, version, logical, stored))
    return StorageDocument(
        models=len(snapshot.models),
        versions=snapshot.version_count,
        logical_bytes=logical,
        stored_bytes=stored,
        saved_bytes=max(0, logical - stored),
        points=[
            StoragePoint(at=at, model=name, version=version, logical_bytes=raw, stored_bytes=coded)
            for at, name, version, raw, coded in _thinned(curve, most)
        ],
    )


def _thinned(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many of them, evenly; the first and the last always."""
    if len(items) <= most:
        return items
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]
