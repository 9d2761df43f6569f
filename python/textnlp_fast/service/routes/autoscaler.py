"""What autoscalers decided, and why, from their books in the object store."""

from __future__ import annotations

import time
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from textnlp_fast.errors import ObjectNotFoundError
from textnlp_fast.gpu.scaling.autoscaler.book import Book
from textnlp_fast.gpu.scaling.autoscaler.explaining import explain, moment
from textnlp_fast.service.auth import Role, require
from textnlp_fast.service.autoscaler_views import decision_view
from textnlp_fast.service.live import Live, live_of
from textnlp_fast.service.live_schemas import AutoscalerExplanation, AutoscalerFleets, DecisionPage

__all__ = ["router"]

router = APIRouter(
    prefix="/api/v1/autoscaler", tags=["autoscaler"], dependencies=[Depends(require(Role.READER))]
)
LiveSide = Annotated[Live, Depends(live_of)]
FleetName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", max_length=100)]
Moment = Annotated[
    str | None, Query(min_length=1, max_length=40, description="14:02 (UTC), or an RFC 3339 time")
]


@router.get("")
async def list_fleets(live: LiveSide) -> AutoscalerFleets:
    """Fleets that an autoscaler has scaled, with its last decision."""
    fleets = await live.autoscalers.get()
    return AutoscalerFleets(items=fleets, note="" if fleets else live.fleet.books_note)


@router.get("/{name}/decisions")
async def list_decisions(
    name: FleetName,
    live: LiveSide,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, description="Those of a lower number")] = None,
) -> DecisionPage:
    """Decisions of the log, the newest first. `next_cursor` is the next `before`."""
    return await live.service.blocking.run(_decisions, live, name, limit, before)


def _decisions(live: Live, name: str, limit: int, before: int | None) -> DecisionPage:
    wanted = (one for one in _book(live, name).decisions() if before is None or one.number < before)
    found = list(islice(wanted, limit + 1))
    more = len(found) > limit
    return DecisionPage(
        items=[decision_view(one) for one in found[:limit]],
        next_cursor=str(found[limit - 1].number) if more else None,
    )


@router.get("/{name}/explain")
async def explain_decision(name: FleetName, live: LiveSide, at: Moment = None) -> AutoscalerExplanation:
    """Why there were so many replicas at a time, in sentences."""
    return await live.service.blocking.run(_explained, live, name, at)


def _explained(live: Live, name: str, at: str | None) -> AutoscalerExplanation:
    told = explain(_book(live, name), moment(at, time.time()))
    return AutoscalerExplanation(
        decision=decision_view(told.record), sentences=list(told.sentences), demand_later=told.demand_later
    )


def _book(live: Live, name: str) -> Book:
    book = live.fleet.book(name)
    if book is None or book.peek().number == 0:
        known = ", ".join(live.fleet.book_names()[:10])
        raise ObjectNotFoundError(
            f"there is no autoscaler {name!r}", hint=f"There is: {known}." if known else live.fleet.books_note
        )
    return book
