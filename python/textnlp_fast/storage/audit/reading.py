"""Records for people: the newest that match, and a verification with all that this machine knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from textnlp_fast.errors import CorruptDataError, UnsupportedFormatError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.audit.heads import Head, record_key
from textnlp_fast.storage.audit.log import AuditLog
from textnlp_fast.storage.audit.recording import AuditPolicy, keys_of, repository_id, witness_for
from textnlp_fast.storage.audit.records import AuditRecord, parse_record
from textnlp_fast.storage.audit.verifying import AuditReport, verify_log

if TYPE_CHECKING:
    from textnlp_fast.config import Settings

__all__ = ["Filter", "newest", "verify_audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which records are wanted. `action` and `model` may have `*`; `since` is a time as records have it."""

    model: str | None = None
    version: str | None = None
    action: str | None = None
    actor: str | None = None
    outcome: str | None = None
    since: str | None = None

    def takes(self, record: AuditRecord) -> bool:
        """Whether a record is one of them."""
        return (
            (self.model is None or fnmatchcase(record.model or "", self.model))
            and (self.version is None or record.version == self.version)
            and (self.action is None or fnmatchcase(record.action, self.action))
            and (self.actor is None or self.actor in record.actor.values())
            and (self.outcome is None or record.outcome == self.outcome)
            and (self.since is None or record.time >= self.since)
        )


def newest(log: AuditLog, wanted: Filter, limit: int) -> Iterator[AuditRecord]:
    """At most `limit` records that match, the last one first. Those that cannot be read are `verify`'s to tell."""
    found = 0
    for stored in log.backwards():
        if found >= limit:
            return
        if stored.data is None or stored.error is not None:
            continue
        try:
            record = parse_record(stored.data, record_key(stored.sequence))
        except (CorruptDataError, UnsupportedFormatError):
            continue
        if wanted.takes(record):
            found += 1
            yield record


def verify_audit(
    store: ObjectStore,
    settings: Settings | None = None,
    *,
    anchors: Sequence[Head] = (),
    start: Head | None = None,
    deep: bool = False,
) -> AuditReport:
    """Checks the repository's log with the keys of the settings, `anchors`, and what this machine remembers.

    A log that verifies is remembered. More under `verify_log`.
    """
    if settings is None:
        from textnlp_fast.config import load_settings  # noqa: PLC0415 - takes a while to load

        settings = load_settings()
    witness = witness_for(store, repository_id(store), AuditPolicy.of(settings))
    remembered = witness.read() if witness is not None else None
    known = [*anchors, remembered] if remembered is not None else list(anchors)
    report = verify_log(store, AuditLog(store), keys=keys_of(settings), anchors=known, start=start, deep=deep)
    if witness is not None and report.ok and report.head is not None:
        witness.write(report.head)
    return report
