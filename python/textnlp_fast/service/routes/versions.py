"""The versions of a model: as a list, as a graph, one in detail, two compared, and what was said of them over time."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.service.answering import kept_answer, kept_answer_later
from textnlp_fast.service.auth import Role, require
from textnlp_fast.service.paging import Cursor, Limit, numbered_page
from textnlp_fast.service.parameters import ModelName, VersionSelector
from textnlp_fast.service.reading.details import read_detail, read_tensor_rows
from textnlp_fast.service.reading.heat_map import read_heat_map
from textnlp_fast.service.reading.histories import changes_before
from textnlp_fast.service.reading.rows import change_row, graph_of, version_rows
from textnlp_fast.service.schemas import ChangePage
from textnlp_fast.service.state import Service, service_of
from textnlp_fast.service.version_schemas import (
    DiffDocument,
    GraphDocument,
    TensorPage,
    TensorRow,
    VersionDetail,
    VersionPage,
)

__all__ = ["router"]

router = APIRouter(
    prefix="/api/v1/models/{name:path}", tags=["versions"], dependencies=[Depends(require(Role.READER))]
)
At = Annotated[Service, Depends(service_of)]
_TENSOR_BYTES = 600


@router.get("/versions", response_model=VersionPage)
async def list_versions(
    request: Request, name: ModelName, service: At, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """A model's versions, the highest first."""
    view = await service.catalog.model(name)

    def build() -> VersionPage:
        order = list(view.versions)[::-1]
        if cursor is not None:
            if cursor not in view.versions:
                raise InvalidInputError(
                    "the version that the cursor names is gone", hint="Begin without one."
                )
            order = order[order.index(cursor) + 1 :]
        found = order[:limit]
        following = found[-1] if len(order) > limit else None
        return VersionPage(items=version_rows(view, found), next_cursor=following)

    key = ("versions", name, view.stamp, limit, cursor)
    return await kept_answer(request, service, key, build, of=len(view.versions))


@router.get("/versions/{version}", response_model=VersionDetail)
async def show_version(request: Request, name: ModelName, version: VersionSelector, service: At) -> Response:
    """One version: its files, its README, what it comes from."""
    view = await service.catalog.model(name)
    exact = view.resolve(version)

    async def build() -> VersionDetail:
        return await service.blocking.run(read_detail, service.repository, view, exact)

    return await kept_answer_later(request, service, ("version", name, exact, view.stamp), build)


@router.get("/versions/{version}/tensors", response_model=TensorPage)
async def list_tensors(
    request: Request,
    name: ModelName,
    version: VersionSelector,
    service: At,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """A version's tensors, in the order of its files: what they take, and how they are coded."""
    view = await service.catalog.model(name)
    facts = view.facts(version)
    key = ("tensors", name, facts.version, facts.etag)

    async def rows() -> tuple[TensorRow, ...]:
        kept = service.answers.get(key)
        if isinstance(kept, tuple):
            return kept
        made = await service.blocking.run(read_tensor_rows, service.repository, name, facts.version)
        service.answers.put(key, made, len(made) * _TENSOR_BYTES)
        return made

    async def build() -> TensorPage:
        found, following = numbered_page(await service.flights.run(key, rows), cursor, limit)
        return TensorPage(items=list(found), next_cursor=following)

    return await kept_answer_later(request, service, (*key, limit, cursor), build)


@router.get("/graph", response_model=GraphDocument)
async def show_graph(request: Request, name: ModelName, service: At) -> Response:
    """All versions of a model, which came of which, and which is coded against which."""
    view = await service.catalog.model(name)
    key = ("graph", name, view.stamp)
    return await kept_answer(request, service, key, partial(graph_of, view), of=len(view.versions))


@router.get("/diff", response_model=DiffDocument)
async def show_difference(
    request: Request,
    name: ModelName,
    service: At,
    old: Annotated[str, Query(alias="from", min_length=1, max_length=160, description="As in paths: 1.0.0")],
    new: Annotated[str, Query(alias="to", min_length=1, max_length=160, description="As in paths: 1.1.0")],
) -> Response:
    """What an update did, as a heat map of layers by parts. Takes a while the first time; ask again after a 504."""
    view = await service.catalog.model(name)
    first, second = view.facts(old), view.facts(new)
    key = ("diff", name, first.version, first.etag, second.version, second.etag)

    async def build() -> DiffDocument:
        return await service.heavy.run(
            read_heat_map,
            service.repository,
            name,
            first.version,
            second.version,
            timeout_s=None,
            most_s=service.config.heavy_timeout_s,
            is_stopping=service.stopping.is_set,
        )

    return await kept_answer_later(request, service, key, build, wait_s=service.config.store_timeout_s)


@router.get("/changes", response_model=ChangePage)
async def list_changes(
    request: Request, name: ModelName, service: At, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """What was said of a model's versions and by whom, the newest first."""
    view = await service.catalog.model(name)

    async def build() -> ChangePage:
        found, following = await changes_before(service, view, cursor, limit)
        return ChangePage(items=[change_row(each) for each in found], next_cursor=following)

    return await kept_answer_later(request, service, ("changes", name, view.stamp, limit, cursor), build)
