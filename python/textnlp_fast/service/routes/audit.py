"""The audit log, the newest first, and the proof that it is whole."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from textnlp_fast.service.auth import Role, require
from textnlp_fast.service.paging import Cursor, Limit
from textnlp_fast.service.reading.audit import audit_before, audit_report
from textnlp_fast.service.schemas import AuditPage, AuditReportDocument
from textnlp_fast.service.state import Service, service_of

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["audit"])
At = Annotated[Service, Depends(service_of)]


@router.get("/audit", dependencies=[Depends(require(Role.READER))])
async def list_audit(
    service: At,
    limit: Limit = 100,
    before: Annotated[int | None, Query(ge=0, lt=1 << 53, description="Records older than this one")] = None,
    cursor: Cursor = None,
) -> AuditPage:
    """Who changed what, as the log has it: claimed by who wrote it, unless the log carries codes."""
    rows, following = await audit_before(service, before, cursor, limit)
    return AuditPage(items=rows, next_cursor=following)


@router.post("/audit/verify", dependencies=[Depends(require(Role.OPERATOR))])
async def verify_audit_log(
    service: At,
    deep: Annotated[bool, Query(description="Compare every version's manifest with its record")] = False,
) -> AuditReportDocument:
    """Reads the log from end to end and says what does not fit. Takes a while for a long one."""
    return await service.flights.run(("verify audit", deep), lambda: audit_report(service, deep=deep))
