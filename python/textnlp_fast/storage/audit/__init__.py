"""Who changed what in a repository: an append-only log whose tampering shows. `docs/guide/security.md` explains it."""

from textnlp_fast.storage.audit.heads import Head
from textnlp_fast.storage.audit.log import AuditLog
from textnlp_fast.storage.audit.recording import AuditPolicy, Receipt, audited, log_of, record
from textnlp_fast.storage.audit.records import AuditKey, AuditRecord, Outcome

__all__ = [
    "AuditKey",
    "AuditLog",
    "AuditPolicy",
    "AuditRecord",
    "Head",
    "Outcome",
    "Receipt",
    "audited",
    "log_of",
    "record",
]
