"""Who changed what in a repository: an append-only log whose tampering shows. `docs/guide/security.md` explains it."""

from textnlp_fast.storage.audit.heads import Head
from textnlp_fast.storage.audit.log import AuditLog
from textnlp_fast.storage.audit.reading import Filter, newest, verify_audit
from textnlp_fast.storage.audit.recording import AuditPolicy, Receipt, audited, keys_of, log_of, record
from textnlp_fast.storage.audit.records import AuditKey, AuditRecord, Outcome
from textnlp_fast.storage.audit.verifying import AuditProblem, AuditReport, verify_log

__all__ = [
    "AuditKey",
    "AuditLog",
    "AuditPolicy",
    "AuditProblem",
    "AuditRecord",
    "AuditReport",
    "Filter",
    "Head",
    "Outcome",
    "Receipt",
    "audited",
    "keys_of",
    "log_of",
    "newest",
    "record",
    "verify_audit",
    "verify_log",
]
