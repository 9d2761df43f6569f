"""The audit log in pages. Records never change: each is read once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError
from textnlp_fast.service.schemas import AuditProblemRow, AuditReportDocument, AuditRow
from textnlp_fast.storage.audit.heads import Head, record_key
from textnlp_fast.storage.audit.log import AuditLog
from textnlp_fast.storage.audit.reading import verify_audit
from textnlp_fast.storage.audit.records import AuditRecord, parse_record

if TYPE_CHECKING:
    from textnlp_fast.service.state import Service

__all__ = ["audit_before", "audit_report"]

_ROW_BYTES: Final = 1500


async def audit_before(
    service: Service, before: int | None, cursor: str | None, limit: int
) -> tuple[list[AuditRow], str | None]:
    """Records older than `before` or the cursor, the newest first, and the cursor of what follows them."""
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 16):
            raise InvalidInputError("the cursor is none that an answer gave", hint="Begin without one.")
        before = int(cursor)
    log = AuditLog(service.store)

    async def head() -> Head | None:
        return await service.blocking.run(log.find_head)

    last = await service.flights.run("audit head", head)
    if last is None:
        return [], None
    newest = last.sequence if before is None else min(last.sequence, before - 1)
    numbers = range(newest, max(-1, newest - limit), -1)
    rows: dict[int, AuditRow] = {}
    for number in numbers:
        kept = service.answers.get(("audit", number))
        if isinstance(kept, AuditRow):
            rows[number] = kept
    missing = [number for number in numbers if number not in rows]
    if missing:
        for row in await service.blocking.run(_read, log, missing):
            rows[row.seq] = row
            if row.outcome != "unreadable":
                service.answers.put(("audit", row.seq), row, _ROW_BYTES + len(repr(row.detail)))
    following = str(numbers[-1]) if numbers and numbers[-1] > 0 else None
    return [rows[number] for number in numbers if number in rows], following


def _read(log: AuditLog, numbers: Sequence[int]) -> list[AuditRow]:
    found = []
    for stored in log.read_all(numbers):
        try:
            if stored.error is not None:
                raise stored.error
            assert stored.data is not None, "what has no error has bytes"
            found.append(_row(parse_record(stored.data, record_key(stored.sequence)), stored.sequence))
        except (CorruptDataError, UnsupportedFormatError) as error:
            found.append(_unreadable(stored.sequence, str(error.args[0])))
    return found


def _row(record: AuditRecord, sequence: int) -> AuditRow:
    subject = record.model
    if subject is not None and record.version is not None:
        subject = f"{subject}@{record.version}"
    return AuditRow(
        seq=sequence,
        at=record.time,
        actor=record.actor.get("name") or record.actor.get("identity") or record.actor.get("host") or "",
        verb=record.action,
        subject=subject,
        outcome=record.outcome,
        detail=dict(record.detail),
    )


def _unreadable(sequence: int, why: str) -> AuditRow:
    return AuditRow(
        seq=sequence, at=None, actor="", verb="", subject=None, outcome="unreadable", detail={"problem": why}
    )


async def audit_report(service: Service, *, deep: bool) -> AuditReportDocument:
    """What a verification of the log found."""
    report = await service.heavy.run(verify_audit, service.store, deep=deep)
    return AuditReportDocument(
        ok=report.ok,
        records=report.records,
        proven=report.proven,
        unproven_tail=report.unproven_tail,
        versions=report.versions,
        gone=report.gone[:1000],
        problem_count=report.problem_count,
        problems=[
            AuditProblemRow(kind=each.kind, detail=each.detail, seq=each.sequence) for each in report.problems
        ],
    )
