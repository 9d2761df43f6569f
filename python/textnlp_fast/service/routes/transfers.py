"""Transfers, and the events of everything: `docs/guide/service.md` has examples."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.responses import Response

from textnlp_fast.contents.documents import canonical
from textnlp_fast.errors import InvalidInputError, ObjectNotFoundError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.service.auth import Principal, Role, require
from textnlp_fast.service.events import EventStream
from textnlp_fast.service.jobs import Job
from textnlp_fast.service.jobs.records import new_id, repeatable_id
from textnlp_fast.service.live import Live, live_of, running
from textnlp_fast.service.live_schemas import (
    CollectRequest,
    Kind,
    State,
    TransferPage,
    TransferRequest,
    TransferRoots,
    TransferView,
)
from textnlp_fast.service.paging import Cursor, Limit, page_after
from textnlp_fast.service.problems import ForbiddenError
from textnlp_fast.service.transfer_views import order_of, transfer_view

__all__ = ["lifespan", "router"]

lifespan = running
router = APIRouter(prefix="/api/v1", tags=["transfers"])

_FIRST_LIST_S: Final = 10.0
TransferId = Annotated[str, Path(pattern=r"^[0-9a-f]{24}$", examples=["0123456789abcdef01234567"])]
LiveSide = Annotated[Live, Depends(live_of)]
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$", description="The same key: the same job"),
]
LastEventId = Annotated[str | None, Header(max_length=100)]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


class IdempotencyKeyReusedError(InvalidInputError):
    """The key was used for something else."""

    default_hint = "Take a new key for each thing that is to be done, and the same one to ask for it again."


@router.post("/transfers", status_code=202)
async def create_transfer(
    body: TransferRequest,
    incoming: Request,
    response: Response,
    live: LiveSide,
    caller: Annotated[Principal, Depends(require(Role.PUBLISHER))],
    idempotency_key: IdempotencyKey = None,
) -> TransferView:
    """Asks the service to do something that takes a while.

    With an `Idempotency-Key` the same request gives the same transfer, for as long as that is remembered (a week, or a
    thousand that ended since); with another body it is refused.
    """
    if isinstance(body, CollectRequest) and caller.role < Role.OPERATOR:
        raise ForbiddenError("collections need the role operator", hint="Ask an operator of the service.")
    request = body.model_dump(mode="json")
    incoming.state.typed = tuple(filter(None, (request.get("path"), request.get("base_path"))))
    job = await live.service.blocking.run(
        _submitted,
        live,
        request,
        caller.subject,
        idempotency_key,
        timeout_s=live.service.config.write_timeout_s,
    )
    response.headers["Location"] = f"/api/v1/transfers/{job.id}"
    return transfer_view(job)


def _submitted(live: Live, request: dict[str, Any], subject: str, key: str | None) -> Job:
    asked = blake3_hex(canonical(json.dumps(request, sort_keys=True)))
    job_id = new_id() if key is None else repeatable_id(subject, key)
    if key is not None:
        try:
            return _the_same(live.runner.job(job_id), asked)
        except ObjectNotFoundError:
            pass  # nobody has used it yet
    prepared, model, version = live.work.prepared(request)
    job = Job(
        id=job_id,
        kind=request["kind"],
        request=prepared,
        asked=asked,
        by=subject,
        model=model,
        version=version,
        created_s=round(time.time(), 3),
    )
    stored, is_new = live.runner.submit(job)
    return stored if is_new else _the_same(stored, asked)


def _the_same(job: Job, asked: str) -> Job:
    if job.asked != asked:
        raise IdempotencyKeyReusedError(
            f"this Idempotency-Key is that of transfer {job.id}, of another request"
        )
    return job


@router.get("/transfers", dependencies=[Depends(require(Role.READER))])
async def list_transfers(
    live: LiveSide,
    state: Annotated[State | None, Query()] = None,
    kind: Annotated[Kind | None, Query()] = None,
    model: Annotated[str | None, Query(min_length=1, max_length=400)] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> TransferPage:
    """Transfers, the newest first: what was asked for here at once, and of other replicas within seconds."""
    if not live.runner.known.is_set():  # it has only just begun
        await live.service.blocking.run(live.runner.known.wait, _FIRST_LIST_S)
    jobs = [
        job
        for job in live.runner.jobs()
        if (state is None or str(job.state) == state)
        and (kind is None or job.kind == kind)
        and (model is None or job.model == model)
    ]
    found, following = page_after(sorted(jobs, key=order_of), cursor, limit, order_of)
    return TransferPage(items=[transfer_view(job) for job in found], next_cursor=following)


@router.get("/transfers/roots", dependencies=[Depends(require(Role.READER))])
async def list_roots(live: LiveSide) -> TransferRoots:
    """The folders of the service's machine that transfers may read models from and write them to."""
    folders = [str(folder) for folder in live.work.roots.folders]
    note = "" if folders else "none: the service was started without --allow-path"
    return TransferRoots(items=folders, note=note)


@router.get("/transfers/{transfer_id}", dependencies=[Depends(require(Role.READER))])
async def get_transfer(transfer_id: TransferId, live: LiveSide) -> TransferView:
    """A transfer as it stands."""
    return transfer_view(await live.service.blocking.run(live.runner.job, transfer_id))


@router.post("/transfers/{transfer_id}/cancel", dependencies=[Depends(require(Role.PUBLISHER))])
async def cancel_transfer(transfer_id: TransferId, live: LiveSide) -> TransferView:
    """Tells a transfer to stop. One that has ended stays as it is; one that has published its version is done."""
    return transfer_view(await live.service.blocking.run(live.runner.cancel, transfer_id))


@router.get(
    "/transfers/{transfer_id}/events",
    dependencies=[Depends(require(Role.READER))],
    response_class=Response,
    responses=_STREAM,
)
async def transfer_events(
    transfer_id: TransferId, live: LiveSide, last_event_id: LastEventId = None
) -> EventStream:
    """Server-sent events of one transfer: `state` and `progress`, with the transfer as data; first as it stands."""
    # Opened before the look: what happens in between is heard, and not missed.
    stream, first = live.broadcaster.open(transfer_id, last_event_id)
    try:
        job = await live.service.blocking.run(live.runner.job, transfer_id)
        now = f"event: state\ndata: {transfer_view(job).model_dump_json()}\n\n"
    except BaseException:
        live.broadcaster.leave(stream)
        raise
    return EventStream(live.broadcaster, stream, first + now.encode())


@router.get(
    "/events", dependencies=[Depends(require(Role.READER))], response_class=Response, responses=_STREAM
)
async def events(live: LiveSide, last_event_id: LastEventId = None) -> EventStream:
    """Server-sent events of everything: `transfer`, `registry`, `decision`, and `resync`: ask again for what you show.

    With `Last-Event-ID` they go on after that one, where it is still known.
    """
    stream, first = live.broadcaster.open("", last_event_id)
    return EventStream(live.broadcaster, stream, first)
