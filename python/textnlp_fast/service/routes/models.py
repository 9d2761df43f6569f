"""Which models there are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from textnlp_fast.service.answering import kept_answer
from textnlp_fast.service.auth import Role, require
from textnlp_fast.service.paging import Cursor, Limit, page_after
from textnlp_fast.service.reading import ModelView
from textnlp_fast.service.reading.rows import model_row
from textnlp_fast.service.state import Service, service_of
from textnlp_fast.service.version_schemas import ModelPage

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["models"])


@router.get("/models", response_model=ModelPage, dependencies=[Depends(require(Role.READER))])
async def list_models(
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    q: Annotated[
        str | None, Query(min_length=1, max_length=200, description="Text in the name, in any case")
    ] = None,
    stage: Annotated[
        str | None, Query(min_length=1, max_length=32, description="Models with a version in this stage")
    ] = None,
    tag: Annotated[
        str | None,
        Query(min_length=1, max_length=600, description="KEY or KEY=VALUE, of the model or a version of it"),
    ] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Models by name."""
    snapshot = await service.catalog.current()

    def build() -> ModelPage:
        wanted = [view for view in snapshot.models.values() if _fits(view, q, stage, tag)]
        found, following = page_after(wanted, cursor, limit, lambda view: view.name)
        return ModelPage(items=[model_row(view) for view in found], next_cursor=following)

    key = ("models", snapshot.stamp, q, stage, tag, limit, cursor)
    of = len(snapshot.models) if tag is None else snapshot.version_count
    return await kept_answer(request, service, key, build, of=of)


def _fits(view: ModelView, text: str | None, stage: str | None, tag: str | None) -> bool:
    if text is not None and text.casefold() not in view.name.casefold():
        return False
    if stage is not None and stage.lower() not in view.stages:
        return False
    if tag is None:
        return True
    key, equals, value = tag.partition("=")
    states = [view.references.tags, *(view.references.state_of(each).tags for each in view.versions)]
    return any(key in tags and (not equals or tags[key] == value) for tags in states)
